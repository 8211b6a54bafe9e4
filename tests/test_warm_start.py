"""The warm start: what one record can do to its sum, and that the model follows from the noisy sum alone."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm
from torch import Tensor

from dpwavelet import warm_start
from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.accounting import Gaussian
from dpwavelet.privacy.bounded_sums import NAME
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source
from dpwavelet.records import CAPTION_CHOICES, PrivateTokens
from dpwavelet.training import held_out_loss
from dpwavelet.transformer import ImageTransformer, TransformerConfig
from dpwavelet.warm_start import Moving, begin_from, bound_of, directions, fit_tilt, release, shrunk, surprise

CODES = torch.randn(16, 5, generator=torch.Generator().manual_seed(7)) * torch.tensor([9.0, 3, 1, 0.3, 0.1])
CELLS = 16
NUMBERS = CELLS * 5
MOVING = Moving(sequences=24, steps=20, batch_size=12, learning_rate=5e-3)


def model(scale: float = 1.0) -> ImageTransformer:
    """A small one; a large scale makes it sure of what it expects."""
    config = TransformerConfig(
        words=40, codes=16, tokens=(CELLS, 4), caption_length=8, width=16, depth=1, heads=2
    )
    found = ImageTransformer(config)
    found.initialize(torch.Generator().manual_seed(0))
    for head in found.code_heads:
        head.weight.data.mul_(scale)
    return found


PLAIN, SURE = model(), model(300.0)


def drawn(count: int, seed: int) -> PrivateTokens:
    random = np.random.default_rng(seed)
    image = random.integers(16, size=(count, CELLS)).astype(np.int16)
    captions = random.integers(2, 40, size=(count, CAPTION_CHOICES, 8)).astype(np.int16)
    captions[:, :, 0], captions[:, :, 5:] = 1, 0
    return PrivateTokens(image, captions, (CELLS,))


def of(records: PrivateTokens, *which: int) -> PrivateTokens:
    chosen = list(which)
    owners = None if records.owners is None else records.owners[chosen]
    return replace(records, image=records.image[chosen], captions=records.captions[chosen], owners=owners)


def total(records: PrivateTokens, transformer: ImageTransformer = SURE) -> np.ndarray:
    return surprise(transformer, CODES, records).values[NAME].numpy()


def planned(noise: float = 1.0, records: int = 1000, count: int = 1) -> PrivacyPlan:
    others = (Gaussian(2.0, 1), Gaussian(noise, count))
    return PrivacyPlan(
        epsilon=50.0, delta=1e-4, records=records, batch_size=50, steps=2, max_norm=1.0, others=others
    )


BOUND = bound_of(SURE, CODES)


class TestSensitivity:
    @given(count=st.integers(0, 4), seed=st.integers(0, 10**6), same=st.booleans(), sure=st.booleans())
    def test_one_record_moves_the_sum_by_at_most_the_bound(self, count, seed, same, sure):
        records = drawn(count + 1, seed)
        if same:  # everybody is like the one that comes or goes
            records = of(records, *[0] * (count + 1))
        transformer = SURE if sure else PLAIN
        moved = total(records, transformer) - total(of(records, *range(count)), transformer)
        assert np.linalg.norm(moved) <= BOUND

    def test_without_the_bound_it_would_be_moved_further(self):
        """The twin of the test above: a sure model is surprised by more than the bound."""
        points, blocks = directions(CODES), warm_start._blocks(SURE)
        lengths = [
            np.linalg.norm(warm_start._surprise_of(SURE, points, blocks, drawn(20, 3), record))
            for record in range(20)
        ]
        assert min(lengths) > BOUND

    def test_one_person_with_all_records_moves_the_sum_by_at_most_the_bound(self):
        records = drawn(30, 1).owned_by(["a", "b", *["c"] * 28])
        moved = total(records) - total(of(records, 0, 1))
        assert np.linalg.norm(moved) <= BOUND
        alone = replace(records, owners=None)
        assert np.linalg.norm(total(alone) - total(of(alone, 0, 1))) > BOUND  # 28 units move it further

    def test_a_record_adds_the_same_bits_whoever_else_is_there(self):
        records = drawn(40, 2)
        each = [total(of(records, record)) for record in range(40)]
        assert np.array_equal(total(records), np.sum(each, axis=0))
        assert len({one.tobytes() for one in each}) == 40

    def test_no_records_have_no_surprise_and_what_is_not_finite_counts_as_zero(self):
        assert not total(of(drawn(1, 0))).any()
        broken = model()
        broken.final_norm.weight.data.fill_(math.inf)
        assert not total(drawn(5, 0), broken).any()

    def test_only_the_first_caption_and_the_coarse_scale_are_read(self):
        records = drawn(6, 4)
        more = replace(
            records,
            image=np.concatenate([records.image, drawn(6, 5).image[:, :4]], 1),
            captions=np.concatenate([records.captions[:, :1], drawn(6, 6).captions[:, 1:]], 1),
            scales=(CELLS, 4),
        )
        assert np.array_equal(total(records), total(more))


class TestRelease:
    def test_the_noise_has_the_size_that_was_paid_for(self):
        """Of 4,000 numbers; a false alarm in a hundred, were the seeds not fixed."""
        found = self.noises(planned(3.0))
        assert kstest(found, norm(scale=3.0 * BOUND).cdf).pvalue > 0.01

    @pytest.mark.parametrize("wrong", [0.9, 1.1])
    def test_the_test_above_would_notice_a_tenth(self, wrong):
        found = self.noises(planned(3.0))
        assert kstest(found, norm(scale=wrong * 3.0 * BOUND).cdf).pvalue < 0.01

    def noises(self, plan: PrivacyPlan) -> np.ndarray:
        exact = surprise(SURE, CODES, drawn(5, 1))
        found = [
            release(exact, replace(plan), Source.for_test(seed), bound=BOUND, other=1) - exact.values[NAME]
            for seed in range(50)
        ]
        return torch.stack(found).flatten().numpy()

    def test_the_noise_is_shared_with_no_other_sum_of_the_plan(self):
        plan = replace(planned(), others=(Gaussian(1.0, 1), Gaussian(1.0, 1)))
        zero = ClippedSum({NAME: torch.zeros(NUMBERS, dtype=torch.float64)}, BOUND)
        metrics, ours = (
            release(zero, plan, Source.for_test(0), bound=BOUND, other=other) for other in (0, 1)
        )
        assert abs(np.corrcoef(metrics, ours)[0, 1]) < 0.4  # 3.5 standard errors

    def test_a_plan_makes_it_once_and_for_its_own_bound_alone(self):
        plan, exact = planned(), surprise(SURE, CODES, drawn(3, 1))
        release(exact, plan, Source.for_test(0), bound=BOUND, other=1)
        with pytest.raises(PrivacyError, match="made already"):
            release(exact, plan, Source.for_test(0), bound=BOUND, other=1)
        with pytest.raises(PrivacyError, match="sensitivity"):
            release(exact, planned(), Source.for_test(0), bound=BOUND / 2, other=1)


class TestBeginning:
    """Post-processing: whatever follows from the noisy sum."""

    def test_it_follows_from_the_noisy_sum_to_the_last_bit(self):
        noisy = torch.randn(NUMBERS, dtype=torch.float64) * 500
        first, again = (begun(noisy) for _ in range(2))
        assert weights(first) == weights(again) != weights(begun(-noisy))

    def test_the_declared_number_of_records_divides_it(self):
        noisy = torch.randn(NUMBERS, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 500
        twice = planned(2 * 0.01, records=2000)
        assert weights(begun(noisy)) == weights(begun(2 * noisy, twice))

    def test_it_leaves_the_public_model_and_its_words_and_details_alone(self):
        before = weights(PLAIN)
        found = begun(torch.full((NUMBERS,), 500.0, dtype=torch.float64))
        assert weights(PLAIN) == before
        changed = {name for name, value in found.state_dict().items() if not value.equal(before_of(name))}
        assert changed
        assert not [name for name in changed if name.startswith(("word_", "code_heads.1"))]
        assert [p.requires_grad for p in found.parameters()] == [p.requires_grad for p in PLAIN.parameters()]

    def test_what_the_noise_hides_leaves_the_model_as_it_is(self):
        noisy = torch.ones(NUMBERS, dtype=torch.float64)
        assert weights(begun(noisy, planned(1.0))) == weights(PLAIN)

    def test_records_are_less_of_a_surprise_to_it(self):
        records = replace(drawn(1000, 8), image=(drawn(1000, 8).image // 4).astype(np.int16))
        plan = planned(0.3)
        noisy = release(surprise(PLAIN, CODES, records), plan, Source.for_test(0), bound=BOUND, other=1)
        before, after = (held_out_loss(each, records) for each in (PLAIN, begun(noisy, plan)))
        assert before == pytest.approx(math.log(16), abs=0.05)  # it has learnt nothing
        assert after < before - 0.3

    def test_a_start_without_steps_is_refused(self):
        with pytest.raises(ConfigError, match="warm start"):
            Moving(steps=0)


class TestParts:
    def test_points_have_variance_one_in_every_direction(self):
        points = directions(CODES)
        assert torch.allclose(points.T @ points / 16, torch.eye(5), atol=1e-4)
        assert directions(torch.randn(64, 40)).shape == (64, 16)

    def test_codes_that_all_agree_have_finite_points(self):
        assert directions(torch.ones(16, 5)).isfinite().all()
        assert directions(torch.randn(16, 1).expand(16, 5)).isfinite().all()

    def test_blocks_are_orthonormal_and_cover_every_cell(self):
        large = ImageTransformer(replace(PLAIN.config, tokens=(256,)))
        blocks = warm_start._blocks(large)
        assert blocks.shape == (64, 256)
        assert torch.allclose(blocks @ blocks.T, torch.eye(64))
        assert blocks.count_nonzero(0).eq(1).all()
        square = blocks[9].reshape(16, 16).nonzero()  # second row, second column
        assert square.min(0).values.tolist() == [2, 2] and square.max(0).values.tolist() == [3, 3]
        assert torch.equal(warm_start._blocks(PLAIN), torch.eye(CELLS))

    def test_shrinking_takes_off_what_noise_adds(self):
        assert torch.equal(shrunk(torch.ones(4), 0.0), torch.ones(4))
        assert torch.equal(shrunk(torch.ones(4), 0.5), torch.full((4,), 0.75))
        assert not shrunk(torch.ones(4), 1.0).any()
        assert not shrunk(torch.zeros(4), 0.0).any()

    def test_a_tilt_has_the_mean_that_was_asked_for_but_for_its_prior(self):
        """Where the derivative of the likelihood is that of the prior, with no derivative taken here."""
        points = directions(CODES)
        plain = torch.randn(6, CELLS, 16, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
        mean = 0.5 * torch.randn(CELLS, 5, generator=torch.Generator().manual_seed(2))
        tilt = fit_tilt(plain, points, torch.eye(CELLS), mean, 400)
        moved = ((plain + tilt @ points.T).softmax(-1) - plain.exp()) @ points
        assert torch.allclose(moved.mean(0), mean - warm_start.RIDGE * tilt, atol=0.01)

    def test_drawn_captions_begin_end_and_some_are_empty(self):
        captions = warm_start.draw_captions(PLAIN, MOVING)
        assert captions.shape == (24, 8)
        assert (captions[:, 0] == 1).all()
        assert not captions[: 24 // warm_start.WITHOUT_CAPTION, 1:].any()
        for row in captions[:, 1:]:
            length = int(row.count_nonzero())
            assert not row[length:].any() and not (row == 1).any()
        assert captions[8:, 1:].any()


def begun(noisy: Tensor, plan: PrivacyPlan | None = None) -> ImageTransformer:
    return begin_from(noisy, plan or planned(0.01), 1, PLAIN, CODES, MOVING)


def weights(transformer: ImageTransformer) -> str:
    """One digest of all of them."""
    values = [value.numpy().tobytes() for value in transformer.state_dict().values()]
    return hashlib.sha256(b"".join(values)).hexdigest()


def before_of(name: str) -> Tensor:
    return PLAIN.state_dict()[name]
