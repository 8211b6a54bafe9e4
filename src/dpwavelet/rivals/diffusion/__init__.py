"""DP-LDM (arXiv 2305.15759): latent diffusion whose attention and caption embedder are trained privately.

The networks are classes of `diffusers` and the per-record gradients are those of Opacus, as with its authors;
plan, noise, ledger and accountant are ours. Both libraries are extras of the package. Three things are other
than in the authors' code: a record is seen with several times and noises in one step, the average of the
weights may be released, and the caption is left out now and then, so that guidance has something to go by.
"""

from dpwavelet.rivals.diffusion.networks import SHAPES, LatentDiffusion
from dpwavelet.rivals.diffusion.rival import DpLdm, create
from dpwavelet.rivals.diffusion.sampling import Ddim
from dpwavelet.rivals.diffusion.training import Finetuning
from dpwavelet.rivals.diffusion.weights import from_diffusers, load, save

__all__ = [
    "SHAPES",
    "Ddim",
    "DpLdm",
    "Finetuning",
    "LatentDiffusion",
    "create",
    "from_diffusers",
    "load",
    "save",
]
