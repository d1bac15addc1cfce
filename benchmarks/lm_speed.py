"""Speed of training language models, against a plain loop.

For Transformer++ the plain loop is that of a small GPT code base: its own model (rotary scaled_dot_product_attention, SwiGLU,
RMSNorm, untied head) of the same widths and depth, batches of random positions in the same tokens, AdamW, clipping. For the
others it is the same loop around this project's model, which shows the overhead of the trainer. Both take steps in turns with
a float32 product of large matrices, in one process on one thread. Tokens a second are by CPU time, since a wall clock measures
other programs too; ratios are medians over neighbouring turns. The fraction of GEMM is three forward passes by this project's
accounting, relative to that product.

    python benchmarks/lm_speed.py
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import _results
from archlab.corpora import Corpus, prepare
from archlab.scaling.flops import training_flops
from archlab.scaling.objective import make_lm_optimizer, make_objective
from archlab.scaling.planner import all_sizes, matched_sizes, up_to
from archlab.scaling.processes import Processes
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.training_plan import Size
from archlab.training.context import flushed_denormals

LENGTH, RECIPE = 128, LMRecipe()
GEMM_FLOPS = 2 * 1024**3
SPECS = {"transformer++": "mh-attention swiglu", "striped-hyena": "striped-hyena", "mamba": "mamba"}
Step = Callable[[int], None]


def our_step(size: Size, corpus: Corpus, batch: int) -> Step:
    """A step of the trainer: batch, forward, backward, clipping, update."""
    alone = Processes(torch.device("cpu"))
    shape = {"vocab_size": corpus.vocab_size, "length": LENGTH, "dim": size.dim}
    objective = make_objective(size.architecture, **shape, seed=0, recipe=RECIPE, processes=alone)
    optimizer = make_lm_optimizer(objective, RECIPE)

    def step(number: int) -> None:
        rows = torch.from_numpy(corpus.batch(number, batch, LENGTH, 0))
        for piece, weight in alone.shares(rows, RECIPE.micro_batch):
            (objective(piece) * weight).backward()
        nn.utils.clip_grad_norm_(objective.parameters(), RECIPE.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * RECIPE.rate(number + 1, 1000)
        optimizer.step()
        optimizer.zero_grad()

    return step


def plain_step(model: nn.Module, corpus: Corpus, batch: int) -> Step:
    """A step as a plain loop has it."""
    data = torch.from_numpy(corpus.tokens("train").astype("int64"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step(number: int) -> None:
        places = torch.randint(len(data) - LENGTH - 1, (batch,)).tolist()
        x = torch.stack([data[i : i + LENGTH] for i in places])
        y = torch.stack([data[i + 1 : i + 1 + LENGTH] for i in places])
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.RMSNorm(dim, eps=1e-5), nn.RMSNorm(dim, eps=1e-5)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.gate_up, self.down = nn.Linear(dim, 2 * inner, bias=False), nn.Linear(inner, dim, bias=False)
        angles = torch.outer(torch.arange(LENGTH), 10_000 ** -(torch.arange(0, dim // heads, 2) / (dim // heads)))
        self.register_buffer("rotation", torch.stack([angles.cos(), angles.sin()]), persistent=False)

    def rotated(self, x: Tensor) -> Tensor:
        cos, sin = self.rotation
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm_1(x)).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(self.rotated(q), self.rotated(k), v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm_2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def plain_model(name: str, size: Size, corpus: Corpus) -> nn.Module:
    """A GPT of the same shape for Transformer++, this project's model for the others."""
    if name != "transformer++":
        return size.architecture.build(vocab_size=corpus.vocab_size, max_length=LENGTH, dim=size.dim)
    attention, mlp = size.architecture.layers[:2]
    inner = mlp.num_params(size.dim, LENGTH) // (3 * size.dim)
    blocks = [Block(size.dim, attention.knobs()["heads"], inner) for _ in range(len(size.architecture.layers) // 2)]
    head = (nn.RMSNorm(size.dim, eps=1e-5), nn.Linear(size.dim, corpus.vocab_size))
    return nn.Sequential(nn.Embedding(corpus.vocab_size, size.dim), *blocks, *head)


def gemm_step() -> Step:
    """A product of large matrices, ``GEMM_FLOPS`` of them."""
    a, b = torch.randn(2, 1024, 1024)

    def step(_: int) -> None:
        torch.mm(a, b)

    return step


def compare(name: str, size: Size, corpus: Corpus, batch: int, rounds: int) -> dict[str, str | float]:
    """Tokens a second of both, in turns."""
    model = plain_model(name, size, corpus)
    steps = our_step(size, corpus, batch), plain_step(model, corpus, batch), gemm_step()
    times: list[list[float]] = []
    with flushed_denormals():
        for number in range(rounds + 1):
            turn = []
            for step in steps:
                started = time.process_time()
                step(number)
                turn.append(time.process_time() - started)
            times.append(turn)
    del times[0]  # the first steps allocate
    ours, plain, gemm = (median(column) for column in zip(*times, strict=True))
    shape = {"dim": size.dim, "length": LENGTH, "vocab_size": corpus.vocab_size}
    flops = batch * training_flops(size.architecture, **shape, convention="exact")
    return {
        "architecture": name,
        "parameters": f"{size.params / 1e6:.2f}M",
        "plain parameters": f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M",
        "ours, tokens/s": round(batch * LENGTH / ours),
        "plain, tokens/s": round(batch * LENGTH / plain),
        "times faster": round(median(theirs / mine for mine, theirs, _ in times), 2),
        "ours, % of GEMM": round(100 * flops / ours / (GEMM_FLOPS / gemm), 1),
        "plain, % of GEMM": round(100 * flops / plain / (GEMM_FLOPS / gemm), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=float, nargs="+", default=[1e6, 1e7], help="sizes (default: 1e6 1e7)")
    parser.add_argument("--batch", type=int, default=16, help="sequences of a step (default: 16)")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each, in turns (default: 7)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus = prepare("stdlib", "bytes")
    rows = []
    for params in args.params:
        for name, spec in SPECS.items():
            print(f"{name}, {params:.0e} parameters ...", file=sys.stderr, flush=True)
            sizes = up_to(all_sizes(spec, vocab_size=corpus.vocab_size, length=LENGTH), params)
            (size,) = matched_sizes({spec: sizes}, [params])[spec]
            rows.append(compare(name, size, corpus, args.batch, args.rounds))
    print(_results.table(rows))
    settings = {"shapes": f"length {LENGTH}, bytes, batch {args.batch}, float32, one thread", "rounds": args.rounds}
    command = shlex.join(["python", "benchmarks/lm_speed.py", *sys.argv[1:]])
    written = _results.write("lm-speed", "Training language models beside a plain loop", command, settings, rows, args.json)
    print(f"written to {written} and {written.with_suffix('.md').name}", file=sys.stderr)


if __name__ == "__main__":
    main()
