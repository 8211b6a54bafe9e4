"""One picture in several variants: as it is, mirrored, and seen through windows that lie a little off.

Every variant is a fixed public function of the picture alone, and which ones there are is a public list. Odd
ones are the mirror image of the one before them, and then a caption that names sides names the others.

Shapes: B batch, S side of the square in pixels, V variants.
"""

import re
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Augment = Literal["none", "shifts", "mirror", "crops"]
AUGMENTS = get_args(Augment)

Window = tuple[float, float, float]
"""Left edge, top edge and side of what is seen, in sides of the picture; its edges are repeated."""

WHOLE: Window = (0.0, 0.0, 1.0)
# No edge is farther than 6% from the picture's own.
WINDOWS = (WHOLE, (0.06, 0.03, 0.94), (-0.05, 0.04, 1.0), (-0.02, -0.06, 1.05))

_SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def numbers(augment: Augment) -> range:
    """The variants that a picture has, itself first; "shifts" are those that mirror nothing."""
    every = 2 * len(WINDOWS)
    lists = {"none": range(1), "shifts": range(0, every, 2), "mirror": range(2), "crops": range(every)}
    return lists[augment]


def mirrors(augment: Augment) -> bool:
    """Whether some variants are mirror images."""
    return any(map(is_mirrored, numbers(augment)))


def variant(pictures: Tensor, number: int) -> Tensor:
    """Variant `number`, from 0, of pictures [B, 3, S, S] in [-1, 1]; same shape. Number 0 is the input."""
    window = WINDOWS[number // 2]
    seen = pictures if window == WHOLE else _through(pictures, window)
    return seen.flip(-1) if is_mirrored(number) else seen


def is_mirrored(number: int) -> bool:
    """Whether left is right in this variant."""
    return number % 2 == 1


def mirrored_caption(caption: str) -> str:
    """The caption with the words left and right exchanged."""
    return _SIDE.sub(lambda found: _OTHER[found[0].lower()], caption)


def _through(pictures: Tensor, window: Window) -> Tensor:
    """What a window shows, bicubic, at the side of the picture."""
    left, top, side = window
    turn = [[side, 0.0, 2 * left + side - 1], [0.0, side, 2 * top + side - 1]]
    # One grid for all, so that its rounding does not depend on how many pictures there are.
    grid = F.affine_grid(pictures.new_tensor([turn]), [1, *pictures.shape[1:]], align_corners=False)
    seen = F.grid_sample(
        pictures, grid.expand(len(pictures), -1, -1, -1), "bicubic", "border", align_corners=False
    )
    return torch.clamp(seen, -1, 1)
