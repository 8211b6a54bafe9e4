"""A folder of sensitive images in, a differentially private image generator and data set out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpwavelet.pipeline import Pipeline

__version__ = "0.1.0"
__all__ = ["Pipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """Load `Pipeline`, and torch with it, when it is first asked for."""
    if name == "Pipeline":
        from dpwavelet.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module 'dpwavelet' has no attribute {name!r}")
