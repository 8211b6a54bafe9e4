"""Image files to square RGB thumbnails, bounded in memory and the same on every run.

`describe` reads the header only and says what `decode` would convert; nothing is repaired in silence and a
file that does not decode whole is a DataError that names it. Neither knows where the bytes came from.
Pillow's plug-ins are called directly, so that the size is known before anything is decoded and before
Pillow's own warning about large images, which is switched for the whole process, could be raised.

Shapes: B batch, S side of the square in pixels.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile
from torch import Tensor

from dpwavelet.errors import DataError

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
)
PIXEL_LIMIT = 64_000_000
BYTES_LIMIT = 256 * 2**20
WORKERS = min(8, os.cpu_count() or 1)

_ORIENTATION = 274  # EXIF tag
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_READ_AHEAD = 128  # items under way for each worker of `in_order`
_AT_A_TIME = 16  # items handed to a worker together, because a hand-over costs as much as a small image

Item = TypeVar("Item")
Result = TypeVar("Result")


class Readable(Protocol):
    """Whatever holds image files in a fixed order."""

    @property
    def names(self) -> Sequence[str]:
        """The name of every file, for messages."""

    def read(self, index: int) -> bytes:
        """The bytes of one file."""


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What the header of one file says; `depth` is bits per channel and `mode` is Pillow's word."""

    width: int
    height: int
    mode: str
    format: str
    depth: int
    alpha: bool
    exif_rotated: bool
    frames: int

    @property
    def conversions(self) -> tuple[str, ...]:
        """What `decode` changes beyond size, in words; empty for an upright 8-bit RGB image."""
        cases = (
            (self.depth == 16, "16-bit to 8-bit, by the full 16-bit range"),
            (self.alpha, "transparency laid over white"),
            (self.mode in ("1", "L", "LA", "La") or self.mode.startswith("I"), "grey to RGB"),
            (self.mode in ("P", "PA"), "palette to RGB"),
            (self.mode == "CMYK", "CMYK to RGB"),
            (self.exif_rotated, "turned upright by EXIF"),
            (self.frames > 1, "first frame of several"),
        )
        return tuple(words for holds, words in cases if holds)


def describe(data: bytes, name: str = "image") -> ImageFacts:
    """Facts from the header alone; a DataError names a file that is no image, or too large to decode."""
    try:
        with _open(data, name) as image:
            return ImageFacts(
                width=image.width,
                height=image.height,
                mode=image.mode,
                format=image.format or "",
                depth=_depth(image, data),
                alpha=image.has_transparency_data,
                exif_rotated=_orientation(image) != 1,
                frames=getattr(image, "n_frames", 1),
            )
    except DataError:
        raise
    except Exception as error:
        raise _broken(name, error) from error


def decode(data: bytes, size: int, name: str) -> Tensor:
    """One file as a uint8 RGB thumbnail [3, size, size]: upright, centre-cropped to a square, antialiased.

    Guarantee: the result is a function of `data` and `size` alone; at most PIXEL_LIMIT pixels are decoded;
    a file that is damaged, cut short or of no agreed brightness range is a DataError, never a guess.
    """
    try:
        with _open(data, name) as image:
            turn = _orientation(image) != 1
            if image.format == "JPEG":  # decode at 1/2, 1/4 or 1/8 while three times the size remains
                image.draft(None, (3 * size, 3 * size))
            inverted = _inverted(image, name)
            image.load()
            upright = ImageOps.exif_transpose(image) if turn else image
            square = _thumbnail(_rgb(upright, image.format, name), size)
            if inverted:
                square = ImageOps.invert(square)
            return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()
    except DataError:
        raise
    except Exception as error:  # Pillow's plug-ins raise a dozen kinds on damaged input
        raise _broken(name, error) from error


def decode_many(folder: Readable, indices: Sequence[int], size: int, workers: int = WORKERS) -> Tensor:
    """Decode the chosen files in parallel, in the order asked for: uint8 [B, 3, size, size]."""
    names = folder.names
    images = list(in_order(lambda i: decode(folder.read(i), size, names[i]), indices, workers))
    return torch.stack(images) if images else torch.empty((0, 3, size, size), dtype=torch.uint8)


def in_order(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int = WORKERS
) -> Iterator[Result]:
    """Apply `function` in threads and yield results in order; memory does not grow with the items."""
    if workers == 1 or len(items) == 1:
        yield from map(function, items)
        return
    window = _READ_AHEAD * workers
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(items), window):
            several = [items[i : i + _AT_A_TIME] for i in range(start, start + window, _AT_A_TIME)]
            for results in pool.map(lambda part: [function(item) for item in part], several):
                yield from results


def _open(data: bytes, name: str) -> ImageFile:
    """Parse the header and refuse what would be too large, before any pixel is decoded."""
    if len(data) > BYTES_LIMIT:
        raise DataError(
            f"{name} has {len(data):,} bytes, and at most {BYTES_LIMIT:,} are read; save it smaller."
        )
    plugin = _plugin(data[:16])
    if plugin is None:
        raise DataError(
            f"{name} is not an image of a known kind (PNG, JPEG, WebP, BMP, TIFF, GIF, PPM); "
            "replace it, or leave it out."
        )
    image = plugin(io.BytesIO(data))
    if image.width * image.height > PIXEL_LIMIT:
        raise DataError(
            f"{name} claims {image.width} x {image.height} pixels, and at most {PIXEL_LIMIT:,} are decoded; "
            "save it smaller."
        )
    return image


def _plugin(head: bytes) -> Callable[[io.BytesIO], ImageFile] | None:
    """Pillow's reader for a file that starts with these bytes."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    readers: tuple[tuple[tuple[bytes, ...], Callable[[io.BytesIO], ImageFile]], ...] = (
        ((b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
        ((b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
        ((b"BM",), BmpImagePlugin.BmpImageFile),
        ((b"II*\0", b"MM\0*"), TiffImagePlugin.TiffImageFile),
        ((b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
        ((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), PpmImagePlugin.PpmImageFile),
    )
    return next((reader for starts, reader in readers if head.startswith(starts)), None)


def _depth(image: ImageFile, data: bytes) -> int:
    """Bits per channel as stored; Pillow itself halves 16-bit colour while it decodes."""
    if isinstance(image, PngImagePlugin.PngImageFile):
        return max(8, data[24])  # IHDR holds it at this place
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(8, *map(int, image.tag_v2.get(_BITS_PER_SAMPLE, (8,))))
    return 16 if image.mode.startswith("I") else 8


def _inverted(image: ImageFile, name: str) -> bool:
    """Whether 0 is white in a picture of more than 8 bits: Pillow turns those of 8 alone."""
    if not (isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode.startswith("I;16")):
        return False
    if (depth := _depth(image, b"")) != 16:
        raise DataError(f"{name} has {depth} bits a pixel, which are not read; save 8 or 16.")
    return bool(image.tag_v2.get(_PHOTOMETRIC) == 0)


def _orientation(image: ImageFile) -> int:
    """EXIF orientation 1 to 8; an absent or unknown one is upright."""
    value: object = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image, kind: str | None, name: str) -> Image.Image:
    """Any 8- or 16-bit colour mode as RGB, transparency over white."""
    if image.mode == "F" or (image.mode == "I" and kind == "TIFF"):
        raise DataError(f"{name} has 32-bit pixels, whose black and white are not agreed; save 8 or 16 bits.")
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.uint32)
        if isinstance(clear := image.info.get("transparency"), int):
            wide = np.where(wide == clear, 65535, wide)  # over white
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _thumbnail(image: Image.Image, size: int) -> Image.Image:
    """Centre square, then the mean of whole blocks where they fit, else Lanczos."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == size:
        return image.crop(box)
    if side % size == 0:
        return image.reduce(side // size, box)
    return image.resize((size, size), Image.Resampling.LANCZOS, box, reducing_gap=3.0)


def _broken(name: str, error: Exception) -> DataError:
    """One wording for everything Pillow may raise on a damaged file."""
    reason = str(error) or type(error).__name__
    return DataError(f"{name} cannot be decoded ({reason}); replace the file, or leave it out.")
