"""A certificate in the words of those who collect such promises: a deployment registry, and NIST.

`registry` follows the fields of the Differential Privacy Deployments Registry (registry.opendp.org, its data
at github.com/opendp/deployments-registry-data); `nist` orders the same facts by the questions of NIST
SP 800-226, "Guidelines for Evaluating Differential Privacy Guarantees" (2025). Nothing is added that the
certificate does not say; what only the owner knows (who, for what, where) is left empty for the owner.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpwavelet.errors import ConfigError

FORMATS = ("registry", "nist")
_MINE = ""  # for the owner to fill in

_TUNING = (
    "Decoding a record to pixels and its tokens is a fixed public function of that record alone. Batch size, "
    "steps and clipping norm stand in the plan; unless the owner gave them, they follow from the declared "
    "number of records. That nobody chose them by looking at the records no certificate can show. Tuning by "
    "other runs on the same records is not covered: those runs have ledger entries and certificates of their "
    "own."
)
_POST = (
    "Averages of the weights, every sample, and the detail that public models add, are functions of the "
    "noisy sums and of public things."
)
_POINTS = (
    "Noise and batches come from AES-256 in counter mode under a secret key. Records are clipped with a "
    "margin for rounding and added up in double precision. Raw noisy sums of gradients are not released; "
    "sums that numbers about the records are read off are rounded to a public grid. Running time is not "
    "hidden."
)


def check_format(form: str) -> None:
    """Refuse a form that nobody knows."""
    if form not in FORMATS:
        raise ConfigError(f"the format must be one of {', '.join(FORMATS)}, got {form!r}.")


def export(certificate: Mapping[str, Any], form: str, cannot_prove: Sequence[str]) -> dict[str, Any]:
    """A verified certificate as plain JSON in one of FORMATS, with what verifying it left open."""
    check_format(form)
    return (_registry if form == "registry" else _nist)(certificate, cannot_prove)


def _registry(certificate: Mapping[str, Any], cannot_prove: Sequence[str]) -> dict[str, Any]:
    return {
        "status": "Draft",
        "registry_authors": [],
        "tier": _MINE,
        "deployment": {
            "name": _MINE,
            "data_curator": _MINE,
            "description": "An image generator, and images that it drew, learned from private images.",
            "intended_use": _MINE,
            "data_product_type": "Machine learning model",
            "data_product_region": _MINE,
            "publication_date": _MINE,
            "dp_flavor": {
                "name": "Approximate DP",
                "input_metric": f"number of units ({certificate['unit']}) added or removed",
                "bound_on_input_distance": "1",
                "output_measure": "(epsilon, delta) indistinguishability",
                "data_domain": "all finite sets of images with captions or labels",
                "unprotected_quantities": _unprotected(certificate),
            },
            "privacy_loss": {
                "privacy_unit": certificate["unit"],
                "privacy_unit_description": f"{certificate['neighbours']}. {certificate['contribution']}",
                "privacy_parameters": {"epsilon": certificate["epsilon"], "delta": certificate["delta"]},
                "privacy_parameters_description": certificate["statement"],
            },
            "model": {
                "model_name": "Central",
                "actors": "The owner, who holds the records and the noise key, is trusted. Whoever sees the "
                "release, with any other knowledge, is not.",
                "is_many_release": _MINE,  # a certificate knows of no other release
                "is_dynamic": False,
                "is_interactive": False,
            },
            "accounting": {"post_processing": _POST, "composition": _composition(certificate)},
            "implementation": {
                "pre_processing_eda_hyperparameter_tuning": _TUNING,
                "mechanisms": f"{_mechanisms(certificate)} {_POINTS} Software: {_software(certificate)}.",
                "justification": _allowed(certificate),
            },
            "additional_information": f"Not promised: {' '.join(certificate['not_promised'])} "
            f"No check of the release can prove: {'; '.join(cannot_prove)}.",
        },
    }


def _nist(certificate: Mapping[str, Any], cannot_prove: Sequence[str]) -> dict[str, Any]:
    return {
        "framework": "NIST SP 800-226",
        "definition": "(epsilon, delta)-differential privacy",
        "privacy_parameters": {"epsilon": certificate["epsilon"], "delta": certificate["delta"]},
        "unit_of_privacy": {
            "unit": certificate["unit"],
            "neighboring_relation": certificate["neighbours"],
            "contributions_bounded": certificate["unit"] != "record",
            "contribution_bound": certificate["contribution"],
        },
        "meaning": {"statement": certificate["statement"], "attack": certificate["attack"]},
        "trust_model": "central: the owner is trusted, and nobody who sees the release",
        "algorithm": {
            "kind": "machine learning: DP-SGD on the coarse wavelet tokens of each image",
            "mechanisms": certificate["events"],
            "clipping_norm": certificate["max_norm"],
            "divisor": certificate["divisor"],
            "post_processing": _POST,
        },
        "accountant": {
            "method": _composition(certificate),
            "epsilon_by_privacy_loss_distributions": certificate["epsilon_pld"],
            "epsilon_by_renyi_accounting": certificate["epsilon_rdp"],
        },
        "hyperparameters_and_preprocessing": _TUNING,
        "implementation": {"side_channels_and_floating_point": _POINTS, "software": certificate["versions"]},
        "data_collection_exposure": {
            "unprotected_quantities": _unprotected(certificate),
            "captions": certificate["captions"],
            "allowed_by_the_owner": certificate["allowed"],
        },
        "not_covered": certificate["not_promised"],
        "not_provable": list(cannot_prove),
        "ledger": certificate["ledger"],
    }


def _unprotected(certificate: Mapping[str, Any]) -> str:
    return (
        f"The declared number of units, {certificate['records_declared']}, and every setting that follows "
        "from it; and that there are at least so many."
    )


def _composition(certificate: Mapping[str, Any]) -> str:
    kinds = len(certificate["events"])
    return (
        f"{kinds} kind{'s' * (kinds != 1)} of mechanism, composed by privacy-loss distributions "
        "(dp_accounting, pessimistic), with Rényi accounting as a second opinion."
    )


def _mechanisms(certificate: Mapping[str, Any]) -> str:
    said = [
        ", ".join(f"{name} {value}" for name, value in sorted(event.items()))
        for event in certificate["events"]
    ]
    measured = " and, where every unit takes part, on sums of bounded vectors that units are measured by"
    more = measured if len(certificate["events"]) > 1 else ""
    norm = certificate["max_norm"]
    return f"Gaussian noise on sums of clipped gradients (norm {norm}){more}: {'; '.join(said)}."


def _software(certificate: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in certificate["versions"].items())


def _allowed(certificate: Mapping[str, Any]) -> str:
    if not certificate["allowed"]:
        return "The owner allowed nothing that is refused."
    rules = (f"{rule['name']}: {rule['sentence']}" for rule in certificate["allowed"])
    return "The owner allowed these beforehand, whether or not it came to that. " + " ".join(rules)
