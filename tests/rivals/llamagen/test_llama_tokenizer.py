"""The convolutional tokenizer: shapes, codes of length one, what it learns from, and the published size."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.rivals.llamagen.rival import PRESETS
from dpwavelet.rivals.llamagen.tokenizer import AT_ONCE, COMMITMENT, VQConfig, VQTokenizer, entropy

SMALL = VQConfig(
    image_size=16, channels=8, multipliers=(1, 2), depth=1, groups=4, latent=8, codes=24, code_width=4
)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def tokenizer() -> VQTokenizer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VQTokenizer(SMALL)


def test_pictures_become_a_raster_of_codes_and_codes_a_picture(tokenizer: VQTokenizer) -> None:
    ids = tokenizer.encode(normals(3, 3, 16, 16))
    assert ids.shape == (3, 64)
    assert int(ids.min()) >= 0 and int(ids.max()) < SMALL.codes
    image = tokenizer.decode(ids)
    assert image.shape == (3, 3, 16, 16)
    assert float(image.abs().max()) <= 1


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_halves_its_side_to_a_raster(name: str) -> None:
    config = PRESETS[name].tokenizer
    assert config.tokens == ((64,) if name == "tiny" else (256,))
    assert config.image_size == config.side * config.downsampling


def test_the_largest_preset_has_the_72_million_numbers_of_the_published_network() -> None:
    with torch.device("meta"):
        network = VQTokenizer(PRESETS["paper"].tokenizer)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(72e6, rel=0.01)


def test_the_code_of_a_place_is_the_nearest_on_the_sphere(tokenizer: VQTokenizer) -> None:
    images = normals(2, 3, 16, 16)
    vectors = F.normalize(tokenizer.quant_conv(tokenizer.encoder(images)), dim=1)  # [B, D, h, h]
    codes = F.normalize(tokenizer.quantize.embedding.weight, dim=1)
    apart = (vectors[:, None] - codes[None, :, :, None, None]).square().sum(2)  # [B, K, h, h]
    assert torch.equal(tokenizer.encode(images), apart.argmin(1).flatten(1))


def test_the_length_of_a_code_says_nothing(tokenizer: VQTokenizer) -> None:
    images = normals(2, 3, 16, 16)
    ids, image = tokenizer.encode(images), tokenizer(images).image
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.mul_(torch.rand(SMALL.codes, 1) * 5 + 0.1)
    assert torch.equal(tokenizer.encode(images), ids)
    assert torch.allclose(tokenizer(images).image, image, atol=1e-5)


def test_tokens_of_a_picture_are_the_same_whoever_stands_beside_it(tokenizer: VQTokenizer) -> None:
    images = normals(AT_ONCE + 5, 3, 16, 16)
    together = tokenizer.encode(images)
    for row in (0, AT_ONCE - 1, AT_ONCE + 4):
        assert torch.equal(tokenizer.encode(images[row : row + 1])[0], together[row])


def test_gradients_pass_the_choice_of_codes_as_if_it_were_not_there(tokenizer: VQTokenizer) -> None:
    images = normals(1, 3, 16, 16)
    seen: list[Tensor] = []

    def note(_: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
        given[0].retain_grad()
        seen.append(given[0])

    tokenizer.post_quant_conv.register_forward_pre_hook(note)
    made = tokenizer(images)
    made.image.square().sum().backward()
    found = tokenizer.quant_conv.weight.grad
    vectors = F.normalize(tokenizer.quant_conv(tokenizer.encoder(images)), dim=1)
    (wanted,) = torch.autograd.grad((vectors * seen[0].grad).sum(), [tokenizer.quant_conv.weight])
    assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-5)
    assert (
        tokenizer.quantize.embedding.weight.grad is None or not tokenizer.quantize.embedding.weight.grad.any()
    )


def test_quantization_pulls_codes_to_vectors_and_a_quarter_as_hard_the_other_way(
    tokenizer: VQTokenizer,
) -> None:
    images = normals(2, 3, 16, 16)
    tokenizer.requires_grad_(False)
    found = float(tokenizer(images).quantization)
    vectors = F.normalize(tokenizer.quant_conv(tokenizer.encoder(images)).flatten(2).mT, dim=-1)
    codes = F.normalize(tokenizer.quantize.embedding.weight, dim=1)[tokenizer.encode(images)]
    assert found == pytest.approx((1 + COMMITMENT) * float((vectors - codes).square().mean()), rel=1e-5)


class TestEntropy:
    """Low where each choice is sure and all together are even."""

    def test_sure_and_even_choices_have_the_least(self) -> None:
        even = 2 * torch.eye(8) - 1  # cosines 1 and -1
        assert float(entropy(even)) == pytest.approx(-math.log(8), abs=1e-3)

    def test_one_code_for_all_has_none_left(self) -> None:
        assert float(entropy((2 * torch.eye(8) - 1)[:1].repeat(8, 1))) == pytest.approx(0, abs=1e-3)

    def test_unsure_choices_have_as_much_as_their_mean(self) -> None:
        assert float(entropy(torch.zeros(8, 8))) == pytest.approx(0, abs=1e-5)

    def test_it_counts_in_the_loss(self, tokenizer: VQTokenizer) -> None:
        images, plain = normals(2, 3, 16, 16), tokenizer
        with torch.random.fork_rng():
            torch.manual_seed(0)
            weighted = VQTokenizer(VQConfig(**vars(SMALL) | {"entropy_weight": 0.5}))
        vectors = F.normalize(plain.quant_conv(plain.encoder(images)).flatten(2).mT, dim=-1)
        likeness = vectors.flatten(0, 1) @ plain.quantize.table.T
        more = weighted(images).quantization - plain(images).quantization
        assert float(more.detach()) == pytest.approx(0.5 * float(entropy(likeness).detach()), rel=1e-4)


def test_codes_start_as_vectors_of_pictures(tokenizer: VQTokenizer) -> None:
    images = normals(2, 3, 16, 16)
    tokenizer.start(images, torch.Generator().manual_seed(0))
    vectors = F.normalize(tokenizer.quant_conv(tokenizer.encoder(images)).flatten(2).mT, dim=-1).flatten(0, 1)
    table = tokenizer.quantize.embedding.weight
    assert float((table @ vectors.T).max(1).values.min().detach()) > 1 - 1e-5
    assert len(torch.unique(table.detach(), dim=0)) == SMALL.codes


def test_it_learns_a_handful_of_drawn_pictures(portraits: Path) -> None:
    images = from_bytes(PublicImages.open(portraits, 16).pixels(range(8)))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        tokenizer = VQTokenizer(SMALL)
    tokenizer.start(images, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=3e-3)
    errors = []
    for _ in range(80):
        made = tokenizer(images)
        errors.append(float(F.l1_loss(made.image.detach(), images)))
        optimizer.zero_grad()
        (F.l1_loss(made.image, images) + made.quantization).backward()
        optimizer.step()
    grey = float((images - images.mean((0, 2, 3), keepdim=True)).abs().mean())
    again = float(F.l1_loss(tokenizer.decode(tokenizer.encode(images)), images))
    assert again < 0.6 * grey  # a picture is more than its mean colour
    assert again < 0.4 * errors[0]
    assert made.used > 0.3


@pytest.mark.parametrize(
    ("wrong", "said"), [({"image_size": 17}, "must divide by 2"), ({"groups": 3}, "3 groups")]
)
def test_shapes_that_do_not_fit_are_refused(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        VQConfig(**vars(SMALL) | wrong)
