"""Loss of one IsoFLOP group at several learning rates.

    python benchmarks/learning_rates.py SPEC [--budget 2e11] [--params 6e3,1.5e4,3.9e4] [--rates 1e-2,2e-2]

Training runs are those of the quick ladder: AdamW (0.9, 0.95), weight decay 0.1, 5 % warm-up and cosine to a tenth, gradient
norm at most 1, one thread. Loss is in nats a token on 512 held-out sequences.
"""

import argparse
import math

import torch
from torch.nn import functional as F

import _results
from archlab.corpora import Corpus, prepare
from archlab.scaling.ladder import load_ladder
from archlab.scaling.planner import make_plan
from archlab.scaling.training_plan import LMRun
from archlab.training.context import flushed_denormals

FINAL, WARMUP = 0.1, 0.05


def validation_loss(run: LMRun, corpus: Corpus) -> float:
    """The loss after training."""
    torch.manual_seed(run.seed)
    model = run.architecture.build(vocab_size=run.vocab_size, max_length=run.length, dim=run.dim)
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.learning_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    warmup = int(WARMUP * run.steps) + 1

    def loss(tokens):
        ids = torch.from_numpy(tokens)
        return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    with flushed_denormals():
        for step in range(run.steps):
            cosine = FINAL + (1 - FINAL) / 2 * (1 + math.cos(math.pi * step / run.steps))
            optimizer.param_groups[0]["lr"] = run.learning_rate * min(1, (step + 1) / warmup) * cosine
            loss(corpus.batch(step, run.batch_size, run.length, run.seed)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        batches = list(corpus.validation_batches(64, run.length, limit=512))
        return sum(loss(batch).item() * len(batch) for batch in batches) / sum(map(len, batches))


def numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec")
    parser.add_argument("--budget", type=float, default=2e11)
    parser.add_argument("--params", type=numbers, default=(6e3, 1e4, 1.5e4, 1.9e4, 3.9e4))
    parser.add_argument("--rates", type=numbers, default=(5e-3, 1e-2, 2e-2, 4e-2))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    ladder = load_ladder("quick").with_values(budgets=(asked.budget,), params=asked.params)
    corpus = prepare(ladder.data, ladder.tokenizer)
    rows = []
    for rate in asked.rates:
        for run in make_plan(ladder.with_values(learning_rate=rate), [asked.spec], corpus).runs:
            rows.append(
                {
                    "FLOPs": asked.budget,
                    "parameters": run.params,
                    "steps": run.steps,
                    "rate": rate,
                    "loss": round(validation_loss(run, corpus), 4),
                }
            )
            print(rows[-1], flush=True)
    print(_results.table(rows))
    settings = {"runs": f"{asked.spec}, ladder quick, seed 0", "corpus": corpus.hash}
    given = f"--budget {asked.budget:g} --params {','.join(map(str, asked.params))} --rates {','.join(map(str, asked.rates))}"
    command = f"python benchmarks/learning_rates.py {asked.spec} {given}"
    _results.write("learning-rates", "Learning rates of a ladder's sizes", command, settings, rows)
