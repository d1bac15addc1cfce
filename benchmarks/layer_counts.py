"""What does a training step of every layer do on a GPU: kernels, waits, bytes, and the time by a roofline model?

    python benchmarks/layer_counts.py

Counts on tensors without data, so no GPU is needed and nothing is measured: one layer between embedding and unembedding, at
width 128, batch 128 and bfloat16, at length 256; "a token" is what length 512 has more of kernels, for each token.
"""

import argparse
from pathlib import Path

import _results
from archlab.accelerators import accelerator
from archlab.architectures import architecture
from archlab.layers.registry import registry
from archlab.mad.recipe import Recipe
from archlab.mad.roofline import step_counts, step_seconds
from archlab.mad.trial import Trial
from archlab.tasks import setting

LENGTH, BATCH, DIM = 256, 128, 128


def trial(name: str, length: int) -> Trial:
    task = setting("in-context-recall", vocab_size=64, length=length, num_train_examples=BATCH)
    recipe = Recipe(batch_size=BATCH, precision="bf16")
    rest = {"learning_rate": 1e-3, "weight_decay": 0.1, "seed": 0}
    return Trial(architecture=architecture(f"1*{name}"), setting=task, recipe=recipe, dim=DIM, **rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", help="by default all that are registered")
    parser.add_argument("--model", default="h100", help="accelerator of the roofline (default: h100)")
    parser.add_argument("--output", type=Path, help="JSON file; by default a dated one in benchmarks/results")
    arguments = parser.parse_args()
    card = accelerator(arguments.model)
    rows = []
    for name in arguments.layers or sorted(registry()):
        short, long = (step_counts(trial(name, length)) for length in (LENGTH, 2 * LENGTH))
        row: dict[str, str | float] = {
            "layer": name,
            "kernels": short.num_kernels,
            "a token": round((long.num_kernels - short.num_kernels) / LENGTH, 2),
            "waits": short.waits.total(),
            "KB a token": round(short.bytes / BATCH / LENGTH / 1e3, 1),
            "least KB": round(short.least_bytes / BATCH / LENGTH / 1e3, 1),
            "modelled ms": round(1e3 * step_seconds(short, card), 2),
            "at the least": round(1e3 * step_seconds(short, card, fused=True), 2),
        }
        rows.append(row)
        print(*row.values(), sep="\t", flush=True)
    settings = {"accelerator": f"{arguments.model}, modelled, not measured", "width": DIM, "batch": BATCH, "length": LENGTH}
    command = "python benchmarks/layer_counts.py"
    _results.write("layer-counts", "Training steps on a GPU, counted", command, settings, rows, arguments.output)


if __name__ == "__main__":
    main()
