"""Private records as latents and caption ids: what this rival learns from and nothing else.

Each record is encoded once, by the frozen autoencoder, as the mean latent of its picture.

Letters: M records, C x h x w a latent, L caption positions.
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import DataError
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.records import CAPTION_CHOICES
from dpwavelet.rivals.diffusion.networks import LatentDiffusion

AT_ONCE = 16  # pictures, always: how many there are must not change how one of them is rounded


@dataclass(frozen=True)
class LatentRecords:
    """Private records as latents. Lives in `private/` only."""

    latents: NDArray[np.float16]  # [M, C, h, w]
    captions: NDArray[np.int32]  # [M, CAPTION_CHOICES, L]; a record's captions repeat to fill the row
    empty: NDArray[np.int32]  # [L], what no caption is

    def __len__(self) -> int:
        return len(self.latents)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything in it; as private as the records."""
        found = sha256()
        for table in (self.latents, self.captions, self.empty):
            found.update(f"{table.dtype} {table.shape}\n".encode())
            found.update(np.ascontiguousarray(table).tobytes())
        return found.hexdigest()

    def batch(self, chosen: NDArray[np.int64], choice: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Latents [B, C, h, w] and caption ids [B, L] of records, choice -1 for no caption."""
        ids = self.captions[chosen, np.maximum(choice, 0)]
        ids = np.where((choice < 0)[:, None], self.empty, ids)
        latents = torch.from_numpy(self.latents[chosen].astype(np.float32))
        return latents, torch.from_numpy(ids.astype(np.int64))


def encoded(diffusion: LatentDiffusion, pixels: Tensor) -> NDArray[np.float16]:
    """Latents [B, C, h, w] of bytes [B, 3, S, S], each a function of its own picture alone."""
    device, rows = diffusion.denoiser.device, []
    for few in torch.split(pixels, AT_ONCE):
        full = few[torch.arange(AT_ONCE) % len(few)]
        rows.append(diffusion.encode(from_bytes(full).to(device))[: len(few)].half().numpy(force=True))
    return np.ascontiguousarray(np.concatenate(rows))  # in one layout, read from a file or not


def read_records(diffusion: LatentDiffusion, images: PrivateImages) -> LatentRecords:
    """Encode every record, a few at a time; each row depends on its own record alone."""
    if not len(images):
        raise DataError("there are no records to train on.")
    encode = diffusion.denoiser.embedder.encode
    empty = encode([""])[0].numpy().astype(np.int32)
    latents = np.empty((len(images), *diffusion.latent), np.float16)  # made first: see `records.tokenize`
    captions = np.empty((len(images), CAPTION_CHOICES, len(empty)), np.int32)
    for indices, pixels in images.batches(AT_ONCE):
        latents[indices] = encoded(diffusion, pixels)
        for index in indices:
            own = images.captions(index) or ("",)
            captions[index] = encode([own[choice % len(own)] for choice in range(CAPTION_CHOICES)]).numpy()
    return LatentRecords(latents, captions, empty)
