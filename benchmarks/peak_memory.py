"""Peak memory of a trial against the prediction: width 128, length 128, batch 128, two steps, one process each.

The growth of the process is measured twice with the allocator's defaults, and once with an allocator that returns every freed
block. The last is the memory of the tensors, which is what is predicted.

    python benchmarks/peak_memory.py
"""

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import _results
from archlab import architecture
from archlab.mad.memory import peak_bytes
from archlab.mad.recipe import Recipe
from archlab.mad.train import train_together
from archlab.mad.trial import Trial
from archlab.tasks import setting
from archlab.training.memory import FRAGMENTATION

SPECS = (
    "mh-attention(heads=2) swiglu",
    "mamba mlp",
    "hyena swiglu",
    "mh-hyena(heads=8) mlp",
    "gated-linear-attention mlp",
    "deltanet mlp",
    "mesa-net mlp",
    "rwkv-7 mlp",
    "based mlp",
    "h3 mlp",
)


def trial(spec: str) -> Trial:
    return Trial(
        architecture=architecture(spec),
        setting=setting("in-context-recall", length=128, num_train_examples=128),
        recipe=Recipe(steps=2, batch_size=128, evaluations=1, num_evaluation=8),
        dim=128,
        learning_rate=1e-3,
        weight_decay=0.1,
        seed=0,
    )


def growth(spec: str) -> int:
    """Of this process by the training, in bytes; a step of one sequence comes before it."""
    import torch

    torch.set_num_threads(1)
    first = trial("mlp")
    list(train_together([replace(first, recipe=replace(first.recipe, batch_size=1, steps=1))], lambda *_: None, [{}]))
    before = _peak()
    list(train_together([trial(spec)], lambda *_: None, [{}]))
    return _peak() - before


def _peak() -> int:
    return int(Path("/proc/self/status").read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) << 10


def measured(spec: str, **variables: str) -> int:
    command = [sys.executable, __file__, "--one", spec]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", default=SPECS, metavar="SPEC", help="what to train (default: ten layers)")
    parser.add_argument("--one", metavar="SPEC", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    if args.one:
        print(growth(args.one))
        return
    rows = []
    for spec in args.specs:
        predicted = peak_bytes(trial(spec)) / FRAGMENTATION
        tensors, *processes = measured(spec, MALLOC_MMAP_THRESHOLD_=str(2**17)), measured(spec), measured(spec)
        rows.append(
            {
                "architecture": spec,
                "predicted, MB": round(predicted / 1e6, 1),
                "tensors, MB": round(tensors / 1e6, 1),
                "predicted over tensors": round(predicted / tensors, 3),
                "process, MB": " and ".join(f"{process / 1e6:.0f}" for process in processes),
                "process over tensors": " and ".join(f"{process / tensors:.2f}" for process in processes),
            }
        )
        print(_results.table([rows[-1]]).splitlines()[-1], flush=True)
    print(_results.table(rows))
    settings = {"trainings": "width 128, length 128, batch 128, two steps", "printed and compared": f"{FRAGMENTATION} x tensors"}
    command = "python benchmarks/peak_memory.py"
    print(_results.write("peak-memory", "Is the memory of a training what was predicted?", command, settings, rows, args.json))


if __name__ == "__main__":
    main()
