"""The clipped sum against records clipped one by one, against Opacus, and against hostile gradients."""

import warnings
from collections.abc import Callable
from functools import partial
from math import inf, nan
from shutil import which

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.clipping import PRECISIONS, RecordClipper
from dpwavelet.privacy.compiled import compiled as graph_of
from dpwavelet.privacy.layer_gradients import GramGradient, StoredGradient, Use, parameter_gradient

VOCABULARY, WIDTH = 7, 8


class Transformer(nn.Module):
    """Causal attention, one block called twice, both norms, biases here and there."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(16, WIDTH)
        self.before, self.after = nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.qkv, self.mix = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        B, T = tokens.shape
        x = self.token(tokens) + self.position(torch.arange(T).expand(B, T))
        for _ in range(2):
            q, k, v = self.qkv(self.before(x)).chunk(3, -1)
            future = torch.ones(T, T, dtype=torch.bool).triu(1)
            x = x + self.mix((q @ k.mT).masked_fill(future, -inf).softmax(-1) @ v)
        return self.head(self.after(x))


class Perceptron(nn.Module):
    """Features [B, i], [B, T, i] and [B, T, 2, i], with a norm over two dimensions and an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.label, self.unused = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(3, 3)
        self.deep, self.norm = nn.Linear(WIDTH, 2 * WIDTH), nn.LayerNorm((2, WIDTH))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.deep(self.label(tokens)).unflatten(-1, (2, WIDTH))
        x = self.norm(torch.tanh(x))
        return self.head(x).mean(2) + self.head(self.label(tokens[:, 0]))[:, None]


class Shared(nn.Module):
    """One table for tokens, head and positions; two linears and two norms of one weight each."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.position = nn.Embedding(VOCABULARY, WIDTH)
        self.up, self.again = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.head.weight = self.position.weight = self.token.weight
        self.again.weight, self.after.weight = self.up.weight, self.before.weight
        self.head.bias = None

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1]).remainder(VOCABULARY).expand(tokens.shape)
        x = self.token(tokens) + self.position(places)
        x = x + torch.tanh(self.up(self.before(x))).cumsum(1)
        return self.head(self.after(x + self.again(x)))


class LowRank(nn.Module):
    """A frozen linear and a trained pair of rank 2 beside it."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.frozen = nn.Linear(i, o).requires_grad_(False)
        self.down, self.up = nn.Linear(i, 2, bias=False), nn.Linear(2, o, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + self.up(self.down(x))


class Adapted(nn.Module):
    """Everything frozen but low-rank pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, WIDTH).requires_grad_(False)
        self.mix, self.head = LowRank(WIDTH, WIDTH), LowRank(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.token(tokens)).cumsum(1)))


def record_losses(model: nn.Module, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens).transpose(1, 2), tokens.roll(-1, 1), reduction="none").mean(1)


def clip(model: nn.Module, tokens: Tensor, max_norm: float, chunk: int = 1000, **options: object) -> Tensor:
    """The whole clipped sum as one float64 vector."""
    clipper = RecordClipper(model, max_norm=max_norm, **options)
    for part in tokens.split(chunk):
        clipper.accumulate(partial(record_losses, model), part)
    return vector(clipper.finish().values.values())


def vector(values: object) -> Tensor:
    return torch.cat([value.detach().double().flatten() for value in values])


def spread(model: nn.Module) -> dict[str, float]:
    """Weights from 1/16 to 16 for the parameters."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    return {name: 2.0 ** (5 * index % 9 - 4) for index, name in enumerate(names)}


def one_by_one(
    model: nn.Module, tokens: Tensor, max_norm: float, weights: dict[str, float] | None = None
) -> Tensor:
    """The slow reference: each record alone, by autograd."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    own = [(weights or {}).get(name, 1.0) for name in named]
    parameters = list(named.values())
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    for record in tokens:
        found = torch.autograd.grad(
            record_losses(model, record[None]).sum(), parameters, allow_unused=True, materialize_grads=True
        )
        gradient = vector(weight * grad for weight, grad in zip(own, found, strict=True))
        total += gradient * min(1.0, max_norm / float(gradient.norm()))
    return total


def task(kind: type[nn.Module], seed: int, B: int, T: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    return kind(), torch.randint(0, VOCABULARY, (B, T))


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


models = st.sampled_from([Transformer, Perceptron, Shared, Adapted])
few = settings(max_examples=25, deadline=None)


@few
@given(models, st.integers(0, 99), st.integers(1, 5), st.integers(1, 9), st.sampled_from([0.1, 1.0, 100.0]))
def test_the_sum_is_that_of_records_clipped_one_by_one(kind, seed, B, T, max_norm):
    model, tokens = task(kind, seed, B, T)
    model.double()
    margin = 1 + RecordClipper(model, max_norm=1.0).precision.margin
    expected = one_by_one(model, tokens, max_norm / margin)
    assert distance(clip(model, tokens, max_norm), expected) <= 1e-12


@few
@given(models, st.integers(0, 99), st.integers(1, 5), st.integers(1, 9), st.sampled_from([0.1, 100.0]))
def test_single_precision_loses_five_digits_at_most(kind, seed, B, T, max_norm):
    model, tokens = task(kind, seed, B, T)
    sums = clip(model, tokens, max_norm * (1 + RecordClipper(model, max_norm=1.0).precision.margin))
    assert distance(sums, one_by_one(model.double(), tokens, max_norm)) <= 1e-5


@few
@given(models, st.integers(0, 99), st.integers(1, 5), st.integers(1, 9), st.sampled_from([0.1, 1.0, 1e4]))
def test_weights_multiply_gradients_before_they_are_measured(kind, seed, B, T, max_norm):
    model, tokens = task(kind, seed, B, T)
    model.double()
    margin = 1 + RecordClipper(model, max_norm=1.0).precision.margin
    expected = one_by_one(model, tokens, max_norm / margin, spread(model))
    assert distance(clip(model, tokens, max_norm, weights=spread(model)), expected) <= 1e-12


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("kind", [Transformer, Perceptron, Shared, Adapted])
def test_one_record_moves_a_weighted_sum_by_at_most_the_sensitivity_and_nearly_by_it(kind, precision):
    model, tokens = task(kind, 0, B=6, T=7)
    given = {"precision": precision, "weights": spread(model)}
    whole = clip(model, tokens, 1e-2, **given)
    for gone in range(6):
        moved = whole - clip(model, tokens[torch.arange(6) != gone], 1e-2, **given)
        assert 0.9e-2 < moved.norm() <= 1e-2


def test_weighted_sums_pass_the_check_and_compile():
    model, tokens = task(Transformer, 0, B=4, T=5)
    clipper = RecordClipper(model, max_norm=0.5, weights=spread(model))
    losses = partial(record_losses, model)
    clipper.check(losses, tokens)
    clipper.compile(losses, tokens, backend="eager")
    clipper.accumulate(losses, tokens)
    compiled = vector(clipper.finish().values.values())
    assert distance(compiled, clip(model, tokens, 0.5, weights=spread(model))) <= 1e-6


@pytest.mark.parametrize("weight", [0.0, -1.0, 3.0, 0.7, 2.0**-5, 32.0, inf, nan])
def test_a_weight_that_rounds_or_is_out_of_range_is_refused(weight):
    with pytest.raises(ConfigError, match=r"head\.weight must be a power of two from 0\.0625 to 16"):
        RecordClipper(Transformer(), max_norm=1.0, weights={"head.weight": weight})


def test_a_weight_of_what_is_not_trained_is_refused():
    with pytest.raises(ConfigError, match="not trained: heed"):
        RecordClipper(Transformer(), max_norm=1.0, weights={"heed": 2.0})


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_opacus_hooks_find_the_same_sum(max_norm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.grad_sample import GradSampleModule  # the witness that we did not write

        model, tokens = task(Transformer, 3, B=6, T=5)
        wrapped = GradSampleModule(model, loss_reduction="sum")
        record_losses(wrapped, tokens).sum().backward()
        samples = [p.grad_sample for p in model.parameters()]
        samples = [sum(s) if isinstance(s, list) else s for s in samples]
        wrapped.remove_hooks()
    rows = torch.cat([s.flatten(1) for s in samples], 1).double()
    expected = (rows * (max_norm / rows.norm(dim=1, keepdim=True)).clamp(max=1)).sum(0)
    margin = RecordClipper(model, max_norm=1.0).precision.margin
    assert distance(clip(model, tokens, max_norm * (1 + margin)), expected) <= 1e-5


@few
@given(models, st.integers(0, 99), st.integers(1, 7), st.integers(1, 8))
def test_neither_chunks_nor_order_change_the_sum(kind, seed, B, chunk):
    model, tokens = task(kind, seed, B, T=5)
    whole = clip(model, tokens, 0.5)
    assert distance(clip(model, tokens, 0.5, chunk=chunk), whole) <= 1e-6
    assert distance(clip(model, tokens[torch.randperm(B)], 0.5), whole) <= 1e-6


def test_padding_leaves_no_trace():
    model, tokens = task(Transformer, 0, B=6, T=5)
    clipper = RecordClipper(model, max_norm=0.5)
    seen = clipper.accumulate(partial(record_losses, model), tokens, records=4)
    padded = vector(clipper.finish().values.values())
    assert distance(padded, clip(model, tokens[:4], 0.5)) <= 1e-6
    assert seen.norms.shape == seen.losses.shape == (4,)
    with pytest.raises(ConfigError, match="got 7"):
        clipper.accumulate(partial(record_losses, model), tokens, records=7)


def test_diagnostics_are_the_losses_and_norms_of_the_chunk():
    model, tokens = task(Perceptron, 0, B=4, T=3)
    seen = RecordClipper(model.double(), max_norm=0.5).accumulate(partial(record_losses, model), tokens)
    alone = [one_by_one(model, record[None], inf).norm() for record in tokens]
    assert torch.allclose(seen.norms, torch.stack(alone))
    assert torch.equal(seen.losses, record_losses(model, tokens).detach())


@pytest.mark.parametrize("chunks", [0, 1])
def test_an_empty_batch_makes_a_zero_sum_of_the_same_sensitivity(chunks):
    model, tokens = task(Transformer, 0, B=0, T=5)
    clipper = RecordClipper(model.bfloat16(), max_norm=0.5)
    for _ in range(chunks):
        clipper.accumulate(lambda tokens: model(tokens).sum((1, 2)), tokens)
    clipped = clipper.finish()
    assert clipped.sensitivity == 0.5
    for name, p in model.named_parameters():
        assert torch.equal(clipped.values[name], torch.zeros(p.shape, dtype=torch.float64))
        assert not clipped.values[name].requires_grad


def test_each_sum_starts_anew():
    model, tokens = task(Transformer, 0, B=3, T=5)
    clipper = RecordClipper(model, max_norm=0.5)
    sums = []
    for _ in range(2):
        clipper.accumulate(partial(record_losses, model), tokens)
        sums.append(vector(clipper.finish().values.values()))
    assert torch.equal(*sums)


# The guarantee: hostile gradients, through layers whose output gradients we choose.


class Probe(nn.Module):
    """Layers whose per-record output gradients are given: the loss is their output times `push`, added up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.table, self.norm = (
            nn.Linear(width, width),
            nn.Embedding(5, width),
            nn.LayerNorm(width),
        )

    def losses(self, x: Tensor, push: Tensor) -> Tensor:
        ids = torch.arange(x.shape[1]).remainder(5).expand(x.shape[:2])
        return ((self.linear(x) + self.table(ids) + self.norm(x)) * push).sum((1, 2))


HOSTILE: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "ordinary": lambda x, push: (x, push),
    "zero": lambda x, push: (0 * x, 0 * push),
    "infinite": lambda x, push: (x, push.index_fill(2, torch.tensor([0]), inf)),
    "not a number": lambda x, push: (x, push.index_fill(2, torch.tensor([1]), nan)),
    "infinite input": lambda x, push: (x.index_fill(2, torch.tensor([0]), inf), push),
    "input not a number": lambda x, push: (x.index_fill(2, torch.tensor([0]), nan), push),
    "huge": lambda x, push: (x, 1e30 * push),
    "large": lambda x, push: (1e8 * x, 1e8 * push),
    "vanishing input": lambda x, push: (1e-22 * x, 1e17 * push),
    "tiny": lambda x, push: (1e-25 * x, 1e-25 * push),
    "cancelling": lambda x, push: (0 * x + 1e4, 1e4 * (push - push.mean(1, keepdim=True)) + 1e-3),
}


def probe(width: int, x: Tensor, push: Tensor, precision: str) -> Tensor:
    torch.manual_seed(0)
    model = Probe(width)
    clipper = RecordClipper(model, max_norm=1.0, precision=precision)
    if len(x):
        clipper.accumulate(model.losses, x, push)
    clipped = clipper.finish()
    assert clipped.sensitivity == 1.0
    return vector(clipped.values.values())


@settings(max_examples=60, deadline=None)
@given(
    others=st.sampled_from([0, 1, 2, 7, 40]),
    T=st.sampled_from([1, 2, 4, 40]),
    width=st.sampled_from([4, 32]),
    kind=st.sampled_from(list(HOSTILE)),
    crowd=st.sampled_from(list(HOSTILE)),
    precision=st.sampled_from(["exact", "fast"]),
    seed=st.integers(0, 99),
)
def test_one_record_moves_the_sum_by_at_most_the_sensitivity(others, T, width, kind, crowd, precision, seed):
    torch.manual_seed(seed)
    x, push = torch.randn(2, others + 1, T, width).unbind(0)
    hostile, usual = HOSTILE[kind](x[:1], push[:1]), HOSTILE[crowd](x[1:], push[1:])
    joined = torch.cat([hostile[0], usual[0]]), torch.cat([hostile[1], usual[1]])
    moved = probe(width, *joined, precision) - probe(width, *usual, precision)
    assert moved.norm() <= 1.0  # also fails on a sum that is not finite


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("way", ["opposed", "aligned"])
def test_uses_of_a_shared_weight_count_together(way, precision):
    """Where two uses cancel, rounding must not hide what is left; where they agree, norms add up."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"table": nn.Embedding(4, 64), "head": nn.Linear(64, 4, bias=False)})
    model["head"].weight = model["table"].weight
    x, ids = torch.randn(9, 16, 64), torch.randint(4, (9, 16))
    sign = {"opposed": -1.0, "aligned": 1.0}[way]

    def losses(x: Tensor, ids: Tensor) -> Tensor:
        read = (model["table"](ids) * x).sum((1, 2))
        return 1e4 * (read + sign * model["head"](x).gather(2, ids[..., None]).sum((1, 2))) + 0 * read

    sums = []
    for rows in (9, 8):
        clipper = RecordClipper(model, max_norm=1.0, precision=precision)
        clipper.accumulate(losses, x[:rows], ids[:rows])
        sums.append(vector(clipper.finish().values.values()))
    assert (sums[0] - sums[1]).norm() <= 1.0
    if way == "aligned":
        assert (sums[0] - sums[1]).norm() >= 0.9


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("T", [1, 4, 16])
def test_many_near_duplicates_do_not_add_up_to_more(T, precision):
    torch.manual_seed(0)
    x = torch.randn(1, T, 64) + 1e-3 * torch.randn(512, T, 64)
    push = torch.randn(1, T, 64) + 1e-3 * torch.randn(512, T, 64)
    whole = probe(64, x, push, precision)
    assert whole.norm() > 400  # the gradients point one way, so that rounding has much to round
    for left_out in (0, 255, 511):
        keep = torch.arange(512) != left_out
        assert (whole - probe(64, x[keep], push[keep], precision)).norm() <= 1.0


def test_thousands_of_chunks_add_up_without_rounding():
    """In single precision the sum of so many alike records moves by more than the bound when one leaves."""
    linear = nn.Linear(1, 1, bias=False)
    clipper = RecordClipper(linear, max_norm=1.0)
    sums = []
    for chunks in (3000, 3001):
        for _ in range(chunks):
            clipper.accumulate(lambda x: 1e3 * linear(x)[:, 0], torch.ones(1, 1))
        sums.append(clipper.finish().values["weight"])
    assert float(sums[1] - sums[0]) == pytest.approx(1 / (1 + 2**-13), abs=1e-6)


CASES = ["aligned", "cancelling", "nearly cancelling", "underflowing", "outlier"]


def factors_of(case):
    """Inputs and output gradients of 50 records whose Gram matrices are hard to take."""
    torch.manual_seed(0)
    A, G = torch.ones(50, 16, 64), torch.ones(50, 16, 64)
    if case.endswith("cancelling"):
        A, G = A * torch.randn(50, 1, 64), torch.randn(50, 16, 64)
        G = G - G.mean(1, keepdim=True) + (1e-4 if case.startswith("nearly") else 0.0)
    elif case == "underflowing":
        A, G = 1e-25 * A, 1e18 * G
    elif case == "outlier":  # pairs that nearly cancel beside one large feature: long sums lose most digits
        large, small = 28 * (0.3 + torch.rand(50, 1, 1)), 0.7 + 0.3 * torch.rand(50, 1, 1)
        one = torch.cat([large, small.expand(50, 1, 191)], 2)
        other = one * (1 + 2.0**-7 * torch.randn(50, 1, 192).sign())
        A, g = torch.cat([one, other] * 8, 1), torch.randn(50, 1, 64)
        G = torch.cat([g, -g] * 8, 1)
    return A, G


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("case", CASES)
def test_the_gram_form_bounds_what_it_releases(precision, case):
    """Even where rounding grows the product, or where the Gram form sees nothing but rounding."""
    A, G = factors_of(case)
    bounds = GramGradient(A, G, short=False).squared_norms(PRECISIONS[precision].rounding).sqrt()
    scaled = 0.3 * G
    if precision == "fast":  # round by hand what only some processors round
        A, scaled = A.bfloat16().float(), scaled.bfloat16().float()
    for i, bound in enumerate(bounds):
        released = GramGradient(A[i : i + 1], scaled[i : i + 1], short=False).weighted_sum(torch.ones(1))
        assert released.double().norm() <= 0.3 * bound


@pytest.mark.parametrize("turned", [False, True], ids=["as it is", "turned"])
@pytest.mark.parametrize("case", CASES)
def test_the_gram_form_of_short_factors_bounds_what_it_releases(case, turned):
    """Only scaling rounds them: here by hand, as it does where products take bfloat16."""
    A, G = (side.bfloat16().float() for side in factors_of(case)[:: -1 if turned else 1])
    bounds = GramGradient(A, G, short=True).squared_norms(PRECISIONS["fast"].rounding).sqrt()
    for factor in torch.linspace(0.5, 1.0, 97):
        sides = [A[:5], G[:5]]
        narrower = int(A.shape[2] > G.shape[2])
        sides[narrower] = (factor * sides[narrower]).bfloat16().float()
        for a, g, bound in zip(*sides, bounds[:5], strict=True):
            released = GramGradient(a[None], g[None], short=True).weighted_sum(torch.ones(1))
            assert released.double().norm() <= factor * bound


@pytest.mark.parametrize("widths", [(64, 128), (128, 64)], ids=["inputs", "gradients"])
def test_the_weight_of_a_record_goes_to_the_narrower_factor_and_its_rounding_is_measured(widths):
    """What it weighs cancels over positions, but how that rounds does not: all of it goes the same way."""
    torch.manual_seed(0)
    u, factor = 2.0**-8, 0.5 * (1 + 0.45 * 2.0**-7)  # 1.125 of it rounds up, and -1 too: towards zero
    balanced = torch.tensor([1.125] * 8 + [-1.0] * 9)  # its sum is zero
    narrow = torch.stack([balanced[torch.randperm(17)] for _ in range(64)], 1)[None].double()
    wide = torch.ones_like(narrow).repeat(1, 1, 2)  # in double precision, whose own rounding is nothing
    A, G = (narrow, wide) if widths == (64, 128) else (wide, narrow)
    bound = GramGradient(A, G, short=True).squared_norms(u).sqrt()
    rounded = (factor * narrow).bfloat16().double()
    released = (rounded.mT @ wide).norm()
    assert 0.8 * factor * bound < released <= factor * bound
    weights = torch.rand(3)
    A, G = torch.randn(3, 17, widths[0]), torch.randn(3, 17, widths[1])
    weighted = [side * weights[:, None, None] if side.shape[2] == 64 else side for side in (A, G)]
    expected = weighted[1].flatten(0, 1).mT @ weighted[0].flatten(0, 1)
    assert torch.equal(GramGradient(A, G, short=True).weighted_sum(weights), expected)


def test_rounding_of_scaled_short_factors_is_bounded_and_nearly_as_large_as_that():
    """All numbers round up at once; and the bound is not loose where positions differ."""
    A, G, factor = torch.ones(1, 16, 64), torch.ones(1, 16, 128), 0.5 * (1 + 2.0**-8 + 2.0**-16)
    measured, allowed = (GramGradient(A, G, short=True).squared_norms(u).sqrt() for u in (0.0, 2.0**-8))
    scaled = (factor * A).bfloat16().float()
    released = GramGradient(scaled, G, short=True).weighted_sum(torch.ones(1)).norm()
    assert 1.003 * factor * measured < released <= factor * allowed
    torch.manual_seed(0)
    A, G = torch.randn(8, 96, 192).bfloat16().float(), torch.randn(8, 96, 576).bfloat16().float()
    measured, allowed = (GramGradient(A, G, short=True).squared_norms(u).sqrt() for u in (0.0, 2.0**-8))
    assert (allowed < 1.015 * measured).all()


def test_what_no_product_rounds_is_measured_as_short_only_in_sixteen_bits():
    """A layer that computed in bfloat16 hands over short factors; one in float32 must not claim to."""
    torch.manual_seed(0)
    linear = nn.Linear(128, 256)
    x, G = torch.randn(3, 5, 128), torch.randn(3, 5, 256)
    assert not parameter_gradient([Use(linear, "weight", x, G)]).short
    found = parameter_gradient([Use(linear, "weight", x, G.bfloat16())])
    assert found.short
    assert torch.equal(found.A, x.bfloat16().float())
    assert torch.equal(found.G, G.bfloat16().float())


def test_stored_gradients_in_sixteen_bits_add_up_in_single_precision():
    torch.manual_seed(0)
    values, factors = torch.randn(1, 5, 7).bfloat16().repeat(300, 1, 1), torch.full((300,), 0.7)
    stored = StoredGradient(values)
    assert stored.weighted_sum(factors).dtype == stored.squared_norms(0.0).dtype == torch.float32
    whole, without = stored.weighted_sum(factors), StoredGradient(values[1:]).weighted_sum(factors[1:])
    assert torch.allclose(whole - without, 0.7 * values[0].float(), atol=1e-3)
    assert torch.allclose(stored.squared_norms(0.0), values.float().square().sum((1, 2)), rtol=1e-5)


def test_a_graph_measures_and_adds_up_short_gradients_as_is_done_without_one():
    """It is recorded in fewer steps, each of more records at once."""
    torch.manual_seed(0)
    values, factors = torch.randn(19, 5, 1100).bfloat16(), torch.rand(19)

    def both(values: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        stored = StoredGradient(values)
        return stored.squared_norms(2.0**-8), stored.weighted_sum(factors)

    graph = make_fx(both)(values, factors)
    assert not [node for node in graph.graph.nodes if "addcmul" in str(node.target)]
    assert all(
        torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        for ours, theirs in zip(graph(values, factors), both(values, factors), strict=True)
    )


def test_the_gram_form_bounds_what_it_releases_when_scaling_changes_how_factors_round():
    """Products that round to bfloat16 measure one gradient and release another; two halves cancel in one."""
    u, e = 2.0**-8, 2.0**-16
    A = torch.tensor([1 + 3 * u - e, -(1 + u + e)])[None, :, None].expand(1, 2, 4)
    G = torch.ones(1, 2, 4)
    bound = (
        GramGradient(A.bfloat16().float(), G, short=False).squared_norms(PRECISIONS["fast"].rounding).sqrt()
    )
    for factor in torch.linspace(0.5, 1.0, 4001):
        released = GramGradient((factor * A).bfloat16().float(), G, short=False).weighted_sum(torch.ones(1))
        assert released.norm() <= factor * bound


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_a_record_well_inside_the_bound_is_not_clipped(precision):
    model, tokens = task(Transformer, 0, B=4, T=5)
    expected = one_by_one(model, tokens, inf)
    assert (
        distance(clip(model, tokens, 1e4, precision=precision), expected)
        <= {"exact": 1e-5, "fast": 0.02}[precision]
    )


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_clipping_wastes_little_of_the_bound(precision):
    model, tokens = task(Transformer, 0, B=1, T=5)
    norm = float(clip(model, tokens, 0.01, precision=precision).norm())
    assert {"exact": 0.999, "fast": 0.95}[precision] <= norm / 0.01 <= 1.0


def test_a_record_that_is_not_finite_counts_as_zero():
    model, tokens = task(Transformer, 0, B=5, T=5)
    with torch.no_grad():
        model.token.weight[6] = inf
    good = tokens.clamp(max=5)
    bad = good.clone()
    bad[1, 2] = 6
    assert distance(clip(model, bad, 0.5), clip(model, good[[0, 2, 3, 4]], 0.5)) <= 1e-6


def test_a_loss_that_is_not_finite_counts_as_zero_even_when_its_gradient_is():
    model, tokens = task(Transformer, 0, B=3, T=5)
    clipper = RecordClipper(model, max_norm=0.5)
    tokens[1, 0], tokens[[0, 2], 0] = 1, 2

    def losses(tokens: Tensor) -> Tensor:
        return record_losses(model, tokens) + torch.where(tokens[:, 0] == 1, inf, 0.0)

    clipper.accumulate(losses, tokens)
    found = vector(clipper.finish().values.values())
    assert distance(found, clip(model, tokens[[0, 2]], 0.5)) <= 1e-6


def test_an_infinite_gradient_of_a_finite_loss_counts_as_zero():
    linear = nn.Linear(2, 1, bias=False)
    clipper = RecordClipper(nn.ModuleDict({"inner": linear}), max_norm=0.5)
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])

    def slopes(x: Tensor) -> Tensor:
        return linear(x)[:, 0].abs().sqrt()

    clipper.accumulate(slopes, x)  # the first record's slope is infinite
    both = vector(clipper.finish().values.values())
    clipper.accumulate(slopes, x[1:])
    assert torch.equal(both, vector(clipper.finish().values.values()))


@pytest.mark.parametrize("T", [1, 64])  # without writing gradients out, and with
def test_sums_are_not_rounded_to_what_the_model_computes_in(T):
    torch.manual_seed(0)
    linear = nn.Linear(64, 64, bias=False)
    x = torch.randn(1, T, 64) + 1e-3 * torch.randn(512, T, 64)

    def losses(part: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return 1e3 * linear(part).float().sum((1, 2))

    sums = []
    for rows in (512, 511):
        clipper = RecordClipper(linear, max_norm=1.0)
        clipper.accumulate(losses, x[:rows])
        sums.append(clipper.finish().values["weight"])
    assert 0.999 <= (sums[0] - sums[1]).norm() <= 1.0


@few
@given(st.integers(0, 99), st.integers(1, 6), st.integers(2, 6))
def test_both_forms_of_a_linear_gradient_agree(seed, B, T):
    torch.manual_seed(seed)
    A, G, factors = torch.randn(B, T, 5).double(), torch.randn(B, T, 3).double(), torch.rand(B).double()
    gram, stored = GramGradient(A, G, short=False), StoredGradient(G.mT @ A)
    assert torch.allclose(gram.squared_norms(0.0), stored.squared_norms(0.0), rtol=1e-9, atol=1e-12)
    assert torch.allclose(gram.weighted_sum(factors), stored.weighted_sum(factors))


# What is trained, and what is refused.


@few
@given(st.sets(st.sampled_from(sorted(n for n, _ in Transformer().named_parameters())), min_size=1))
def test_only_chosen_parameters_count(chosen):
    model, tokens = task(Transformer, 0, B=3, T=4)
    for name, p in model.named_parameters():
        p.requires_grad_(name in chosen)
    expected = one_by_one(model.double(), tokens, 0.1 / (1 + 2**-13))
    assert distance(clip(model, tokens, 0.1), expected) <= 1e-12
    picked = {name: p for name, p in model.named_parameters() if name in chosen}
    clipper = RecordClipper(model.requires_grad_(True), picked, max_norm=0.1)
    clipper.accumulate(partial(record_losses, model), tokens)
    values = clipper.finish().values
    assert list(values) == list(picked)
    assert distance(vector(values.values()), expected) <= 1e-12


class Raw(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


class TiedToRaw(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.raw = nn.Linear(3, 3), nn.Module()
        self.raw.weight = self.linear.weight


class OwnLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.Conv2d(3, 3, 3), "Conv2d"),
        (nn.Bilinear(3, 3, 3), "Bilinear"),
        (nn.GroupNorm(1, 3), "GroupNorm"),
        (nn.LSTM(3, 3), "LSTM"),
        (nn.PReLU(), "PReLU"),
        (nn.MultiheadAttention(4, 2), "MultiheadAttention"),
        (nn.EmbeddingBag(3, 3), "EmbeddingBag"),
        (OwnLinear(3, 3), "OwnLinear"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), "Parametrized"),
        (nn.Embedding(3, 3, padding_idx=0), "padding_idx"),
        (nn.Embedding(3, 3, max_norm=1.0), "max_norm"),
        (nn.Embedding(3, 3, sparse=True), "sparse"),
        (nn.Embedding(3, 3, scale_grad_by_freq=True), "scale_grad_by_freq"),
        (Raw(), "Raw"),
        (TiedToRaw(), "inner.raw (Module)"),
    ],
)
def test_what_cannot_be_clipped_exactly_is_refused_by_name(layer, named):
    with pytest.raises(ConfigError, match="inner") as refusal:
        RecordClipper(nn.ModuleDict({"inner": layer}), max_norm=1.0)
    assert named in str(refusal.value)
    layer.requires_grad_(False)
    RecordClipper(nn.ModuleDict({"inner": layer}), max_norm=1.0)  # frozen, it may stay


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.BatchNorm2d(3, affine=False)])
def test_batch_statistics_are_refused_even_when_frozen(layer):
    with pytest.raises(PrivacyError, match="inner"):
        RecordClipper(nn.ModuleDict({"inner": layer.requires_grad_(False)}), max_norm=1.0)


def test_a_parameter_of_another_model_is_refused():
    with pytest.raises(ConfigError, match="stranger"):
        RecordClipper(Transformer(), {"stranger": nn.Linear(2, 2).weight}, max_norm=1.0)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, inf, nan, 1e-22, 1e22])
def test_a_bound_that_bounds_nothing_is_refused(max_norm):
    with pytest.raises(ConfigError, match="max_norm"):
        RecordClipper(Transformer(), max_norm=max_norm)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="half"):
        RecordClipper(Transformer(), max_norm=1.0, precision="half")


@pytest.mark.parametrize("shape", [(), (4, 1)])
def test_losses_that_are_not_one_for_each_record_are_refused(shape):
    model, tokens = task(Transformer, 0, B=4, T=5)
    with pytest.raises(ConfigError, match="one float for each record"):
        RecordClipper(model, max_norm=1.0).accumulate(
            lambda tokens: (
                record_losses(model, tokens).sum()
                if shape == ()
                else record_losses(model, tokens).view(shape)
            ),
            tokens,
        )


class SharedPositions(nn.Module):
    """Feeds the position table ids [T] and lets broadcasting give them to every record."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, VOCABULARY), nn.Embedding(16, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.token(tokens) + self.position(torch.arange(tokens.shape[1]))


@pytest.mark.parametrize(("T", "error"), [(5, ConfigError), (4, PrivacyError)])
def test_positions_shared_by_all_records_are_refused_even_when_as_many_as_records(T, error):
    model, tokens = task(SharedPositions, 0, B=4, T=T)
    with pytest.raises(error, match="position"):
        RecordClipper(model, max_norm=1.0).accumulate(partial(record_losses, model), tokens)


def mean_of_batch(model: nn.Module, tokens: Tensor) -> Tensor:
    return record_losses(model, tokens).mean().expand(len(tokens))


def odd_compared_with_even(model: nn.Module, tokens: Tensor) -> Tensor:
    losses = record_losses(model, tokens)
    return losses - losses.roll(1) * torch.arange(len(losses)).remainder(2)


@pytest.mark.parametrize("losses", [mean_of_batch, odd_compared_with_even])
def test_losses_that_mix_records_are_refused(losses):
    model, tokens = task(Transformer, 0, B=4, T=5)
    with pytest.raises(PrivacyError, match="other records"):
        RecordClipper(model, max_norm=1.0).accumulate(partial(losses, model), tokens)


def statistics_of_the_input(layer: nn.Module, x: Tensor) -> Tensor:
    return layer((x - x.mean(0)) / x.std(0))[:, 0]


def records_two_apart(layer: nn.Module, x: Tensor) -> Tensor:
    return (layer(x) * layer(x).roll(2, 0))[:, 0]


@pytest.mark.parametrize("losses", [statistics_of_the_input, records_two_apart])
def test_the_check_finds_mixing_that_gradients_do_not_show(losses):
    layer = nn.Linear(4, 1)
    with pytest.raises(PrivacyError, match="other records"):
        RecordClipper(layer, max_norm=1.0).check(partial(losses, layer), torch.randn(6, 4))


@pytest.mark.parametrize(
    "frozen",
    [
        nn.Embedding(5, 3, max_norm=1e-3),
        nn.Sequential(nn.Embedding(5, 3), nn.InstanceNorm1d(2, track_running_stats=True)),
    ],
)
def test_a_model_that_remembers_what_it_saw_is_refused(frozen):
    model = nn.Sequential(frozen.requires_grad_(False), nn.Linear(3, 1))
    ids = torch.tensor([[0, 1], [2, 3]])
    for run in (RecordClipper(model, max_norm=1.0).check, RecordClipper(model, max_norm=1.0).accumulate):
        with pytest.raises(PrivacyError, match="weights or buffers"):
            run(lambda ids: model(ids).sum((1, 2)), ids)


def test_autocast_around_the_clipper_is_refused():
    model, tokens = task(Transformer, 0, B=4, T=5)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ConfigError, match="autocast"):
        RecordClipper(model, max_norm=1.0).accumulate(partial(record_losses, model), tokens)


def test_layers_that_draw_at_random_are_refused_unless_they_rest():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    with pytest.raises(PrivacyError, match="Dropout"):
        RecordClipper(model, max_norm=1.0)
    RecordClipper(model.eval(), max_norm=1.0)


def test_records_that_are_not_finite_are_not_taken_for_mixed():
    model, tokens = task(Transformer, 0, B=4, T=5)
    with torch.no_grad():
        model.token.weight.fill_(nan)
    assert torch.equal(
        clip(model, tokens, 1.0), torch.zeros(sum(p.numel() for p in model.parameters())).double()
    )


def test_an_input_changed_in_place_is_refused():
    linear = nn.Linear(3, 3)

    def losses(x: Tensor) -> Tensor:
        y = linear(x)
        x += 1
        return y.sum(1)

    with pytest.raises(ConfigError, match="in place"):
        RecordClipper(nn.ModuleDict({"inner": linear}), max_norm=1.0).accumulate(losses, torch.ones(2, 3))


def test_an_output_changed_in_place_is_followed():
    layers = nn.Sequential(
        nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)
    )
    RecordClipper(layers, max_norm=1.0).check(lambda x: layers(x).square().sum(1), torch.ones(2, 3))


# The start-up check.


@pytest.mark.parametrize("kind", [Transformer, Perceptron, Shared, Adapted])
def test_the_check_passes_where_every_use_is_seen(kind):
    model, tokens = task(kind, 0, B=4, T=5)
    RecordClipper(model, max_norm=1e-3).check(
        lambda tokens: F.dropout(record_losses(model, tokens), 0.5), tokens
    )


class FunctionalHead(nn.Module):
    """Uses the embedding's table as a head without calling the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.table(tokens).cumsum(1), self.table.weight)


class ForwardOnly(Transformer):
    """Goes round the hooks of its head."""

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head.forward(self.token(tokens))


@pytest.mark.parametrize(("kind", "named"), [(FunctionalHead, "table.weight"), (ForwardOnly, "head.weight")])
def test_the_check_finds_uses_outside_the_layer(kind, named):
    model, tokens = task(kind, 0, B=4, T=5)
    with pytest.raises(ConfigError, match=named):
        RecordClipper(model, max_norm=1.0).check(partial(record_losses, model), tokens)


class SlightlyFunctionalHead(FunctionalHead):
    """Its second use of the table is too small to be seen beside what weighs 256 times as much."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        return self.head(x) + 2e-3 * F.linear(x, self.table.weight)


def test_the_check_sees_a_light_parameter_as_well_as_a_heavy_one():
    model, tokens = task(SlightlyFunctionalHead, 0, B=4, T=5)
    weights = {"table.weight": 2.0**-4, "head.weight": 2.0**4}
    for chosen in ({}, weights):
        with pytest.raises(ConfigError, match=r"table\.weight"):
            RecordClipper(model, max_norm=1.0, weights=chosen).check(partial(record_losses, model), tokens)


def test_the_check_leaves_sums_and_random_numbers_alone():
    model, tokens = task(Transformer, 0, B=4, T=5)
    clipper = RecordClipper(model, max_norm=1.0)
    before = torch.get_rng_state()
    clipper.check(partial(record_losses, model), tokens)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(value.any() for value in clipper.finish().values.values())


def test_rows_that_cancel_round_away_nothing_of_what_others_put_there():
    """The last record adds and takes away a million times the bound in a row that the others share."""
    model, width = nn.Embedding(4, 8), 8
    clipper = RecordClipper(model, max_norm=1.0)
    ids, push = torch.ones(3, 2, dtype=torch.int64), torch.zeros(3, 2, width)
    push[2, 0], push[2, 1] = 1e6, -1e6

    def losses(ids: Tensor, push: Tensor) -> Tensor:
        return (model(ids) * push).sum((1, 2))

    def total(first: float, second: float) -> Tensor:
        push[0, 0], push[1, 0] = first, second
        clipper.accumulate(losses, ids, push)
        return clipper.finish().values["weight"]

    offsets = [0.03 * step / 200 for step in range(200)]
    moved = [float((total(first, 10.0) - total(first, 0.0)).norm()) for first in offsets]
    assert 0.99 < max(moved) <= 1 + 1e-5


@pytest.mark.parametrize("shape", [(2, 65536), (2, 65536, 2)])
def test_many_small_numbers_beside_a_large_one_are_all_measured(shape):
    values = torch.full(shape, 2.0**-12.6)
    values[:, 0] = 1.0
    measured = StoredGradient(values).squared_norms(0.0)
    assert torch.allclose(measured.double(), values.double().square().flatten(1).sum(1), rtol=3e-5)


# The compiled form. Its graph is the same for every backend; one test pays for real kernels.


def compiled(model: nn.Module, tokens: Tensor, backend: str = "aot_eager") -> RecordClipper:
    clipper = RecordClipper(model, max_norm=0.5)
    clipper.compile(LOSSES[model], torch.zeros_like(tokens), backend=backend)
    return clipper


class LossesOf(dict):
    def __missing__(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        self[model] = partial(record_losses, model)
        return self[model]


LOSSES = LossesOf()


@pytest.mark.parametrize(
    ("kind", "backend"),
    [(Adapted, "inductor"), *((kind, "aot_eager") for kind in (Transformer, Perceptron, Shared))],
)
def test_the_compiled_sum_is_the_same_for_new_weights_and_records(kind, backend):
    if backend == "inductor" and not which("g++"):
        pytest.skip("real kernels need a C++ compiler, and g++ is not here")
    model, tokens = task(kind, 0, B=6, T=5)
    clipper = compiled(model, tokens, backend)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    seen = clipper.accumulate(LOSSES[model], tokens, records=4)
    assert distance(vector(clipper.finish().values.values()), clip(model, tokens[:4], 0.5)) <= 1e-5
    alone = [one_by_one(model, record[None], inf).norm() for record in tokens[:4]]
    assert torch.allclose(seen.norms.double(), torch.stack(alone), rtol=1e-4)


@pytest.mark.skipif(not which("g++"), reason="real kernels need a C++ compiler, and g++ is not here")
def test_factors_of_a_compiled_graph_are_what_bfloat16_holds():
    """Bounds of short factors rest on it: left unrounded, they would be rounded once here and once there."""
    torch.manual_seed(0)
    layer, inputs, outputs = nn.Linear(64, 128), torch.randn(4, 8, 64), torch.randn(4, 8, 128)

    def factors(inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        changed = F.layer_norm(inputs, (64,)), (1.5 * outputs).to(torch.bfloat16)  # as under autocast
        product = parameter_gradient([Use(layer, "weight", *changed)])
        assert isinstance(product, GramGradient)
        assert product.short
        return product.A.float() * 1.0, product.G.float() * 1.0  # wide, as they are measured and added up

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's compiler uses what torch has deprecated
        run = graph_of(nn.Identity(), factors, inputs, outputs, backend="inductor")
        found = run(inputs, outputs)
    for factor in found:
        assert torch.equal(factor, factor.bfloat16().float())


def test_a_chunk_that_was_added_in_part_is_never_added_again_nor_handed_over():
    model, tokens = task(Perceptron, 0, B=4, T=5)
    clipper = RecordClipper(model, max_norm=0.5)
    clipper.accumulate(LOSSES[model], tokens)

    class Full(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            if name == last:
                raise MemoryError
            return super().__getitem__(name)

    last = next(iter(clipper._sums))
    clipper._sums = Full(clipper._sums)
    with pytest.raises(MemoryError):
        clipper.accumulate(LOSSES[model], tokens)
    for again in (lambda: clipper.accumulate(LOSSES[model], tokens), clipper.finish):
        with pytest.raises(PrivacyError, match="in part"):
            again()


def test_compiled_records_that_are_not_finite_count_as_zero():
    model, tokens = task(Transformer, 0, B=5, T=5)
    clipper = compiled(model, tokens)
    with torch.no_grad():
        model.token.weight[6] = inf
    good = tokens.clamp(max=5)
    bad = good.clone()
    bad[1, 2] = 6
    clipper.accumulate(LOSSES[model], bad)
    assert distance(vector(clipper.finish().values.values()), clip(model, good[[0, 2, 3, 4]], 0.5)) <= 1e-6
    clipper.accumulate(LOSSES[model], torch.full_like(bad, 6))
    assert not vector(clipper.finish().values.values()).any()


def test_a_compiled_clipper_runs_nothing_else():
    """Compiled and not, sums round differently, and records must not decide which of them runs."""
    model, tokens = task(Perceptron, 0, B=4, T=5)
    clipper = compiled(model, tokens)
    with pytest.raises(ConfigError, match="compiled for"):
        clipper.accumulate(LOSSES[model], tokens[:3])
    with pytest.raises(ConfigError, match="compiled for"):
        clipper.accumulate(partial(record_losses, model), tokens)


@pytest.mark.parametrize("losses", [mean_of_batch, odd_compared_with_even])
def test_losses_that_mix_records_are_not_compiled(losses):
    model, tokens = task(Transformer, 0, B=4, T=5)
    with pytest.raises(PrivacyError, match="other records"):
        RecordClipper(model, max_norm=1.0).compile(partial(losses, model), tokens)
    with pytest.raises(ConfigError, match="two records"):
        RecordClipper(model, max_norm=1.0).compile(partial(losses, model), tokens[:1])


def test_a_graph_that_adds_up_to_something_else_is_refused():
    model, tokens = task(Transformer, 0, B=4, T=5)
    calls = []

    def losses(part: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            calls.append(part)
        return record_losses(model, part) * len(calls)

    with pytest.raises(ConfigError, match="without compilation"):
        RecordClipper(model, max_norm=1.0).compile(losses, tokens, backend="aot_eager")


# Nothing stays behind.


def traces(model: nn.Module) -> tuple[object, ...]:
    hooks = sum(len(layer._forward_hooks) for layer in model.modules())
    return hooks, [p.requires_grad for p in model.parameters()], torch.get_float32_matmul_precision()


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("outside", ["highest", "high", "medium"])
@pytest.mark.parametrize("fails", [False, True])
def test_hooks_flags_and_precision_are_as_before(precision, outside, fails):
    model, tokens = task(Transformer, 0, B=4, T=5)
    model.head.requires_grad_(False)
    clipper = RecordClipper(model, max_norm=1.0, precision=precision)
    inside = []

    def losses(tokens: Tensor) -> Tensor:
        values = record_losses(model, tokens)
        inside.append(torch.get_float32_matmul_precision())
        return values / 0 if not fails else values[None]

    torch.set_float32_matmul_precision(outside)
    try:
        before = traces(model)
        for run in (clipper.accumulate, clipper.check):
            try:
                run(losses, tokens)
            except ConfigError:
                assert fails or run == clipper.check
        assert traces(model) == before
    finally:
        torch.set_float32_matmul_precision("highest")
    assert inside[0] == {"exact": "highest", "fast": "medium"}[precision]


def test_a_failed_chunk_leaves_the_sum_as_it_was():
    model, tokens = task(Transformer, 0, B=4, T=5)
    clipper = RecordClipper(model, max_norm=1.0)
    clipper.accumulate(partial(record_losses, model), tokens)
    with pytest.raises(ZeroDivisionError):
        clipper.accumulate(lambda tokens: record_losses(model, tokens) / (1 // 0), tokens)
    assert torch.equal(vector(clipper.finish().values.values()), clip(model, tokens, 1.0))
