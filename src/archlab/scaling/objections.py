"""Objections to a plan: what can be trained but is hardly meant; ``--allow NAME`` accepts one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from archlab.corpora import Corpus
from archlab.errors import ArchlabError
from archlab.scaling.estimate import device_bytes
from archlab.scaling.ladder import Ladder, ObjectionName, central_params
from archlab.scaling.training_plan import LMRun, Plan

FARTHEST = 64
"""Tokens a parameter may be this factor above or below those at the centre of the sizes: a size 8 times smaller or larger."""
SIZE_TOLERANCE = 0.25
"""Largest relative distance of a size from the parameters that were asked for."""


@dataclass(frozen=True)
class Objection:
    """A reason not to train a plan, and the way out."""

    name: ObjectionName
    text: str
    fix: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.text}: {self.fix}, or accept it by allow=['{self.name}'] (--allow {self.name})"


def objections(plan: Plan, ladder: Ladder, corpus: Corpus | None = None) -> list[Objection]:
    """List the objections to a plan of a ladder that the ladder does not allow; without a corpus by its ``corpus_tokens``."""
    found = []
    for name, check in CHECKS.items():
        if name not in ladder.allow and (reason := check(plan, ladder, corpus)):
            found.append(Objection(name, *reason))
    return found


def refuse(plan: Plan, ladder: Ladder, corpus: Corpus | None = None) -> None:
    """Refuse a plan with objections by an ArchlabError that holds them all."""
    if found := objections(plan, ladder, corpus):
        raise ArchlabError("; ".join(map(str, found)))


_Reason = tuple[str, str] | None
"""The text and the fix of an objection."""


def _corpus(plan: Plan, ladder: Ladder, corpus: Corpus | None) -> _Reason:
    available = corpus.num_tokens("train") if corpus else ladder.corpus_tokens
    most = max(plan.runs, key=lambda run: run.tokens)
    if ladder.repeat or available is None or most.tokens <= available:
        return None
    text = f"corpus {most.corpus}: {most} needs {most.tokens:,} tokens, {available:,.0f} are for training"
    times = most.epochs or most.tokens / available
    return text, f"give a larger corpus, smaller budgets, or repeat=True (--repeat) to read it {times:.3g} times"


def _tokens_per_param(plan: Plan, ladder: Ladder, corpus: Corpus | None) -> _Reason:
    def distance(run: LMRun) -> float:
        return max(ratio := run.tokens / run.params / _usual_ratio(run), 1 / ratio)

    worst = max(plan.runs, key=distance)
    if distance(worst) <= FARTHEST:
        return None
    usual = _usual_ratio(worst)
    smaller_or_larger = "larger" if worst.tokens / worst.params > usual else "smaller"
    text = (
        f"tokens a parameter: {worst} with {worst.params:,} parameters gets {worst.tokens / worst.params:,.3g}, sane at its "
        f"FLOPs are {usual / FARTHEST:.2g} to {usual * FARTHEST:,.3g}"
    )
    return text, f"give {smaller_or_larger} sizes"


def _usual_ratio(run: LMRun) -> float:
    """Tokens a parameter of the size at the centre of the rule, by 6ND."""
    return run.budget / (6 * central_params(run.budget) ** 2)


def _gpus(plan: Plan, ladder: Ladder, corpus: Corpus | None) -> _Reason:
    if ladder.peak_flops is None or len(plan.runs) >= ladder.gpus:  # each model trains on a GPU of its own
        return None
    least = min(plan.runs, key=lambda run: run.batch_size)
    uneven = next((run for run in plan.runs if run.batch_size % ladder.gpus), None)
    if uneven is None:
        return None
    wrong = least if least.batch_size < ladder.gpus else uneven
    relation = "is smaller than" if wrong is least else "does not divide among"
    most = 1 << (least.batch_size.bit_length() - 1)
    text = f"gpus={ladder.gpus}: {len(plan.runs)} runs share them, and batch_size={wrong.batch_size} of {wrong} {relation} them"
    return (
        text,
        f"give gpus={min(most, 1 << (ladder.gpus.bit_length() - 1))}, or at most gpus={len(plan.runs)} for one run on each",
    )


def _sizes(plan: Plan, ladder: Ladder, corpus: Corpus | None) -> _Reason:
    planned: dict[tuple[str, float | None], set[int]] = {}
    for run in plan.runs:
        planned.setdefault((run.label, None if ladder.tokens_per_param else run.budget), set()).add(run.params)
    off: dict[str, None] = {}
    for (label, _), sizes in planned.items():
        for target, size in zip(sorted(ladder.params), sorted(sizes), strict=False):
            if abs(size / target - 1) > SIZE_TOLERANCE:
                off[f"{target:,.4g} became {size:,} ({label})"] = None
    return (f"params: {', '.join(list(off)[:5])}", "give sizes that exist") if off else None


def _embeddings(plan: Plan, ladder: Ladder, corpus: Corpus | None) -> _Reason:
    least = min(plan.runs, key=lambda run: run.params_non_embedding / run.params)
    share = 1 - least.params_non_embedding / least.params
    if share <= 0.5:
        return None
    text = (
        f"embeddings: {share:.0%} of the {least.params:,} parameters of {least} are in its tables of {least.vocab_size:,} tokens"
    )
    return text, "give larger sizes, a smaller vocabulary, a smaller aspect or tied=true"


def _memory(plan: Plan, ladder: Ladder, corpus: Corpus | None) -> _Reason:
    if ladder.memory is None:
        return None
    worst = max(plan.runs, key=lambda run: device_bytes(run, gpus=ladder.gpus))
    least = device_bytes(worst, gpus=ladder.gpus)
    if least <= ladder.memory:
        return None
    text = f"memory={ladder.memory:.3g}: {worst} takes {least:.3g} bytes on each of {ladder.gpus} GPUs that share it"
    return text, "give more gpus, smaller sizes or a smaller vocabulary"


CHECKS: Mapping[ObjectionName, Callable[[Plan, Ladder, Corpus | None], _Reason]] = {
    "corpus": _corpus,
    "tokens-per-param": _tokens_per_param,
    "gpus": _gpus,
    "sizes": _sizes,
    "embeddings": _embeddings,
    "memory": _memory,
}
"""The checks by name: more tokens than there are, far too few or many tokens a parameter, a batch that GPUs cannot
share, sizes that are not what was asked for, models that are mostly embeddings, and more memory than a GPU has."""
