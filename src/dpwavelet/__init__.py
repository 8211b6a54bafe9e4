"""A folder of sensitive images in, a differentially private image generator and data set out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpwavelet.generation import Sampling
    from dpwavelet.pipeline import Pipeline, RunSettings
    from dpwavelet.pipeline.run import run
    from dpwavelet.privacy.verification import verify_release

__version__ = "0.1.0"
__all__ = ["Pipeline", "RunSettings", "Sampling", "__version__", "run", "verify_release"]

_PLACES = {
    "Pipeline": "dpwavelet.pipeline",
    "RunSettings": "dpwavelet.pipeline",
    "Sampling": "dpwavelet.generation",
    "run": "dpwavelet.pipeline.run",
    "verify_release": "dpwavelet.privacy.verification",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for, and torch with it, when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module 'dpwavelet' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
