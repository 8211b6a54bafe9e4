"""Which layers hold the parameters that are trained, and whether their records can be told apart."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.autograd import grad
from torch.autograd.graph import GradientEdge

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.layer_gradients import SUPPORTED

MIXED = (
    "a record's loss depends on other records of its chunk, so clipping cannot bound its influence. Remove "
    "what mixes records: batch statistics, shared position ids, a batch loss."
)
_RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_MIXING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def owners(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[nn.Module, dict[str, str]]:
    """The layers of all parameters: {layer: {"weight" or "bias": name}}; shared parameters have several.

    Refuses, by name, what cannot be clipped exactly.
    """
    places: dict[nn.Parameter, list[tuple[str, nn.Module, str]]] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, _MIXING):
            raise PrivacyError(
                f"layer {path} ({type(layer).__name__}) mixes the records of a batch; use LayerNorm."
            )
        if isinstance(layer, _RANDOM) and layer.training and layer.p > 0:
            raise PrivacyError(
                f"layer {path} ({type(layer).__name__}) draws at random in an order that depends on the "
                "batch; call eval() on it or leave it out."
            )
        for attribute, p in layer.named_parameters(recurse=False):
            places.setdefault(p, []).append((path, layer, attribute))
    found: dict[nn.Module, dict[str, str]] = {}
    for name, p in parameters.items():
        if p not in places:
            raise ConfigError(f"parameter {name} must belong to a layer of the model, but belongs to none.")
        for path, layer, attribute in places[p]:
            _require_supported(name, path or "the model itself", layer, attribute)
            found.setdefault(layer, {})[attribute] = name
    return found


def require_separate_records(losses: Tensor, outputs: list[GradientEdge]) -> None:
    """Raise if the loss of an even row depends on a layer's output for an odd row, or the other way."""
    for rows in (0, 1):
        if any(
            g is not None and bool((g[1 - rows :: 2].abs() > 0).any())
            for g in grad(losses[rows::2].sum(), outputs, retain_graph=True, allow_unused=True)
        ):
            raise PrivacyError(MIXED)


def require_records_first(layer: nn.Module, names: str, given: Tensor, B: int) -> None:
    """Raise unless the first dimension of what a layer was given is the record."""
    features = 0 if isinstance(layer, nn.Embedding) else len(getattr(layer, "normalized_shape", (1,)))
    if given.dim() <= features or len(given) != B:
        raise ConfigError(
            f"the layer of {names} was fed {list(given.shape)} in a chunk of {B} records; the first "
            "dimension must be the record. Expand what records share, such as positions."
        )


def _require_supported(name: str, path: str, layer: nn.Module, attribute: str) -> None:
    if type(layer) not in SUPPORTED or attribute not in ("weight", "bias"):
        kinds = ", ".join(dict.fromkeys(kind.__name__ for kind in SUPPORTED))
        raise ConfigError(
            f"parameter {name} sits in {path} ({type(layer).__name__}), whose per-record gradients are not "
            f"known; train {kinds} only, and freeze the rest."
        )
    if isinstance(layer, nn.Embedding):
        options = ("padding_idx", "max_norm", "sparse", "scale_grad_by_freq")
        unusual = [o for o in options if getattr(layer, o) is not None and getattr(layer, o) is not False]
        if unusual:
            raise ConfigError(
                f"embedding {path} sets {', '.join(unusual)}, which changes its gradient in a way that "
                "clipping each record does not follow; leave it out."
            )
