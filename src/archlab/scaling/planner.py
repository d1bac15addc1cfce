"""Makes plans from ladders: sizes around each budget's optimum, one batch size a group, steps that spend the budget."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

from archlab.architectures import architecture
from archlab.corpora import Corpus
from archlab.errors import ArchlabError
from archlab.layers import registry
from archlab.scaling.flops import training_flops
from archlab.scaling.ladder import Ladder, central_params, default_batch_size, default_learning_rate
from archlab.scaling.training_plan import TOLERANCE, LMRun, Plan, Size

NARROWEST = 8
WIDEST = 32_768


def make_plan(ladder: Ladder, architectures: Mapping[str, str] | Sequence[str], corpus: Corpus | None = None) -> Plan:
    """Plan the training runs of a ladder for specs, or specs by label; without a corpus for the ladder's ``vocab_size``.

    An ArchlabError says that a spec cannot be read or has no fitting size, or that a budget or the corpus is too small.
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
    most = max(runs, key=lambda run: run.tokens)
    if corpus and not ladder.repeat and most.epochs is not None and most.epochs > 1:
        raise ArchlabError(
            f"corpus {corpus.source}: {most} needs {most.tokens:,} tokens, {corpus.num_tokens('train'):,} are for training: "
            f"give a larger corpus, smaller budgets, or --repeat to read it {most.epochs:.3g} times"
        )
    plan = Plan(tuple(runs), {"archlab": version("archlab"), "ladder": ladder.to_dict()})
    plan.check()
    return plan


def named_specs(architectures: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Return specs by label, each read once to check it; without labels, equal architectures count once."""
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
    centre, length = central_params(budget), ladder.length
    targets = ladder.params or [centre * ladder.spread ** (n - (ladder.sizes - 1) / 2) for n in range(ladder.sizes)]
    known = all_sizes(spec, vocab_size=vocab_size, length=length, aspect=ladder.aspect, head_dim=ladder.head_dim)
    sizes = nearest_sizes(spec, targets, known)
    costs = [
        training_flops(size.architecture, dim=size.dim, length=length, vocab_size=vocab_size, convention=ladder.convention)
        for size in sizes
    ]
    affordable = int(budget / max(costs) / ladder.min_steps)  # leaves the most expensive size its fewest steps
    batch = ladder.batch_size or max(1, min(default_batch_size(centre, length), affordable))
    pairs = zip(sizes, costs, strict=True)
    return [_run(ladder, label, size, cost, budget, batch, corpus, seed) for size, cost in pairs for seed in ladder.seeds]


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
        learning_rate=ladder.learning_rate or default_learning_rate(size.params),
        seed=seed,
        corpus=ladder.data,
        tokenizer=corpus.tokenizer if corpus else ladder.tokenizer or "bytes",
        corpus_hash=corpus.hash if corpus else None,
        vocab_size=size.vocab_size,
    )


def all_sizes(
    spec: str, *, vocab_size: int, length: int, aspect: float = Ladder.aspect, head_dim: int = Ladder.head_dim
) -> Iterator[Size]:
    """Yield every size of a spec, from narrow to wide; widths grow by at most a sixteenth, or by 4.

    The spec's repeating unit is repeated to the depth that belongs to the width; a size without more parameters than all
    narrower ones is left out. Knobs that the spec gives stay as they are; other layers with several heads get the number
    that ``head_dim`` gives. Refuses a spec that fits no width.
    """
    several = {name: knob for name, config in registry().items() if (knob := config.head_knob) and getattr(config, knob) > 1}
    written = architecture(spec)
    refused: ArchlabError | None = None
    largest = 0
    for dim in _widths():
        heads = _heads(dim, head_dim)
        value = architecture(spec, layer_defaults={name: {knob: heads} for name, knob in several.items()})
        try:
            value.validate(dim)
        except ArchlabError as error:
            refused = error
            continue
        layers = max(len(written.layers), round(2 * dim / aspect / len(value.unit)) * len(value.unit))
        deep = replace(value, layers=value.unit * (layers // len(value.unit)))
        size = Size(deep, dim, vocab_size, length)
        if size.params > largest:
            largest = size.params
            yield size
    if not largest:
        raise ArchlabError(f"{spec} fits no width: {refused}")


def nearest_sizes(spec: str, targets: Sequence[float], sizes: Iterable[Size]) -> list[Size]:
    """The sizes of a spec nearest to the targets in parameters, ascending and all different; refuses a target without one."""
    wanted = sorted(targets)
    known: list[Size] = []
    beyond = 0
    for size in sizes:
        known.append(size)
        beyond += size.params > wanted[-1]
        if beyond == len(wanted):
            break
    chosen: list[int] = []
    for target in wanted:
        first = chosen[-1] + 1 if chosen else 0
        if first == len(known) or target > 2 * known[-1].params:
            raise ArchlabError(f"{spec}: no size near {target:.3g} parameters: the widest has {known[-1].params:.3g}")
        chosen.append(min(range(first, len(known)), key=lambda i: abs(math.log(known[i].params / target))))
    return [known[i] for i in chosen]


def _widths() -> Iterator[int]:
    dim = NARROWEST
    while dim <= WIDEST:
        yield dim
        dim += max(4, 2 ** (int(math.log2(dim)) - 4))


def _heads(dim: int, head_dim: int) -> int:
    """Return the number of heads of even width whose width is nearest to ``head_dim`` on a log scale."""
    fitting = [n for n in range(1, dim // 2 + 1) if dim % (2 * n) == 0]
    return min(fitting, key=lambda n: abs(math.log(dim / n / head_dim)))
