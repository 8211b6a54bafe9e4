"""Ways in which pictures get worse: to teach a feature network what worse looks like, and to test distances.

Each takes uint8 images [B, 3, S, S] and a strength from 0, which changes nothing, to 1, and gives images of
the same kind. What is random takes a generator. Nothing here knows whose the pictures are.
"""

import io
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

Degradation = Callable[[Tensor, float, np.random.Generator], Tensor]


def blur(images: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Gaussian blur; at strength 1 its deviation is a sixteenth of the side."""
    sigma = strength * images.shape[-1] / 16
    if sigma < 0.05:
        return images
    reach = min(math.ceil(3 * sigma), images.shape[-1] - 1)
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.softmax(-places.square() / (2 * sigma**2), 0).expand(3, 1, -1)
    x = F.pad(images.float(), (reach,) * 4, mode="reflect")
    x = F.conv2d(F.conv2d(x, weights[:, :, None], groups=3), weights[..., None], groups=3)
    return _bytes(x)


def noise(images: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Independent Gaussian noise on every value; at strength 1 its deviation is 0.3 of the range."""
    added = generator.standard_normal(tuple(images.shape), np.float32) * np.float32(255 * 0.3 * strength)
    return _bytes(images.float() + torch.from_numpy(added))


def jpeg(images: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """JPEG and back; quality 95 falls to 5."""
    if strength == 0:
        return images
    quality = round(95 - 90 * strength)
    found = []
    for pixels in images:
        file = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        with Image.open(file, formats=["JPEG"]) as image:
            found.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return torch.stack(found)


def pixelate(images: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Fewer pixels, each a square; at strength 1 an eighth of the side is left."""
    side = images.shape[-1]
    few = max(round(side / 8**strength), 1)
    small = F.interpolate(images.float(), size=(few, few), mode="area")
    return _bytes(F.interpolate(small, size=(side, side), mode="nearest"))


def grey(images: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Colours fade; at strength 1 none is left."""
    x = images.float()
    return _bytes(x.lerp(x.mean(1, keepdim=True).expand_as(x), strength))


def flat(images: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Contrast fades towards the mean of each picture; at strength 1 a tenth is left."""
    x = images.float()
    return _bytes(x.lerp(x.mean((2, 3), keepdim=True).expand_as(x), 0.9 * strength))


def tint(images: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """One gain and one offset for each channel of each picture, drawn anew for each."""
    shape = (len(images), 3, 1, 1)
    gain = torch.from_numpy(np.exp2(generator.uniform(-strength, strength, shape)).astype(np.float32))
    offset = torch.from_numpy(generator.uniform(-64 * strength, 64 * strength, shape).astype(np.float32))
    return _bytes(images.float() * gain + offset)


def shuffle(images: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """A share of the 64 squares of a picture change places with each other; at strength 1 all of them."""
    side = images.shape[-1] // 8
    moved = round(64 * strength)
    if side == 0 or moved < 2:
        return images
    squares = (
        images.unfold(2, side, side).unfold(3, side, side).reshape(len(images), 3, 64, side, side).clone()
    )
    for picture in squares:
        chosen = generator.choice(64, size=moved, replace=False)
        picture[:, chosen] = picture[:, np.roll(chosen, 1)].clone()
    rows = squares.reshape(len(images), 3, 8, 8, side, side).permute(0, 1, 2, 4, 3, 5)
    found = images.clone()
    found[..., : 8 * side, : 8 * side] = rows.reshape(len(images), 3, 8 * side, 8 * side)
    return found


DEGRADATIONS: Mapping[str, Degradation] = {
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "pixelate": pixelate,
    "grey": grey,
    "flat": flat,
    "tint": tint,
    "shuffle": shuffle,
}


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
