"""A certificate in the fields of a registry and of NIST: all of it, and nothing that it does not say."""

import json

import pytest

from dpwavelet.errors import ConfigError
from dpwavelet.privacy.certificate import make_certificate
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.registry import FORMATS, export

PLAN = PrivacyPlan(
    epsilon=2.0, delta=1e-4, records=2000, batch_size=64, steps=50, max_norm=0.5, unit="person",
    group_by="patient", per_unit=3,
)  # fmt: skip
CERTIFICATE = make_certificate(
    PLAN,
    files={},
    ledger_position=3,
    ledger_head="ab" * 32,
    private_scales=[1],
    captions="Captions were given.",
    allowed=["duplicates"],
)

OPEN = ["that the moon is no witness"]

# Required fields and enumerations, from schemas/deployments-schema.yaml of opendp/deployments-registry-data
# at 617ad178d59481c1c04bbe3ef4386fc0e68d6d33.
REQUIRED = {
    (): {"status", "registry_authors", "tier", "deployment"},
    ("deployment",): {
        "name", "data_curator", "description", "intended_use", "data_product_type", "data_product_region",
        "publication_date",
    },
    ("deployment", "dp_flavor"): {"name", "data_domain", "unprotected_quantities"},
    ("deployment", "privacy_loss"): {"privacy_unit", "privacy_parameters"},
    ("deployment", "model"): {"model_name"},
    ("deployment", "accounting"): {"post_processing", "composition"},
    ("deployment", "implementation"): {
        "pre_processing_eda_hyperparameter_tuning", "mechanisms", "justification",
    },
}  # fmt: skip


def test_a_registry_entry_has_every_required_field():
    entry = export(CERTIFICATE, "registry", OPEN)
    for path, names in REQUIRED.items():
        part = entry
        for name in path:
            part = part[name]
        assert names <= part.keys(), path
    deployment = entry["deployment"]
    assert deployment["model"]["model_name"] == "Central"
    assert deployment["dp_flavor"]["name"] == "Approximate DP"
    assert deployment["data_product_type"] == "Machine learning model"
    assert deployment["privacy_loss"]["privacy_parameters"] == {"epsilon": 2.0, "delta": 1e-4}
    assert "person" in deployment["privacy_loss"]["privacy_unit_description"]


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_says_what_is_promised_by_what_and_what_is_not(form):
    text = json.dumps(export(CERTIFICATE, form, OPEN))
    for words in (
        "person", "add or remove one person", "at most 3 of their records", "field 'patient'",
        "central", "PoissonGaussian", repr(PLAN.noise_multiplier),
        "dp_accounting", "Tuning by other runs", "A picture that is there k times", "2000",
        "stand in the plan; unless the owner gave them", "by looking at the records no certificate",
        *CERTIFICATE["not_promised"], *OPEN,
    ):  # fmt: skip
        assert words.lower() in text.lower(), words


@pytest.mark.parametrize("form", FORMATS)
def test_what_only_the_owner_knows_is_left_empty_and_nothing_is_made_up(form):
    entry = export(CERTIFICATE, form, OPEN)
    assert json.loads(json.dumps(entry)) == entry
    assert form != "registry" or entry["deployment"]["data_curator"] == ""


def test_an_unknown_format_is_refused():
    with pytest.raises(ConfigError, match="registry, nist"):
        export(CERTIFICATE, "xml", OPEN)
