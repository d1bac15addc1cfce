"""All that a study tells: laws, comparisons, the state law, what another size costs, the best share of attention."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

from archlab.errors import ArchlabError
from archlab.scaling.analysis.comparison import Comparison, compare, state_law
from archlab.scaling.analysis.hybridisation import Sweep, sweeps
from archlab.scaling.analysis.off_optimal import Gap, OverTraining, off_optimal_gaps, over_training
from archlab.scaling.fits import Resampling, StateFit
from archlab.scaling.laws import Laws, fit_laws
from archlab.scaling.study import Study


@dataclass(frozen=True)
class Findings:
    """What was fitted to a study."""

    study: Study
    resampling: Resampling
    laws: tuple[Laws, ...]
    without: dict[str, str]
    """Architectures with too few finished trainings for any law, and what they lack."""
    comparisons: tuple[Comparison, ...]
    """Of every pair of architectures, at every budget."""
    state: StateFit | str
    """Or why there is none."""
    gaps: tuple[Gap, ...]
    """Of every architecture, at every budget with a minimum."""
    over_training: dict[str, OverTraining | str]
    """By architecture; or why there is none."""
    sweeps: tuple[Sweep, ...]
    """Over the share of attention layers."""


def find(study: Study, resampling: Resampling, on_method: Callable[[], object] = lambda: None) -> Findings:
    """Fit and compare all architectures of a study; ``on_method`` is called after each method of each architecture.

    Raises:
        ArchlabError: none of them has two finished sizes.
    """
    laws, without = fit_all(study, resampling, on_method)
    families = [one.family for one in laws]
    pairs = combinations(families, 2)
    comparisons = tuple(found for first, second in pairs for found in compare(first, second, resampling))
    gaps = tuple(gap for family in families for gap in off_optimal_gaps(family, resampling))
    hybrids = sweeps(families, resampling)
    beyond = {family.label: over_training(family) for family in families}
    return Findings(study, resampling, laws, without, comparisons, state_law(laws, resampling), gaps, beyond, hybrids)


def fit_all(
    study: Study, resampling: Resampling, on_method: Callable[[], object] = lambda: None
) -> tuple[tuple[Laws, ...], dict[str, str]]:
    """The laws of every architecture that has some, and what the others lack.

    Raises:
        ArchlabError: none has two finished sizes.
    """
    laws, without = [], {}
    for family in study.families.values():
        try:
            laws.append(fit_laws(family, resampling, on_method))
        except ArchlabError as error:
            without[family.label] = str(error)
    if not laws:
        raise ArchlabError("; ".join(without.values()))
    return tuple(laws), without
