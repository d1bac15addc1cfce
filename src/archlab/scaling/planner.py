"""From a ladder to a plan: sizes around each budget's optimum, one batch a group, steps that spend the budget."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from archlab.architectures import architecture
from archlab.corpora import Corpus
from archlab.errors import ArchlabError
from archlab.scaling import rules
from archlab.scaling.flops import training_flops
from archlab.scaling.ladder import Ladder
from archlab.scaling.plan import TOLERANCE, LMRun, Plan
from archlab.scaling.sizes import Size, nearest_sizes


def make_plan(ladder: Ladder, architectures: Mapping[str, str] | Sequence[str], corpus: Corpus | None = None) -> Plan:
    """The runs of a ladder for some architectures.

    Args:
        ladder: budgets, sizes and rules.
        architectures: specs, or specs by what to call them.
        corpus: what they train on, prepared; None plans without it, for the ladder's ``vocab_size``.

    Raises:
        ArchlabError: a spec cannot be read or has no fitting size, a budget is too small for a size, or the corpus is too small.
    """
    vocab_size = corpus.vocab_size if corpus else ladder.vocab_size
    if vocab_size is None:
        raise ArchlabError("vocab_size: give it, to plan without the corpus")
    if corpus:  # both splits hold a sequence
        corpus.num_sequences("validation", ladder.length)
        corpus.num_sequences("train", ladder.length)
    runs: list[LMRun] = []
    for label, spec in named_specs(architectures).items():
        for budget in ladder.budgets:
            runs += _group(ladder, label, spec, budget, vocab_size, corpus)
    plan = Plan(tuple(runs), {"archlab": version("archlab"), "ladder": ladder.to_dict()})
    _check_corpus(plan, corpus, repeat=ladder.repeat)
    plan.check()
    return plan


def named_specs(architectures: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Specs by what to call them, each read once to see that it can be; without names, an architecture counts once.

    Raises:
        ArchlabError: there is none, or one cannot be read.
    """
    if not architectures:
        raise ArchlabError("no architecture: give at least one spec, as in transformer++")
    if isinstance(architectures, Mapping):
        for spec in architectures.values():
            architecture(spec)
        return dict(architectures)
    values = {spec: architecture(spec) for spec in architectures}
    first = {value: spec for spec, value in reversed(values.items())}
    return {value.label: spec for spec, value in values.items() if first[value] == spec}


def _group(ladder: Ladder, label: str, spec: str, budget: float, vocab_size: int, corpus: Corpus | None) -> list[LMRun]:
    centre = rules.centre(budget)
    targets = ladder.params or [centre * ladder.spread ** (n - (ladder.sizes - 1) / 2) for n in range(ladder.sizes)]
    sizes = nearest_sizes(spec, targets, ladder.shape, vocab_size=vocab_size, length=ladder.length)
    costs = [_cost(size, ladder) for size in sizes]
    batch = ladder.batch_size or _batch(ladder, centre, budget, costs)
    return [
        _run(ladder, label, size, cost, budget, batch, corpus, seed)
        for size, cost in zip(sizes, costs, strict=True)
        for seed in ladder.seeds
    ]


def _cost(size: Size, ladder: Ladder) -> int:
    return training_flops(
        size.architecture, dim=size.dim, length=size.length, vocab_size=size.vocab_size, convention=ladder.convention
    )


def _batch(ladder: Ladder, centre: float, budget: float, costs: list[int]) -> int:
    """The rule's, or as many sequences as leave the dearest size its steps."""
    affordable = int(budget / max(costs) / ladder.min_steps)
    return max(1, min(rules.batch_size(centre, ladder.length), affordable))


def _run(ladder: Ladder, label: str, size: Size, cost: int, budget: float, batch: int, corpus: Corpus | None, seed: int) -> LMRun:
    steps = round(budget / cost / batch)
    if steps < ladder.min_steps or abs(steps * cost * batch / budget - 1) > TOLERANCE:
        raise ArchlabError(
            f"budget {budget:.3g} is too small for {label} with {size.params:,} parameters: it takes {steps} steps of {batch} "
            f"sequences, the least is {ladder.min_steps}: give a larger budget, smaller sizes, a smaller batch or less min_steps"
        )
    tokens = steps * batch * size.length
    return LMRun(
        label=label,
        spec=str(size.architecture),
        dim=size.dim,
        budget=budget,
        flops=steps * batch * cost,
        convention=ladder.convention,
        params=size.params,
        params_non_embedding=size.params_non_embedding,
        state=size.state,
        steps=steps,
        batch_size=batch,
        length=size.length,
        tokens=tokens,
        epochs=float(f"{corpus.epochs(tokens, size.length):.4g}") if corpus else None,
        learning_rate=ladder.learning_rate or rules.learning_rate(size.params),
        seed=seed,
        corpus=ladder.data,
        tokenizer=corpus.tokenizer if corpus else ladder.tokenizer or "bytes",
        corpus_hash=corpus.hash if corpus else None,
        vocab_size=size.vocab_size,
    )


def _check_corpus(plan: Plan, corpus: Corpus | None, *, repeat: bool) -> None:
    most = max(plan.runs, key=lambda run: run.tokens)
    if corpus and not repeat and most.epochs is not None and most.epochs > 1:
        raise ArchlabError(
            f"corpus {corpus.source}: {most} needs {most.tokens:,} tokens, {corpus.num_tokens('train'):,} are for training: "
            f"give a larger corpus, smaller budgets, or --repeat to read it {most.epochs:.3g} times"
        )
