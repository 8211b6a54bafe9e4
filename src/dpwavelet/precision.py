"""Where products of bfloat16 are worth taking: many processors have none.

Without instructions of its own for them, a processor takes ten times as long for a product in bfloat16 as for
one in float32 (AVX2; a convolution fifty times as long). Whoever asks for mixed precision gets it where the
machine has such instructions, and float32 elsewhere.
"""

from functools import cache
from platform import machine

import torch

X86 = ("x86_64", "amd64", "i386", "i686")


def mixed_precision(device: torch.device, wanted: bool = True) -> torch.autocast:
    """Products in bfloat16 where that is wanted and fast; weights, losses and sums stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=rounds_products(device, wanted))


def rounds_products(device: torch.device, wanted: bool = True) -> bool:
    """Whether `mixed_precision` rounds anything there."""
    return wanted and multiplies_bfloat16(device.type)


@cache
def multiplies_bfloat16(kind: str) -> bool:
    """Whether a device of this kind has instructions for products of bfloat16."""
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and _processor_multiplies()


def _processor_multiplies() -> bool:
    """Torch has no public question for this: it is asked its own, and one that it does not know is a no."""
    if not torch._C._has_mkldnn or not _told(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"):
        return False
    if machine().lower() not in X86:
        return True
    return any(_told(torch.cpu, name) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def _told(where: object, question: str) -> bool:
    return bool(getattr(where, question, bool)())
