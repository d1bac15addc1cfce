"""How right is the cost of a token that `archlab scale fit` and `predict` use, beside the spec's own count?

    python benchmarks/predicted_flops.py

Plans the `paper` ladder, and one with two untied tables and wider spread; gives the training runs the losses of a known law, and
takes the cost from them as a fit does. Then counts every size from 30M to 70G parameters: those that the planner builds, and
those a repeating unit shallower or deeper at the same widths, which lie between them. For comparison the cost of a table of the
same runs (imported, with a column of FLOPs), and the power law through the runs that was used before, with its optima.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

import _results
from archlab.architectures import Architecture
from archlab.scaling.cost import CostFrontier, cost_of
from archlab.scaling.fits import ParametricFit, fit_power_law
from archlab.scaling.flops import training_flops
from archlab.scaling.imported_run import ImportedRun
from archlab.scaling.ladder import load_ladder
from archlab.scaling.planner import all_sizes, make_plan
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.result import LMResult
from archlab.scaling.study import TrainedModel, make_table
from archlab.scaling.training_plan import LMRun, Size
from archlab.scaling.trial import LMTrial

LAW = ParametricFit(1.69, 406.4, 410.7, 0.34, 0.28, 0.0)
RANGE = (3e7, 7e10)


def trained(run: LMRun) -> TrainedModel:
    """The training run with the law's loss."""
    loss = float(LAW(N=run.params, D=run.tokens))
    numbers = {"epochs": 1.0, "tokens_per_second": 1.0, "utilisation": 0.4, "gemm": 1.0, "peak_bytes": 1, "seconds": 1.0}
    found = LMResult(status="finished", reason="", steps=run.steps, loss=loss, curve=(), processes=1, **numbers)
    return TrainedModel(LMTrial(run, LMRecipe()), found, "", {})


def sizes_between(sizes: list[Size]) -> list[Size]:
    """Sizes of the same widths, a repeating unit shallower or deeper than the planner's."""
    found = []
    for size in sizes:
        unit = size.architecture.unit
        depth = len(size.architecture.layers) // len(unit)
        found += [replace(size, architecture=Architecture(unit * other)) for other in (depth - 1, depth + 1) if other]
    return found


def error(cost: Callable[[np.ndarray], np.ndarray], sizes: list[Size]) -> str:
    """The largest relative error from the exact count among the sizes in range, in per cent."""
    found = 0.0
    for size in sizes:
        if RANGE[0] <= size.params <= RANGE[1]:
            exact = training_flops(size.architecture, **size.shape, convention="exact") / size.length
            found = max(found, abs(float(cost(np.array(float(size.params)))) / exact - 1))
    return f"{100 * found:.2f}" if found > 1e-9 else "0"


def main() -> None:
    paper = load_ladder("paper")
    untied = paper.with_values(tied=False, vocab_multiple=1, spread=2.0, min_steps=1)
    rows = []
    for name, ladder in (("paper", paper), ("untied", untied)):
        plan = make_plan(ladder, paper.architectures)
        for label, spec in paper.architectures.items():
            runs = [run for run in plan.runs if run.label == label]
            table = make_table(label, [trained(run) for run in runs], "all")
            copied = [ImportedRun(label, r.budget, r.flops, r.params, r.tokens, 3.0, 0) for r in runs]
            cost, power = cost_of(table), fit_power_law(x=table.N, y=table.C / table.D)
            rules = {"aspect": ladder.aspect, "head_dim": ladder.head_dim, "width_multiple": ladder.width_multiple}
            shape = {"length": ladder.length, "vocab_size": runs[0].vocab_size, "backbone": runs[0].backbone}
            sizes = list(all_sizes(spec, **shape, **rules))
            new, old = CostFrontier(LAW, cost), LAW.frontier(power)
            rows.append(
                {
                    "ladder": name,
                    "architecture": label,
                    "runs": f"{table.N.min():.2g} to {table.N.max():.2g}",
                    "buildable": error(cost, sizes),
                    "between": error(cost, sizes_between(sizes)),
                    "imported": error(cost_of(make_table(label, copied, "all")), sizes),
                    "power law": error(power, sizes),
                    "its loss at 8e19": f"{float(old.loss(8e19) - new.loss(8e19)):+.4f}",
                    "its N* at 8e19": f"x {float(old.size(8e19) / new.size(8e19)):.2f}",
                    "its N* at 1e24": f"x {float(old.size(1e24) / new.size(1e24)):.2f}",
                }
            )
    settings = {
        "buildable": "largest error in per cent over every size that the planner builds, from 30M to 70G parameters",
        "between": "the same over sizes of the same widths, a repeating unit shallower or deeper than the rule",
        "imported": "the same as buildable, where only N, D and C of the runs are known",
        "power law": "the same as buildable, by the power law of N through the runs; its loss and N* against those now",
        "law": "L = 1.69 + 406.4 / N^0.34 + 410.7 / D^0.28",
    }
    path = _results.write("predicted-flops", "Predicted FLOPs a token", "python benchmarks/predicted_flops.py", settings, rows)
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
