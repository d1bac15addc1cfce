"""How long would the `paper` protocol take on a GPU, by a roofline model, and how many bytes does a step move?

    python benchmarks/paper_hours.py

Counts the training steps of all settings on tensors without data: no GPU is needed and nothing is measured. Hours are those of
all trials and evaluations from one seed, one after the other, if nothing stops early. Bytes are those of the base recall
setting, for each token of a batch; "least KB" are those of products, transforms, attention and update alone.
"""

import argparse
from pathlib import Path

import _results
from archlab.mad.plan import make_plan
from archlab.mad.protocol import load_protocol
from archlab.mad.roofline import model, step_counts

SPECS = ("transformer++", "hyena", "gla", "2*[deltanet swiglu]", "striped-mh-hyena", "mamba")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", default=SPECS, help="architectures (default: six)")
    parser.add_argument("--model", default="h100", help="accelerator of the roofline (default: h100)")
    parser.add_argument("--output", type=Path, help="JSON file; by default a dated one in benchmarks/results")
    arguments = parser.parse_args()
    rows: list[dict[str, str | float]] = []
    for spec in arguments.specs:
        plan = make_plan(load_protocol("paper"), [spec])
        base = next(trial for trial in plan.trials() if trial.setting.name == "in-context-recall")
        counts, (step,) = step_counts(base), model([spec], ["paper"], arguments.model).steps
        row: dict[str, str | float] = {
            "architecture": spec,
            "kernels": step.kernels,
            "waits": step.waits,
            "KB a token": round(step.bytes_per_token / 1e3, 1),
            "least KB": round(step.bytes_per_token / 1e3 * counts.least_bytes / counts.bytes, 1),
            "hours": round(step.seconds / 3600, 2),
            "hours, fused": round(step.fused_seconds / 3600, 2),
        }
        rows.append(row)
        print(*row.values(), sep="\t", flush=True)
    settings = {"accelerator": f"{arguments.model}, modelled, not measured"}
    _results.write(
        "paper-hours", "Hours of `paper` on a GPU, modelled", "python benchmarks/paper_hours.py", settings, rows, arguments.output
    )


if __name__ == "__main__":
    main()
