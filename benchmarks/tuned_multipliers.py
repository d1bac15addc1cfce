"""What tuned learning rates change of a comparison: loss differences and compute multipliers by the rule, and tuned.

archlab scale plan transformer++ mamba "stripe([hyena swiglu], [mh-attention swiglu], every=4)" -o rule.yaml
archlab scale tune rule.yaml --store tune.db
archlab scale plan transformer++ mamba "stripe([hyena swiglu], [mh-attention swiglu], every=4)" --tuned tune.db -o tuned.yaml
archlab scale run rule.yaml --store rule.db
archlab scale run tuned.yaml --store tuned.db
python benchmarks/tuned_multipliers.py rule.db tuned.db --reference transformer++

Stores may lack training runs, as those of the largest budget: the table says how many there are.
"""

import argparse

import _results
from archlab import scaling
from archlab.reports.scaling_tables import interval
from archlab.scaling.analysis.comparison import multiplier_text
from archlab.scaling.study import open_study

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rule", help="store of the training runs at the rule's rates")
    parser.add_argument("tuned", help="store of those at tuned rates")
    parser.add_argument("--reference", default="transformer++", help="label of the architecture to compare with")
    args = parser.parse_args()
    rows, settings = [], {}
    for name, store in (("rule", args.rule), ("tuned", args.tuned)):
        study = open_study(store)
        missing = [f"{len(runs)} of {total} of {plan}" for plan, (total, runs) in study.plans.items() if runs]
        frame = study.to_frame()
        rates = frame.groupby("architecture").learning_rate.unique()
        settings |= {
            f"{name}, training runs": f"{len(frame)}, missing {'; '.join(missing) or 'none'}",
            f"{name}, learning rates": "; ".join(f"{label} {', '.join(f'{x:g}' for x in some)}" for label, some in rates.items()),
        }
        found = scaling.compare(study, reference=args.reference)
        settings |= {f"{name}, {note.cause}": "; ".join(note.cases) for note in found.notes}
        rows += [
            {
                "learning rates": name,
                "architecture": row.architecture,
                "FLOPs": f"{row.budget:.3g}",
                "loss difference": interval(row.difference, ".4f"),
                "compute multiplier": "–" if row.multiplier is None else multiplier_text(row.multiplier, ".2f"),
            }
            for row in found.rows
        ]
    command = f"python benchmarks/tuned_multipliers.py {args.rule} {args.tuned} --reference {args.reference}"
    print(_results.table(rows), *(f"{name}: {value}" for name, value in settings.items()), sep="\n")
    print(_results.write("tuned-multipliers", "What tuned learning rates change of a comparison", command, settings, rows))
