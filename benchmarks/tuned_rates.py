"""Learning rates that `archlab scale tune` has found, from its store.

archlab scale plan transformer++ mamba "stripe([hyena swiglu], [mh-attention swiglu], every=4)" -o plan.yaml
archlab scale tune plan.yaml --store tune.db
python benchmarks/tuned_rates.py tune.db
"""

import sys

import _results
from archlab.scaling.ladder import load_ladder
from archlab.scaling.tuning import Tuning, read_tuning

if __name__ == "__main__":
    tuning = read_tuning(sys.argv[1], load_ladder("quick").rule)
    rows = []
    for one in tuning.rates:
        losses = ", ".join(f"{rate:g}: {'diverged' if loss is None else f'{loss:.4f}'}" for rate, loss in one.losses.items())
        rows.append(
            {
                "architecture": one.label,
                "FLOPs": f"{one.budget:g}",
                "parameters": one.params,
                "loss by rate": losses,
                "best rate": f"{one.rate:.3g}" if one.bracketed else f"{one.best:.3g}, not bracketed",
                "over the rule": f"{one.rate / one.rule:.2f}",
                "loss at half": "" if one.at_half is None else f"{one.at_half:+.4f}",
                "loss at twice": "" if one.at_twice is None else f"{one.at_twice:+.4f}",
            }
        )
    factors = []
    for label in dict.fromkeys(one.label for one in tuning.rates):
        own = Tuning(tuple(one for one in tuning.rates if one.label == label))
        factors.append(f"{label}: {own.factors[label]:g}" if own.bracketed else f"{label}: not bracketed yet")
    settings = {"runs": "ladder quick, one seed, one thread each", "factors": "; ".join(factors)}
    print(_results.table(rows))
    _results.write("tuning", "Learning rates of architectures", f"python benchmarks/tuned_rates.py {sys.argv[1]}", settings, rows)
