"""Pictures for people to look at: tensors to PNG bytes and contact sheets. Origins are not known here."""

import io
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def to_bytes(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8, values outside clamped; same shape."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_bytes(pixels: Tensor) -> Tensor:
    """Images of uint8 in [-1, 1], float32; same shape."""
    return pixels.float() / 127.5 - 1


def png(pixels: Tensor) -> bytes:
    """One image [3, H, W], uint8 or in [-1, 1], as PNG without any metadata."""
    pixels = pixels if pixels.dtype == torch.uint8 else to_bytes(pixels)
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(file, format="PNG")
    return file.getvalue()


def sheet(rows: Sequence[Tensor], side: int, gap: int = 2) -> Tensor:
    """Rows of images [n, 3, h, w], each enlarged without smoothing to `side`, as one uint8 [3, H, W]."""
    lines = []
    for row in rows:
        pixels = row if row.dtype == torch.uint8 else to_bytes(row)
        big = F.interpolate(pixels.float(), size=(side, side), mode="nearest").to(torch.uint8)
        lines.append(F.pad(big, (0, gap, 0, gap), value=255).permute(1, 2, 0, 3).flatten(2))
    width = max(line.shape[2] for line in lines)
    return torch.cat([F.pad(line, (0, width - line.shape[2]), value=255) for line in lines], 1)
