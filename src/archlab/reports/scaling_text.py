"""Scaling laws as text, for tables and pages."""

from archlab.format import count, human
from archlab.scaling.analysis.hybridisation import BestFraction
from archlab.scaling.fits import IsoFlopFit, OverTrainingFit, ParametricFit, StateFit
from archlab.scaling.laws import Estimate, HoldOut, Law


def interval(estimate: Estimate, digits: str) -> str:
    """Write a number with its interval, if it has one."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{digits}}"
    between = " to " if estimate.low < 0 else "–"  # a dash before a minus sign reads badly
    return f"{estimate.value:{digits}} ({estimate.low:{digits}}{between}{estimate.high:{digits}})"


def amount(estimate: Estimate) -> str:
    """Write a number of parameters or tokens with its interval: ``74.4M (72.3M–74.8M)``."""
    bounds = "" if estimate.low is None or estimate.high is None else f" ({human(estimate.low)}–{human(estimate.high)})"
    return f"{human(estimate.value)}{bounds}"


def law_text(law: Law) -> str:
    """Write a law: the formula of the loss, the number of minima, or the range of the envelope."""
    if isinstance(law.fit, ParametricFit):
        f = law.fit
        return f"loss = {f.E:.3f} + {f.A:.4g} / N^{f.alpha:.3f} + {f.B:.4g} / D^{f.beta:.3f}"
    if isinstance(law.fit, IsoFlopFit):
        minima = len(law.fit.minima)
        return f"minima in {minima} of {count(minima + len(law.fit.refused), 'group')}"
    return f"minima between the curves from {min(law.fit.flops):.3g} to {max(law.fit.flops):.3g} FLOPs"


def hold_out_text(hold_out: HoldOut | str) -> str:
    """Write the error of a fit to the other budgets at the largest one."""
    if isinstance(hold_out, str):
        return "not possible"
    parts = [] if hold_out.loss_error is None else [f"loss {100 * hold_out.loss_error:.2f} % off"]
    parts += [] if hold_out.size_ratio is None else [f"N* x {hold_out.size_ratio:.2f}"]
    return ", ".join(parts) or "its group has no minimum"


def fraction_text(best: BestFraction) -> str:
    """Write the best fraction of attention with its interval, or that it is not bracketed."""
    return interval(best.fraction, ".2f") if best.bracketed else f"{best.fraction.value:.2f}, not bracketed"


def over_training_text(fit: OverTrainingFit) -> str:
    """Write an over-training law; ``M = D / N``."""
    return f"loss = {fit.E:.3f} + ({fit.a:.4g} M^{fit.eta:.3f} + {fit.b:.4g} / M^{fit.eta:.3f}) / C^{fit.eta:.3f}"


def state_text(fit: StateFit) -> str:
    """Write the state-optimal law in one line."""
    between = f" ({float(fit.interval.low):.3f} to {float(fit.interval.high):.3f})" if fit.interval is not None else ""
    return f"perplexity at the optimum ~ state^{fit.exponent:.3f}{between}, one slope for all architectures"
