"""A linear layer for the public and the trained networks: where nothing learns, its product is oneDNN's.

torch hands float32 products on a CPU to MKL, which on some processors has half the speed of oneDNN. It has
no public switch for that, only the operator that its compiler uses (`mkldnn._linear_pointwise`). With
gradients, in other precisions and on other devices this is `nn.Linear` and nothing else.

Letters: B rows of any shape, I inputs, O outputs.
"""

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """`nn.Linear`, but faster where it is only applied; results agree to float32 rounding."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, I] to [B, O]."""
        if not _only_applied(input):
            return super().forward(input)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")
        return product


def _only_applied(input: Tensor) -> bool:
    """Whether this is a plain float32 product on a CPU that nobody differentiates, records or rounds."""
    return (
        input.device.type == "cpu"
        and input.dtype == torch.float32
        and input.numel() > 0
        and type(input) is Tensor
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and torch._C._has_mkldnn
    )
