"""Makes plans from ladders: sizes around each budget's optimum, one batch size a budget, steps that spend the budget."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from typing import Any

from archlab.architectures import architecture
from archlab.corpora import Corpus
from archlab.errors import ArchlabError
from archlab.layers import registry
from archlab.scaling.flops import training_flops
from archlab.scaling.ladder import Ladder, central_params, default_batch_size
from archlab.scaling.training_plan import TOLERANCE, LMBackbone, LMRun, Plan, Size, padded

NARROWEST = 8
WIDEST = 32_768


def make_plan(ladder: Ladder, architectures: Mapping[str, str] | Sequence[str], corpus: Corpus | None = None) -> Plan:
    """Plan the training runs of a ladder for specs, or specs by label; without a corpus for the ladder's ``vocab_size``.

    At one budget all architectures share the batch, hence the order of the data, and their sizes are as alike as widths allow.
    An ArchlabError says that a spec cannot be read or has no fitting size, or that a budget is too small; what is possible but
    hardly meant is left to :mod:`archlab.scaling.objections`.
    """
    vocab_size = corpus.vocab_size if corpus else ladder.vocab_size
    if vocab_size is None:
        raise ArchlabError("vocab_size: give it, to plan without the corpus")
    if corpus:  # both splits hold a sequence
        corpus.num_sequences("validation", ladder.length)
        corpus.num_sequences("train", ladder.length)
    architectures = named_specs(architectures)
    if ladder.learning_rate_factors and (untuned := architectures.keys() - ladder.learning_rate_factors.keys()):
        raise ArchlabError(
            f"learning_rate_factors: none for {', '.join(sorted(untuned))}: tune all architectures of a plan, "
            "or none, so that they compare"
        )
    targets = {budget: _targets(ladder, budget) for budget in ladder.budgets}
    largest = max(max(sizes) for sizes in [*targets.values(), ladder.params] if sizes)
    shape = {name: getattr(ladder, name) for name in ("length", "aspect", "head_dim", "width_multiple")}
    shape["vocab_size"] = padded(vocab_size, ladder.vocab_multiple)
    shape["backbone"] = "tied-language-model" if ladder.tied else "language-model"
    known = {}
    for label, spec in architectures.items():
        known[label] = up_to(all_sizes(spec, **shape), largest, max(map(len, [*targets.values(), ladder.params])))
    runs: dict[str, list[LMRun]] = {label: [] for label in known}
    if ladder.tokens_per_param:
        planned = _by_ratio(ladder, matched_sizes(known, ladder.params), corpus)
    else:
        planned = chain.from_iterable(_group(ladder, matched_sizes(known, wanted), c, corpus) for c, wanted in targets.items())
    for run in planned:
        runs[run.label].append(run)
    plan = Plan(tuple(chain.from_iterable(runs.values())), {"archlab": version("archlab"), "ladder": ladder.to_dict()})
    plan.check()
    return plan


def named_specs(architectures: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Return specs by label, each read once to check it; without labels, equal architectures count once."""
    if not architectures:
        raise ArchlabError("no architecture: give at least one spec, as in transformer++")
    if isinstance(architectures, Mapping):
        for label, spec in architectures.items():
            architecture(spec)
            if not label.strip() or not label.isprintable():
                raise ArchlabError(f"architectures: label {label!r} of {spec}: give it a name that can be printed")
        return dict(architectures)
    values = {spec: architecture(spec) for spec in architectures}
    first = {value: spec for spec, value in reversed(values.items())}
    return {value.label: spec for spec, value in values.items() if first[value] == spec}


def _targets(ladder: Ladder, budget: float) -> Sequence[float]:
    """The sizes that a budget should have, in parameters; an ArchlabError says that the ladder leaves out all of them."""
    centre, least = central_params(budget), ladder.least_params or 0
    by_rule = [centre * ladder.spread ** (n - (ladder.sizes - 1) / 2) for n in range(ladder.sizes)]
    targets = ladder.params or [size for size in by_rule if size >= least]
    if not targets:
        raise ArchlabError(f"least_params={least:g}: the largest size of budget {budget:.3g} has {by_rule[-1]:.3g}: give less")
    return targets


def _group(ladder: Ladder, sizes: Mapping[str, Sequence[Size]], budget: float, corpus: Corpus | None) -> Iterator[LMRun]:
    """Yield the training runs of one budget, which all have the same batch."""
    costs = {size: _cost(ladder, size) for some in sizes.values() for size in some}
    fewest_steps = max(ladder.min_steps, math.ceil(1 / (2 * TOLERANCE)))  # whole steps then come near enough to the budget
    affordable = max(1, int(budget / max(costs.values()) / fewest_steps))
    by_rule = min(default_batch_size(central_params(budget), ladder.length), 1 << (affordable.bit_length() - 1))
    batch = ladder.batch_size or by_rule
    for label, some in sizes.items():
        for size in some:
            steps = _steps(ladder, label, size, costs[size], budget, batch)
            for seed in ladder.seeds:
                yield _run(ladder, label, size, costs[size], budget, batch, steps, corpus, seed)


def _by_ratio(ladder: Ladder, sizes: Mapping[str, Sequence[Size]], corpus: Corpus | None) -> Iterator[LMRun]:
    """Yield the training runs of every size at every ratio of tokens to parameters; all of a target have the same batch."""
    shortest = min(ladder.tokens_per_param)
    for target, *some in zip(sorted(ladder.params), *sizes.values(), strict=True):
        for ratio in ladder.tokens_per_param:
            sequences = [ratio * size.params / ladder.length for size in some]
            fewest = min(sequences) * (shortest / ratio if ladder.horizon_decay else 1)  # horizons share a batch
            affordable = max(1, int(fewest / ladder.min_steps))
            by_rule = min(default_batch_size(target, ladder.length), 1 << (affordable.bit_length() - 1))
            batch = ladder.batch_size or by_rule
            for label, size, number in zip(sizes, some, sequences, strict=True):
                cost = _cost(ladder, size)
                budget = float(max(1, round(number / batch)) * batch * cost)
                steps = _steps(ladder, label, size, cost, budget, batch)
                schedule: dict[str, Any] = {}
                if ladder.horizon_decay:
                    warmup = min(size.params_non_embedding / ladder.length, shortest * size.params / ladder.length / 4) / batch
                    schedule["warmup_steps"] = max(1, int(warmup))  # as many tokens as parameters, as OLMo-core has it
                    schedule["decay_steps"] = max(1, int(ladder.horizon_decay * steps))
                for seed in ladder.seeds:
                    yield replace(_run(ladder, label, size, cost, budget, batch, steps, corpus, seed), **schedule)


def _cost(ladder: Ladder, size: Size) -> int:
    """Training FLOPs of a sequence."""
    return training_flops(size.architecture, **size.shape, convention=ladder.convention)


def _steps(ladder: Ladder, label: str, size: Size, cost: int, budget: float, batch: int) -> int:
    steps = round(budget / cost / batch)
    what = f"{label} with {size.params:,} parameters"
    if steps < ladder.min_steps:
        raise ArchlabError(
            f"budget {budget:.3g} is too small for {what}: it takes {steps} steps of {batch} sequences, the least is "
            f"{ladder.min_steps}: give a larger budget, smaller sizes, a smaller batch or less min_steps"
        )
    if (off := abs(steps * cost * batch / budget - 1)) > TOLERANCE:
        raise ArchlabError(
            f"batch_size={batch}: {steps} whole steps of {what} miss budget {budget:.3g} by {off:.1%}, more than "
            f"{TOLERANCE:.0%}: give a smaller batch_size"
        )
    return steps


def _run(
    ladder: Ladder, label: str, size: Size, cost: int, budget: float, batch: int, steps: int, corpus: Corpus | None, seed: int
) -> LMRun:
    tokens = steps * batch * size.length
    run = LMRun(
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
        learning_rate=1.0,
        seed=seed,
        corpus=ladder.data,
        tokenizer=corpus.tokenizer if corpus else ladder.tokenizer or "bytes",
        corpus_hash=corpus.hash if corpus else None,
        vocab_size=size.vocab_size,
        vocab_multiple=ladder.vocab_multiple,
        backbone=size.backbone,
    )
    rate = ladder.rule(run)
    factor = ladder.learning_rate_factors.get(label, 1.0)
    return replace(run, learning_rate=rate if factor == 1 else float(f"{rate * factor:.3g}"))


def all_sizes(
    spec: str,
    *,
    vocab_size: int,
    length: int,
    aspect: float = Ladder.aspect,
    head_dim: int = Ladder.head_dim,
    width_multiple: int | None = None,
    backbone: LMBackbone = "language-model",
) -> Iterator[Size]:
    """Yield every size of a spec, from narrow to wide; widths grow by at most a sixteenth, or by the least multiple.

    The spec's repeating unit is repeated to the depth that belongs to the width; a size without more parameters than all
    narrower ones is left out. Knobs that the spec gives stay as they are; other layers with several heads get the number
    that ``head_dim`` gives. Refuses a spec that fits no width.
    """
    several = {name: knob for name, config in registry().items() if (knob := config.head_knob) and getattr(config, knob) > 1}
    written = architecture(spec)
    refused: ArchlabError | None = None
    largest = 0
    for dim in _widths(width_multiple):
        heads = heads_of(dim, head_dim, exact=width_multiple is not None)
        value = architecture(spec, layer_defaults={name: {knob: heads} for name, knob in several.items()})
        try:
            value.validate(dim)
        except ArchlabError as error:
            refused = error
            continue
        layers = max(len(written.layers), round(2 * dim / aspect / len(value.unit)) * len(value.unit))
        deep = replace(value, layers=value.unit * (layers // len(value.unit)))
        size = Size(deep, dim, vocab_size, length, backbone)
        if size.params > largest:
            largest = size.params
            yield size
    if not largest:
        raise ArchlabError(f"{spec} fits no width: {refused}")


def up_to(sizes: Iterable[Size], params: float, beyond: int = 1) -> list[Size]:
    """List the sizes of a spec up to so many parameters, and as many ``beyond`` that."""
    known: list[Size] = []
    larger = 0
    for size in sizes:
        known.append(size)
        larger += size.params > params
        if larger == beyond:
            break
    return known


def matched_sizes(known: Mapping[str, Sequence[Size]], targets: Iterable[float]) -> dict[str, list[Size]]:
    """Choose sizes near the targets in parameters, ascending and all different, for every architecture.

    ``known`` holds the sizes of every architecture, ascending. Those chosen for one target are near it and near each other:
    each is the nearest to a goal within a factor of two of the target, to which all architectures come near. Refuses a
    target without a size.
    """
    params = {label: [size.params for size in sizes] for label, sizes in known.items()}
    chosen: dict[str, list[int]] = {label: [] for label in known}
    for target in sorted(targets):
        first = {label: indices[-1] + 1 if indices else 0 for label, indices in chosen.items()}
        for label, numbers in params.items():
            if first[label] == len(numbers) or target > 2 * numbers[-1]:
                raise ArchlabError(f"{label}: no size near {target:.3g} parameters: the widest has {numbers[-1]:.3g}")
        goals = [target * 2 ** (n / 16) for n in range(-16, 17)]
        picks = [{label: _nearest(params[label], first[label], goal) for label in known} for goal in goals]
        best = min(picks, key=lambda pick: _mismatch([params[label][index] for label, index in pick.items()], target))
        for label, index in best.items():
            chosen[label].append(index)
    return {label: [known[label][index] for index in indices] for label, indices in chosen.items()}


def _nearest(params: Sequence[int], first: int, goal: float) -> int:
    return min(range(first, len(params)), key=lambda index: abs(math.log(params[index] / goal)))


def _mismatch(params: Sequence[int], target: float) -> float:
    """How far sizes lie apart, and from their target."""
    return math.log(max(params) / min(params)) + max(abs(math.log(n / target)) for n in params)


def _widths(multiple: int | None) -> Iterator[int]:
    dim, least = (NARROWEST, 4) if multiple is None else (multiple, multiple)
    while dim <= WIDEST:
        yield dim
        dim += max(1, 2 ** (int(math.log2(dim)) - 4) // least) * least


def heads_of(dim: int, head_dim: int, *, exact: bool) -> int:
    """Return the number of heads: of ``head_dim`` or half of it if that is asked for and divides the width, else those of even
    width whose width is nearest to it on a log scale."""
    for width in (head_dim, head_dim // 2):
        if exact and width and dim % width == 0:
            return dim // width
    fitting = [n for n in range(1, dim // 2 + 1) if dim % (2 * n) == 0]
    return min(fitting, key=lambda n: abs(math.log(dim / n / head_dim)))
