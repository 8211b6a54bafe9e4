"""What one private gradient costs against the same gradient without privacy.

    python benchmarks/dp_step.py [--quick | --compiled | --whole] [--threads 1] [--memory]

All variants take turns in one process, so that a busy machine slows them alike; believe the ratios of
medians, not the milliseconds. A step is forward, backward and the (clipped) sum over records; noise and the
optimizer cost the same everywhere and are left out. Each DP step is compared with the plain step of the same
matrix precision. `--whole` times whole steps instead, noise and optimizer included.
"""

import argparse
import copy
import gc
import json
import platform
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from dpwavelet.memory import keep_freed_memory
from dpwavelet.privacy.clipping import RecordClipper
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.subsampling import poisson_batch
from dpwavelet.randomness import Source

SIZES = {(16, 64): 8, (64, 64): 5, (256, 32): 3}  # (tokens T, records B): rounds
VOCABULARY, WIDTH, LAYERS, HEADS = 1024, 256, 6, 4
MAX_NORM = 1.0

Step = Callable[[Tensor], list[Tensor]]  # tokens [B, T + 1] to one gradient for each parameter


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.mix = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, d = x.shape
        q, k, v = self.qkv(self.before_attention(x)).view(B, T, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
        scores = (q @ k.mT) * (d // HEADS) ** -0.5
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, float("-inf")).softmax(-1) @ v
        x = x + self.mix(mixed.transpose(1, 2).reshape(B, T, d))
        changed: Tensor = x + self.down(F.gelu(self.up(self.before_mlp(x))))
        return changed


class Transformer(nn.Module):
    """GPT-like, 5.2 M parameters, with explicit attention."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(positions, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1]).expand(tokens.shape).contiguous()
        logits: Tensor = self.head(self.norm(self.blocks(self.token(tokens) + self.position(places))))
        return logits


def record_losses(model: nn.Module, tokens: Tensor) -> Tensor:
    logits = model(tokens[:, :-1].contiguous())  # Opacus views its ids
    return (
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        .view(len(tokens), -1)
        .mean(1)
    )


def losses_of(model: nn.Module, half: bool) -> Callable[[Tensor], Tensor]:
    def losses(tokens: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return record_losses(model, tokens)

    return losses


@contextmanager
def products(precision: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def plain(model: nn.Module, precision: str, half: bool = False) -> Step:
    parameters, losses = list(model.parameters()), losses_of(model, half)

    def step(tokens: Tensor) -> list[Tensor]:
        with products(precision):
            return list(torch.autograd.grad(losses(tokens).sum(), parameters))

    return step


def plain_compiled(model: nn.Module, precision: str, half: bool = False) -> Step:
    weights = {name: p.detach() for name, p in model.named_parameters()}
    losses = losses_of(model, half)

    class Losses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: Tensor) -> Tensor:
            return losses(tokens).sum()

    whole = Losses()

    def total(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
        named = {f"model.{name}": p for name, p in weights.items()}
        found: Tensor = functional_call(whole, named, (tokens,))
        return found

    run = torch.compile(grad(total), fullgraph=True)

    def step(tokens: Tensor) -> list[Tensor]:
        with products(precision):
            return list(run(weights, tokens).values())

    return step


def ours(
    model: nn.Module,
    precision: Literal["exact", "fast"],
    half: bool = False,
    compiled: tuple[int, int] | None = None,
) -> Step:
    clipper, losses = RecordClipper(model, max_norm=MAX_NORM, precision=precision), losses_of(model, half)
    if compiled:
        clipper.compile(losses, torch.zeros(compiled, dtype=torch.int64))

    def step(tokens: Tensor) -> list[Tensor]:
        clipper.accumulate(losses, tokens)
        return list(clipper.finish().values.values())

    return step


def opacus_hooks(model: nn.Module) -> Step:
    from opacus.grad_sample import GradSampleModule

    wrapped = GradSampleModule(copy.deepcopy(model), loss_reduction="sum")

    def step(tokens: Tensor) -> list[Tensor]:
        wrapped.zero_grad(set_to_none=True)
        record_losses(wrapped, tokens).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
        samples = [p.grad_sample for p in wrapped.parameters()]
        factors = clip_factors(torch.stack([s.flatten(1).norm(dim=1) for s in samples], 1).norm(dim=1))
        sums = [torch.einsum("b,b...->...", factors, s) for s in samples]
        for p in wrapped.parameters():
            p.grad_sample = None
        return sums

    return step


def opacus_ghost(model: nn.Module) -> Step:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    wrapped = GradSampleModuleFastGradientClipping(
        copy.deepcopy(model), max_grad_norm=MAX_NORM, use_ghost_clipping=True, loss_reduction="sum"
    )

    def step(tokens: Tensor) -> list[Tensor]:
        wrapped.zero_grad(set_to_none=True)
        wrapped.enable_hooks()
        losses = record_losses(wrapped, tokens)
        losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]  # torch's own
        factors = wrapped.get_clipping_coef().detach()
        wrapped.zero_grad(set_to_none=True)
        wrapped.disable_hooks()
        (factors * losses).sum().backward()
        return [p.grad for p in wrapped.parameters()]

    return step


def per_sample_vmap(model: nn.Module, precision: str = "highest", half: bool = False) -> Step:
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights: dict[str, Tensor], record: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = functional_call(model, weights, (record[None, :-1],))
            return F.cross_entropy(logits[0].float(), record[1:])

    samples_of = vmap(grad(loss), in_dims=(None, 0))

    def step(tokens: Tensor) -> list[Tensor]:
        with products(precision):
            samples = list(samples_of(parameters, tokens).values())
            factors = clip_factors(torch.stack([s.flatten(1).norm(dim=1) for s in samples], 1).norm(dim=1))
            return [torch.einsum("b,b...->...", factors, s) for s in samples]

    return step


def clip_factors(norms: Tensor) -> Tensor:
    return (MAX_NORM / norms).clamp(max=1.0)


# name: (maker from the model and the shape of its tokens, what it is compared with)
VARIANTS: dict[str, tuple[Callable[[nn.Module, tuple[int, int]], Step], str]] = {
    "plain, float32": (lambda model, _: plain(model, "highest"), "plain, float32"),
    "plain, medium": (lambda model, _: plain(model, "medium"), "plain, medium"),
    "ours, exact": (lambda model, _: ours(model, "exact"), "plain, float32"),
    "ours, fast": (lambda model, _: ours(model, "fast"), "plain, medium"),
    "Opacus hooks": (lambda model, _: opacus_hooks(model), "plain, float32"),
    "Opacus ghost": (lambda model, _: opacus_ghost(model), "plain, float32"),
    "vmap(grad)": (lambda model, _: per_sample_vmap(model), "plain, float32"),
    "vmap(grad), medium": (lambda model, _: per_sample_vmap(model, "medium"), "plain, medium"),
}
COMPILED: dict[str, tuple[Callable[[nn.Module, tuple[int, int]], Step], str]] = {
    "plain, compiled": (lambda model, _: plain_compiled(model, "highest"), "plain, compiled"),
    "ours, compiled": (lambda model, shape: ours(model, "exact", compiled=shape), "plain, compiled"),
    "plain, bfloat16": (lambda model, _: plain(model, "medium", True), "plain, bfloat16"),
    "vmap(grad), bfloat16": (lambda model, _: per_sample_vmap(model, "medium", True), "plain, bfloat16"),
    "ours, bfloat16": (lambda model, _: ours(model, "fast", True), "plain, bfloat16"),
    "plain, bfloat16 compiled": (
        lambda model, _: plain_compiled(model, "medium", True),
        "plain, bfloat16 compiled",
    ),
    "ours, bfloat16 compiled": (
        lambda model, shape: ours(model, "fast", True, compiled=shape),
        "plain, bfloat16 compiled",
    ),
}


def task(T: int, B: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Transformer(T), torch.randint(0, VOCABULARY, (B, T + 1))


def times(T: int, B: int, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each variant; every round runs all of them once."""
    model, tokens = task(T, B)
    steps = {name: (VARIANTS | COMPILED)[name][0](model, (B, T + 1)) for name in names}
    for step in steps.values():
        step(tokens)
    gc.collect()
    measured: dict[str, list[float]] = {name: [] for name in names}
    # Processor time of one thread leaves out waiting for others; several threads wait for each other.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(rounds):
        for name, step in steps.items():
            start = clock()
            step(tokens)
            measured[name].append(1000 * (clock() - start))
    return measured


def table(T: int, B: int, measured: dict[str, list[float]]) -> list[dict[str, Any]]:
    rows = []
    for name, values in measured.items():
        base = (VARIANTS | COMPILED)[name][1]
        q1, _, q3 = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        ratio = median(values) / median(measured[base]) if base in measured else float("nan")
        rows.append(
            {
                "T": T,
                "B": B,
                "variant": name,
                "ms": round(median(values), 1),
                "q1": round(q1, 1),
                "q3": round(q3, 1),
            }
            | {"over_plain": round(ratio, 3), "plain": base}
        )
    return rows


def update(optimizer: torch.optim.Optimizer, gradients: Iterable[Tensor]) -> None:
    for p, gradient in zip(optimizer.param_groups[0]["params"], gradients, strict=True):
        p.grad = gradient
    optimizer.step()


def whole_steps(rounds: int) -> None:
    """Milliseconds of a step of 512 records in chunks of 64, fused Adam on both sides, ours with noise."""
    print("| T | plain | private | over plain | noise and batch |\n|---|---|---|---|---|")
    for T in (16, 64):
        model, _ = task(T, 1)
        tokens = torch.randint(0, VOCABULARY, (512, T + 1))
        plan = PrivacyPlan(
            epsilon=8, delta=1e-6, records=60_000, batch_size=512, steps=1000, max_norm=MAX_NORM
        )
        plan.noise_multiplier  # noqa: B018 (calibrated once and kept, as in a run)
        source, parameters = Source(), dict(model.named_parameters())
        sums, clipper = plain(model, "highest"), RecordClipper(model, max_norm=MAX_NORM)
        losses = losses_of(model, half=False)
        optimizers = [torch.optim.Adam(parameters.values(), lr=0.0, fused=True) for _ in range(2)]
        spent: dict[str, list[float]] = {"plain": [], "private": [], "noise": []}

        for step in range(rounds + 1):
            start = time.process_time()
            chunks = [sums(chunk) for chunk in torch.split(tokens, 64)]
            update(optimizers[0], [torch.stack(each).sum(0) / 512 for each in zip(*chunks, strict=True)])
            spent["plain"].append(time.process_time() - start)
            start = time.process_time()
            poisson_batch(source, step, plan.records, plan.sampling_rate)
            drawn = time.process_time() - start
            for chunk in torch.split(tokens, 64):
                clipper.accumulate(losses, chunk)
            clipped, before = clipper.finish(), time.process_time()
            noisy = plan.privatize(clipped, source, step)
            spent["noise"].append(drawn + time.process_time() - before)
            update(optimizers[1], noisy.values())
            spent["private"].append(time.process_time() - start)
        plain_ms, ours_ms, noise_ms = (1000 * median(values[1:]) for values in spent.values())
        print(
            f"| {T} | {plain_ms:.0f} | {ours_ms:.0f} | {ours_ms / plain_ms:.2f} | "
            f"{noise_ms:.0f} ({noise_ms / ours_ms:.1%} of the step) |",
            flush=True,
        )


def peak_megabytes(T: int, B: int, name: str) -> float:
    """Memory that one step adds to a built model, in a process of its own."""
    command = [sys.executable, __file__, "--peak-of", name, "--size", str(T), str(B)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(T: int, B: int, name: str) -> None:
    """Linux only. What getrusage calls the peak would begin at that of the parent process."""
    model, tokens = task(T, B)
    step = (VARIANTS | COMPILED)[name][0](model, (B, T + 1))
    step(tokens[:2])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held
    before = peak_kilobytes()
    step(tokens)
    print((peak_kilobytes() - before) / 1024)


def peak_kilobytes() -> int:
    (found,) = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two rounds, without Opacus and vmap")
    parser.add_argument("--rounds", type=int, help="rounds at every size")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS | COMPILED, help="only these")
    parser.add_argument(
        "--compiled", action="store_true", help="compiled and bfloat16 variants; compiling takes minutes"
    )
    parser.add_argument(
        "--whole", action="store_true", help="whole steps of 512 records, noise and Adam included"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--memory", action="store_true", help="also peak memory, one process for each variant"
    )
    parser.add_argument("--size", type=int, nargs=2, metavar=("T", "B"), help="only this size")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="opacus|torch.nn.modules.module")
    torch.set_num_threads(options.threads)
    if options.peak_of:
        T, B = options.size
        return print_peak(T, B, options.peak_of)
    keep_freed_memory()
    sizes = {(options.size[0], options.size[1]): 5} if options.size else SIZES
    if options.whole:
        return whole_steps(options.rounds or 3)
    names = (
        options.variants
        or list(COMPILED if options.compiled else ())
        or [n for n in VARIANTS if not options.quick or n.startswith(("plain", "ours"))]
    )
    print(f"torch {torch.__version__}, {options.threads} thread(s), {platform.machine()}\n")
    print(
        "| T | B | variant | ms, median | quartiles | over plain |" + (" peak MB |" if options.memory else "")
    )
    print("|---|---|---|---|---|---|" + ("---|" if options.memory else ""))
    rows = []
    for (T, B), rounds in sizes.items():
        measured = times(T, B, names, options.rounds or (2 if options.quick else rounds))
        for row in table(T, B, measured):
            line = "| {T} | {B} | {variant} | {ms:.0f} | {q1:.0f} to {q3:.0f} | {over_plain:.2f} |".format(
                **row
            )
            if options.memory:
                row["peak_mb"] = round(peak_megabytes(T, B, str(row["variant"])))
                line += f" {row['peak_mb']} |"
            rows.append(row)
            print(line, flush=True)
    print("\n" + json.dumps({"torch": torch.__version__, "threads": options.threads, "rows": rows}))
    return None


if __name__ == "__main__":
    main()
