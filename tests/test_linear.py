"""The layer that is faster where nothing learns, and is a plain one everywhere else."""

import pytest
import torch
from torch import nn

from dpwavelet.linear import Linear
from dpwavelet.privacy.clipping import RecordClipper


def layers(bias: bool = True) -> tuple[Linear, nn.Linear]:
    torch.manual_seed(0)
    own, plain = Linear(48, 32, bias=bias), nn.Linear(48, 32, bias=bias)
    plain.load_state_dict(own.state_dict())
    return own, plain


@pytest.mark.parametrize("shape", [(5, 48), (3, 7, 48), (1, 48), (0, 48), (48,)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_applied_it_gives_what_a_plain_layer_gives(shape: tuple[int, ...], bias: bool) -> None:
    own, plain = layers(bias)
    x = torch.randn(shape)
    with torch.no_grad():
        assert torch.allclose(own(x), plain(x), rtol=1e-5, atol=1e-6)
        strided = torch.randn(*shape[:-1], 96)[..., ::2]
        assert torch.allclose(own(strided), plain(strided), rtol=1e-5, atol=1e-6)


def test_with_gradients_or_rounding_it_is_a_plain_layer_to_the_bit() -> None:
    own, plain = layers()
    x = torch.randn(5, 48)
    assert torch.equal(own(x), plain(x))
    own(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert own.weight.grad is not None and plain.weight.grad is not None
    assert torch.equal(own.weight.grad, plain.weight.grad)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert own(x).dtype == torch.bfloat16
        assert torch.equal(own(x), plain(x))
    with torch.no_grad():
        assert torch.equal(own.double()(x.double()), plain.double()(x.double()))


def test_its_gradients_are_clipped_as_those_of_a_plain_layer() -> None:
    x, found = torch.randn(6, 48), []
    for layer in layers():
        clipper = RecordClipper(layer, dict(layer.named_parameters()), max_norm=0.5)
        clipper.accumulate(lambda rows, layer=layer: layer(rows).square().mean(1), x)
        found.append(clipper.finish().values)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
