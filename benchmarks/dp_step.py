"""What one private gradient costs against the same gradient without privacy.

    python benchmarks/dp_step.py [--quick] [--threads 1] [--memory]

All variants take turns in one process, so that a busy machine slows them alike; believe the ratios of
medians, not the milliseconds. A step is forward, backward and the (clipped) sum over records; noise and the
optimizer are the same for everybody and left out. Each DP step is compared with the plain step of the same
matrix precision.
"""

import argparse
import copy
import ctypes
import gc
import json
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median, quantiles

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from dpwavelet.privacy.clipping import RecordClipper

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
        return x + self.down(F.gelu(self.up(self.before_mlp(x))))


class Transformer(nn.Module):
    """GPT-like, 5.2 M parameters, with explicit attention."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(positions, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1]).expand(tokens.shape).contiguous()
        return self.head(self.norm(self.blocks(self.token(tokens) + self.position(places))))


def record_losses(model: nn.Module, tokens: Tensor) -> Tensor:
    logits = model(tokens[:, :-1].contiguous())  # Opacus views its ids
    return (
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        .view(len(tokens), -1)
        .mean(1)
    )


def plain(model: nn.Module, precision: str) -> Step:
    parameters = list(model.parameters())

    def step(tokens: Tensor) -> list[Tensor]:
        torch.set_float32_matmul_precision(precision)
        try:
            return list(torch.autograd.grad(record_losses(model, tokens).sum(), parameters))
        finally:
            torch.set_float32_matmul_precision("highest")

    return step


def ours(model: nn.Module, precision: str) -> Step:
    clipper = RecordClipper(model, max_norm=MAX_NORM, precision=precision)

    def step(tokens: Tensor) -> list[Tensor]:
        clipper.accumulate(lambda: record_losses(model, tokens))
        return list(clipper.finish().values.values())

    return step


def opacus_hooks(model: nn.Module) -> Step:
    from opacus.grad_sample import GradSampleModule

    wrapped = GradSampleModule(copy.deepcopy(model), loss_reduction="sum")

    def step(tokens: Tensor) -> list[Tensor]:
        wrapped.zero_grad(set_to_none=True)
        record_losses(wrapped, tokens).sum().backward()
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
        losses.sum().backward(retain_graph=True)
        factors = wrapped.get_clipping_coef().detach()
        wrapped.zero_grad(set_to_none=True)
        wrapped.disable_hooks()
        (factors * losses).sum().backward()
        return [p.grad for p in wrapped.parameters()]

    return step


def per_sample_vmap(model: nn.Module) -> Step:
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights: dict[str, Tensor], record: Tensor) -> Tensor:
        logits = functional_call(model, weights, (record[None, :-1],))
        return F.cross_entropy(logits[0], record[1:])

    samples_of = vmap(grad(loss), in_dims=(None, 0))

    def step(tokens: Tensor) -> list[Tensor]:
        samples = list(samples_of(parameters, tokens).values())
        factors = clip_factors(torch.stack([s.flatten(1).norm(dim=1) for s in samples], 1).norm(dim=1))
        return [torch.einsum("b,b...->...", factors, s) for s in samples]

    return step


def clip_factors(norms: Tensor) -> Tensor:
    return (MAX_NORM / norms).clamp(max=1.0)


VARIANTS: dict[str, tuple[Callable[[nn.Module], Step], str]] = {  # name: (maker, what it is compared with)
    "plain, float32": (lambda model: plain(model, "highest"), "plain, float32"),
    "plain, medium": (lambda model: plain(model, "medium"), "plain, medium"),
    "ours, exact": (lambda model: ours(model, "exact"), "plain, float32"),
    "ours, fast": (lambda model: ours(model, "fast"), "plain, medium"),
    "Opacus hooks": (opacus_hooks, "plain, float32"),
    "Opacus ghost": (opacus_ghost, "plain, float32"),
    "vmap(grad)": (per_sample_vmap, "plain, float32"),
}


def task(T: int, B: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Transformer(T), torch.randint(0, VOCABULARY, (B, T + 1))


def times(T: int, B: int, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each variant; every round runs all of them once."""
    model, tokens = task(T, B)
    steps = {name: VARIANTS[name][0](model) for name in names}
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


def table(T: int, B: int, measured: dict[str, list[float]]) -> list[dict[str, object]]:
    rows = []
    for name, values in measured.items():
        base = VARIANTS[name][1]
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


def peak_megabytes(T: int, B: int, name: str) -> float:
    """Memory that one step adds to a built model, in a process of its own."""
    command = [sys.executable, __file__, "--peak-of", name, "--size", str(T), str(B)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(T: int, B: int, name: str) -> None:
    model, tokens = task(T, B)
    step = VARIANTS[name][0](model)
    step(tokens[:2])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(tokens)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def keep_freed_memory() -> None:
    """Stop glibc from handing big blocks back to the system between steps: page faults cost up to a third."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two rounds, without Opacus and vmap")
    parser.add_argument("--rounds", type=int, help="rounds at every size")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="only these")
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
        return print_peak(*options.size, options.peak_of)
    keep_freed_memory()
    sizes = {tuple(options.size): 5} if options.size else SIZES
    names = options.variants or [n for n in VARIANTS if not options.quick or n.startswith(("plain", "ours"))]
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
