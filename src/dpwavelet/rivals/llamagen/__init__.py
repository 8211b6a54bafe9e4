"""DP-LlamaGen: tokens of the whole picture, predicted by a Llama and trained with DP-SGD (arXiv 2406.06525).

The original has no private training. Two things are other than in its code: a record's loss is the mean over
its own tokens, where the original divides by the valid tokens of the batch, so that one record changes the
loss of the others; and there is no dropout.
"""

from dpwavelet.rivals.llamagen.rival import PRESETS, LlamaGen, LlamaTraining, create

__all__ = ["PRESETS", "LlamaGen", "LlamaTraining", "create"]
