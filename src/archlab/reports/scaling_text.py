"""Scaling laws in words, for tables and pages."""

from archlab.format import count, human
from archlab.scaling.analysis.hybridisation import BestShare
from archlab.scaling.analysis.off_optimal import OverTraining
from archlab.scaling.fits import IsoFlopFit, ParametricFit, StateFit
from archlab.scaling.laws import Estimate, HoldOut, Law, Laws


def notes(laws: Laws) -> list[str]:
    """What a reader of the fits has to know, one line each."""
    label = laws.family.label
    found = [f"{label}: {method}: {reason}" for method, reason in laws.refused.items()]
    if laws.isoflop is not None:
        found += [f"{label}: {reason}" for reason in laws.isoflop.refused.values()]
        found += [f"{label}: {warning}" for minimum in laws.isoflop.minima for warning in minimum.warnings]
    found += [
        f"{label}: {law.method}: no intervals: {law.largest.no_interval}"
        for law in laws.found.values()
        if law.largest.no_interval
    ]
    if laws.family.censored:
        runs = ", ".join(f"width {p.run.dim} at {p.run.budget:.3g}" for p in laws.family.censored)
        found.append(
            f"{label}: {count(len(laws.family.censored), 'training')} diverged and left out, whatever their loss: {runs}"
        )
    if laws.disagreement:
        found.append(f"{label}: methods disagree: {laws.disagreement}: believe none before you know why")
    return found


def interval(estimate: Estimate, digits: str) -> str:
    """A number with its interval, if it has one."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{digits}}"
    between = " to " if estimate.low < 0 else "–"  # a dash before a minus sign reads badly
    return f"{estimate.value:{digits}} ({estimate.low:{digits}}{between}{estimate.high:{digits}})"


def amount(estimate: Estimate) -> str:
    """The same for parameters and tokens: ``74.4M (72.3M–74.8M)``."""
    bounds = "" if estimate.low is None or estimate.high is None else f" ({human(estimate.low)}–{human(estimate.high)})"
    return f"{human(estimate.value)}{bounds}"


def law_text(law: Law) -> str:
    """What was fitted: the formula of the loss, in how many groups there is a minimum, or where between the curves."""
    if isinstance(law.fit, ParametricFit):
        f = law.fit
        return f"loss = {f.E:.3f} + {f.A:.4g} / N^{f.alpha:.3f} + {f.B:.4g} / D^{f.beta:.3f}"
    if isinstance(law.fit, IsoFlopFit):
        minima = len(law.fit.minima)
        return f"minima in {minima} of {count(minima + len(law.fit.refused), 'group')}"
    return f"minima between the curves from {min(law.fit.flops):.3g} to {max(law.fit.flops):.3g} FLOPs"


def hold_out_text(found: HoldOut | str) -> str:
    """How well the largest budget was predicted from the others."""
    if isinstance(found, str):
        return "not possible"
    parts = [] if found.loss_error is None else [f"loss {100 * found.loss_error:.2f} % off"]
    parts += [] if found.size_ratio is None else [f"N* x {found.size_ratio:.2f}"]
    return ", ".join(parts) or "its group has no minimum"


def share_text(best: BestShare) -> str:
    """The best share of attention with its interval, or that it is at an end."""
    return interval(best.share, ".2f") if best.bracketed else f"{best.share.value:.2f}, not bracketed"


def over_training_text(found: OverTraining) -> str:
    """The over-training law, and how well it describes the runs; M are tokens a parameter."""
    f, error = found.fit, 100 * found.error
    return (
        f"loss = {f.E:.3f} + ({f.a:.4g} M^{f.eta:.3f} + {f.b:.4g} / M^{f.eta:.3f}) / C^{f.eta:.3f}, {error:.2f} % off, M = D / N"
    )


def state_text(fit: StateFit) -> str:
    """The state-optimal law in one line."""
    between = f" ({float(fit.interval.low):.3f} to {float(fit.interval.high):.3f})" if fit.interval is not None else ""
    return f"perplexity at the optimum ~ state^{fit.exponent:.3f}{between}, one slope for all architectures"
