"""Per-record gradients with several draws of a record: against autograd, one record at a time."""

from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.randomness import Source
from dpwavelet.rivals.diffusion import training
from dpwavelet.rivals.diffusion.gradients import DrawClipper
from dpwavelet.rivals.diffusion.networks import LatentDiffusion
from dpwavelet.rivals.diffusion.records import LatentRecords
from dpwavelet.rivals.diffusion.training import Finetuning, record_losses, trained_parameters

SETTINGS = Finetuning(draws=3, mixed_precision=False)


def own(diffusion: LatentDiffusion) -> LatentDiffusion:
    return diffusion.with_denoiser(deepcopy(diffusion.denoiser))


def rows(
    diffusion: LatentDiffusion, records: LatentRecords, chosen: list[int], settings: Finetuning = SETTINGS
) -> tuple[Tensor, ...]:
    source = Source.for_test(1)
    return training._rows(diffusion, records, settings, source, 0, np.array(chosen))


def gradients_one_by_one(
    diffusion: LatentDiffusion, parameters: dict[str, nn.Parameter], chunk: tuple[Tensor, ...]
) -> list[Tensor]:
    """The gradient of each record's mean loss as one vector: one forward a draw, noise by the formula."""
    betas = torch.linspace(0.0015**0.5, 0.0155**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0).float()
    found = []
    for p in parameters.values():
        p.requires_grad_(True)
    for latents, captions, times, noise in zip(*chunk, strict=True):
        losses = [
            F.mse_loss(
                diffusion.denoiser(
                    (kept[t].sqrt() * latents + (1 - kept[t]).sqrt() * eps)[None], t[None], captions[None]
                )[0],
                kept[t].sqrt() * eps - (1 - kept[t]).sqrt() * latents,
            )
            for t, eps in zip(times, noise, strict=True)
        ]
        mean = torch.stack(losses).mean()
        each = torch.autograd.grad(mean, list(parameters.values()))
        found.append(torch.cat([one.flatten() for one in each]))
    for p in parameters.values():
        p.requires_grad_(False)
    return found


def vector(values: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in values.values()])


class TestGradients:
    """What is clipped is the gradient of a record's own mean loss."""

    @pytest.mark.parametrize("draws", [1, 3])
    @pytest.mark.parametrize("chosen", ["modules", "attention"])
    def test_the_clipped_sum_is_that_of_gradients_taken_one_record_at_a_time(
        self, diffusion: LatentDiffusion, records: LatentRecords, draws: int, chosen: Any
    ) -> None:
        settings = Finetuning(draws=draws, trained=chosen, mixed_precision=False)
        mine = own(diffusion)
        parameters = trained_parameters(mine.denoiser, settings)
        chunk = rows(mine, records, [0, 7, 20, 33], settings)
        expected = gradients_one_by_one(mine, parameters, chunk)
        norms = torch.stack([each.norm() for each in expected])
        bound = float(norms.sort().values[1:3].mean())  # two are shorter, two are longer
        clipper = DrawClipper(mine.denoiser, parameters, max_norm=bound)
        found = clipper.accumulate(partial(record_losses, mine, settings), *chunk)
        assert torch.allclose(found.norms, norms, rtol=1e-4)
        total = sum(g * min(1.0, bound / float(g.norm())) for g in expected)
        assert float((vector(clipper.finish().values) - total).norm()) < 2e-4 * float(total.norm())

    def test_one_record_moves_the_sum_by_at_most_the_clipping_norm(
        self, diffusion: LatentDiffusion, records: LatentRecords
    ) -> None:
        mine, bound = own(diffusion), 1e-3
        parameters = trained_parameters(mine.denoiser, SETTINGS)

        def total(chosen: list[int]) -> Tensor:
            clipper = DrawClipper(mine.denoiser, parameters, max_norm=bound)
            for chunk, count in training.chunks(np.array(chosen), 4):
                losses = partial(record_losses, mine, SETTINGS)
                clipper.accumulate(losses, *rows(mine, records, chunk.tolist()), records=count)
            return vector(clipper.finish().values)

        everyone = total(list(range(7)))
        for gone in (0, 3, 6):
            moved = float((everyone - total([i for i in range(7) if i != gone])).norm())
            assert 0.9 * bound < moved <= bound * (1 + 1e-4)

    @pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e30])
    def test_a_record_that_is_not_finite_counts_as_zero(
        self, diffusion: LatentDiffusion, records: LatentRecords, wrong: float
    ) -> None:
        mine = own(diffusion)
        parameters = trained_parameters(mine.denoiser, SETTINGS)
        chunk = rows(mine, records, [1, 2, 3])
        clipper = DrawClipper(mine.denoiser, parameters, max_norm=1.0)
        losses = partial(record_losses, mine, SETTINGS)
        clipper.accumulate(losses, *(each[[0, 2]] for each in chunk))
        expected = vector(clipper.finish().values)
        chunk[0][1] = wrong
        clipper.accumulate(losses, *chunk)
        assert torch.allclose(vector(clipper.finish().values), expected, atol=1e-5)

    def test_bfloat16_computes_but_sums_stay_wide_and_bounded(
        self, diffusion: LatentDiffusion, records: LatentRecords, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dpwavelet.precision.multiplies_bfloat16", lambda kind: True)
        mine = own(diffusion)
        parameters = trained_parameters(mine.denoiser, SETTINGS)
        clipper = DrawClipper(mine.denoiser, parameters, max_norm=1e-3, precision="fast")
        mixed = Finetuning(draws=3, mixed_precision=True)
        clipper.accumulate(partial(record_losses, mine, mixed), *rows(mine, records, [5]))
        clipped = clipper.finish()
        assert {value.dtype for value in clipped.values.values()} == {torch.float64}
        assert 0.9e-3 < float(vector(clipped.values).norm()) <= 1e-3


class TestCheck:
    """What is refused before a record is read."""

    def test_it_agrees_with_what_is_right(self, diffusion: LatentDiffusion) -> None:
        mine = own(diffusion)
        clipper = DrawClipper(mine.denoiser, trained_parameters(mine.denoiser, SETTINGS), max_norm=1.0)
        clipper.check(partial(record_losses, mine, SETTINGS), *training._made_up(mine, 3))
        assert not any(hasattr(p, "grad_sample") or p.grad is not None for p in mine.denoiser.parameters())

    def test_losses_that_mix_the_rows_of_records_are_refused(self, diffusion: LatentDiffusion) -> None:
        mine = own(diffusion)
        clipper = DrawClipper(mine.denoiser, trained_parameters(mine.denoiser, SETTINGS), max_norm=1.0)

        def mixed(latents: Tensor, captions: Tensor, times: Tensor, noise: Tensor) -> Tensor:
            """The rows stand by record, but are added up as if they stood by draw."""
            noisy, wanted = mine.noised(
                latents[:, None].expand_as(noise).flatten(0, 1), noise.flatten(0, 1), times.flatten()
            )
            errors = (mine.denoiser(noisy, times.flatten(), captions) - wanted).square().flatten(1).mean(1)
            return errors.reshape(times.shape[::-1]).mean(0)

        with pytest.raises(PrivacyError, match="depends on other records"):
            clipper.check(mixed, *training._made_up(mine, 3))

    def test_a_gradient_that_is_another_records_is_found(
        self, diffusion: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = own(diffusion)
        clipper = DrawClipper(mine.denoiser, trained_parameters(mine.denoiser, SETTINGS), max_norm=1.0)
        original = DrawClipper._gradients

        def turned(*args: Any) -> Any:  # their sum is still right
            values, found = original(*args)
            for gradient in found.values():
                gradient.values.copy_(gradient.values.roll(1, 0))
            return values, found

        monkeypatch.setattr(DrawClipper, "_gradients", turned)
        with pytest.raises(ConfigError, match="for record 0 is off"):
            clipper.check(partial(record_losses, mine, SETTINGS), *training._made_up(mine, 3))

    def test_positions_that_records_share_are_refused(self) -> None:
        class Shared(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.places = nn.Embedding(3, 2)

            def forward(self, x: Tensor) -> Tensor:
                return (x + self.places(torch.arange(3)[:1])).square().mean(1)

        model = Shared()
        clipper = DrawClipper(model, dict(model.named_parameters()), max_norm=1.0)
        with pytest.raises(ConfigError, match="the first dimension must be the record"):
            clipper.accumulate(model, torch.ones(2, 2))

    def test_without_opacus_the_error_says_what_to_install(
        self, diffusion: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "opacus", None)
        with pytest.raises(ConfigError, match=r"pip install \"dpwavelet\[bench\]\""):
            DrawClipper(own(diffusion).denoiser, {}, max_norm=1.0)


def test_a_forward_that_writes_to_a_buffer_is_refused() -> None:
    """Running statistics of a frozen norm would keep what they saw, and be saved with the weights."""
    norm = nn.InstanceNorm1d(4, track_running_stats=True)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(24, 2)).requires_grad_(False)
    clipper = DrawClipper(model, {"2.weight": model[2].weight}, max_norm=1.0)
    with pytest.raises(PrivacyError, match="weights or buffers"):
        clipper.accumulate(lambda x: model(x).square().mean(1), torch.randn(5, 4, 6))
