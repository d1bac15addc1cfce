"""From candidates to a decision: MAD scores, a shortlist, language models of it, scaling laws, and what follows.

The folder of a design study holds what each stage leaves for the next, so that every stage is a command of its own:

- ``study.yaml``: the candidates, for ``archlab run``;
- ``plan.yaml``: the ladder of the shortlist, for ``archlab scale run``;
- ``archlab.db``: every trial and every training run.

A file that is there is a decision that was taken: a second call goes on from it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from archlab.api import Candidates, run, search
from archlab.architectures import Architecture, architecture
from archlab.designs.correlation import Correlations, correlate
from archlab.designs.decision import Decision, Role, Shortlisted, Stage, shortlist
from archlab.errors import ArchlabError
from archlab.fields import Positive, Workers, checked
from archlab.files import is_yaml, write_whole
from archlab.format import count, duration
from archlab.jobs.events import Event, JobFinished, JobProgressed, JobReused, Listener
from archlab.jobs.executor import make_executor
from archlab.machine import available_cores
from archlab.mad.estimate import estimate
from archlab.mad.plan import make_plan, score_plan
from archlab.mad.protocol import Protocol, load_protocol
from archlab.mad.scores import Scores
from archlab.mad.store import TrialStore
from archlab.mad.study import read_study
from archlab.mad.train import train_together
from archlab.scaling import api as scaling
from archlab.scaling.estimate import plan_costs
from archlab.scaling.fits import Resampling
from archlab.scaling.ladder import Ladder, load_ladder
from archlab.scaling.study import open_study
from archlab.scaling.study_fit import StudyFit, fit_study
from archlab.scaling.training_plan import Plan
from archlab.searching.analysis import as_typed
from archlab.searching.costs import decode_memory
from archlab.searching.space import Space, load_space

FOR_MAD = 0.45
"""Fraction of the time for the first scores of all candidates."""
FOR_FRESH = 0.1
"""Fraction of the time for scores of the shortlist by fresh seeds."""
FOR_FITS = 0.05
"""Fraction of the time for fits and the page; language models have the rest."""
RESAMPLING = Resampling()
FRESH_SEEDS = (1, 2)
"""Added to the seed of the first scores."""
MOST_TRAINED = 8
"""Largest shortlist, the reference included."""
SAMPLED = 3
"""Candidates whose cost is measured, to foresee that of all."""


class TimeIsUpError(Exception):
    """The time of a stage is over; what is finished is in the store."""


@dataclass
class _Watch:
    """Notes what a stage computes, and ends it when its time is over."""

    until: float
    computed: int = 0
    reused: int = 0
    over: bool = False
    started: float = field(default_factory=time.monotonic)

    def __call__(self, event: Event) -> None:
        self.computed += isinstance(event, JobFinished)
        self.reused += isinstance(event, JobReused)
        if isinstance(event, JobFinished | JobProgressed) and time.monotonic() > self.until:
            self.over = True
            raise TimeIsUpError

    def stage(self, name: str, command: str, noun: str) -> Stage:
        """The stage that ends now."""
        jobs = count(self.computed, noun) + (f", {self.reused} from the store" if self.reused else "")
        return Stage(name=name, command=command, seconds=time.monotonic() - self.started, jobs=jobs, over=self.over)


@checked
def design(
    candidates: Candidates = (),
    *,
    space: str | os.PathLike[str] | None = None,
    reference: str = "transformer++",
    protocol: str | os.PathLike[str] = "quick",
    ladder: str = "quick",
    hours: Positive = 2.0,
    folder: str | os.PathLike[str] = "design",
    executor: str = "local",
    workers: Workers | None = None,
    listeners: Sequence[Listener] = (),
) -> Decision:
    """Score candidates, train language models of the best and of a reference, and say what follows.

    Args:
        candidates: catalogue names, specs or values, those to be tried first in front.
        space: further candidates: a space by name or path, as of :func:`archlab.search`. One that is too large for the time is
            searched by the proposer `guided` for high scores and small states.
        reference: the architecture that a candidate has to beat.
        protocol: of the MAD scores, by name or path; its first seed serves for all candidates, fresh ones for the shortlist.
        ladder: of the language models, by name or path.
        hours: wall time of this call. It is divided among the stages; what does not fit is left out and named, and a stage
            whose time is over ends. A later call goes on with what is left.
        folder: where the stages keep their files; made if it is not there.
        executor: where trials and training runs are computed.
        workers: number of workers; by default one a core.
        listeners: called with every event of the stages.

    Raises:
        ArchlabError: a candidate, protocol or ladder is wrong, the folder belongs to other candidates, or the time does not
            suffice for two architectures; nothing has been computed. Or it was over before a candidate had a score.
        KeyboardInterrupt: after Ctrl-C; what is finished is in the store, and the same call goes on.
    """
    began, total = time.monotonic(), 3600 * hours
    with make_executor(train_together, workers, name=executor, submits=space is None) as workplace:
        num_workers = workplace.num_workers or available_cores()
    files = _Files(Path(folder))
    chosen = load_protocol(os.fspath(protocol))
    loaded = load_ladder(ladder)
    options: dict[str, Any] = {"executor": executor, "workers": workers}
    first = chosen.with_seeds(chosen.seeds[:1])
    listed = [candidates] if isinstance(candidates, str | Architecture) else candidates
    members = None if space is None else load_space(os.fspath(space), first)
    given = _named(listed, members, reference, chosen)
    label = next(iter(given))
    price = _Price(given, first, loaded, num_workers)
    watch = _Watch(began + FOR_MAD * total)
    tried = files.candidates(given, members)
    if not tried:
        tried = price.affordable(total)
        if space is not None and len(tried) < len(given):
            number = max(1, len(tried) - 1 - len(listed))
            search_first = dict(islice(given.items(), 1 + len(listed)))
            tried = _searched(search_first, os.fspath(space), number, first, files, [*listeners, watch], options)
        files.write_study(tried, first, protocol)
    large = members is not None and not members.size.exact
    all_of_them = 1 + len(listed) + members.size.number if members is not None and large else len(given)
    not_tried = [_left_out(all_of_them - len(tried), "candidate", f"{duration(total)} suffice for {len(tried)}")]

    scores = _scored(tried, first, files.store, watch, listeners, options)
    stages = [watch.stage("scores of all candidates", f"archlab run {files.study} --store {files.store}", "trial")]

    if watch.over and not any(one.score is not None for one in scores.architectures if one.label != label):
        raise ArchlabError(f"hours={hours:g}: over before a candidate had a score: the same with more hours goes on from here")
    until = began + (1 - FOR_FITS) * total
    picked = files.planned(tried) or _pick(scores, label, tried, price, until - time.monotonic() - FOR_FRESH * total)
    plan = files.plan_for(picked, loaded, chosen)
    watch = _Watch(time.monotonic() + FOR_FRESH * total)
    fresh_seeds = [first.seeds[0] + more for more in FRESH_SEEDS]
    fresh = _scored(picked, first.with_seeds(fresh_seeds), files.store, watch, listeners, options)
    again = f"{stages[0].command} --seeds {','.join(map(str, fresh_seeds))}"
    stages.append(watch.stage("scores of the shortlist by fresh seeds", again, "trial"))

    watch = _Watch(until)
    with suppress(TimeIsUpError):
        scaling.train(plan, store=files.store, by_architecture=True, listeners=[*listeners, watch], **options)
    stages.append(watch.stage("language models", f"archlab scale run {files.plan} --store {files.store}", "training run"))
    not_tried += [f"{stage.name}: the time was over; `{stage.command}` does the rest" for stage in stages if stage.over]
    not_tried.append(_left_out(len(tried) - len(picked), "candidate", "not trained as a language model: lower scores"))
    not_tried.append(
        "other learning rates than the ladder's rule has; `archlab scale tune` brackets the best of each architecture"
    )
    return _decide(files, scores, fresh if fresh.complete else None, picked, reference, stages, [x for x in not_tried if x])


def _named(
    candidates: Sequence[str | Architecture], space: Space | None, reference: str, protocol: Protocol
) -> dict[str, Architecture]:
    """The reference, the candidates and those of a space, or some of them if it is large, by their labels, each once."""
    more: list[Architecture] = []
    if space is not None and space.size.exact:
        more = [member.architecture for member in space.members]
    elif space is not None:
        rng = np.random.default_rng(0)
        more = [space.sample(rng).architecture for _ in range(SAMPLED)]
    found: dict[Architecture, str] = {}
    for one in (reference, *candidates, *more):
        value = one if isinstance(one, Architecture) else architecture(one, layer_defaults=protocol.layer_defaults)
        found.setdefault(value, value.name or str(as_typed(value, protocol.layer_defaults)))
    if len(found) < 2:
        raise ArchlabError(f"candidates: there is none beside the reference {reference}: give at least one")
    return _labelled(found)


def _labelled(found: Mapping[Architecture, str]) -> dict[str, Architecture]:
    """Architectures by their labels, which they bear as names."""
    return {label: value.named(label) for value, label in found.items()}


def _searched(
    first: Mapping[str, Architecture],
    space: str,
    number: int,
    protocol: Protocol,
    files: _Files,
    listeners: Sequence[Listener],
    options: Mapping[str, Any],
) -> dict[str, Architecture]:
    """The reference and the listed candidates, and those that a search of a large space evaluates."""
    files.folder.mkdir(parents=True, exist_ok=True)
    with suppress(TimeIsUpError):
        search(space, protocol, evaluations=number, store=files.store, listeners=listeners, **options)
    with TrialStore(files.store, create=False) as opened:
        tried = [record.job.architecture for record in opened.outcomes(unreadable={})]
    values = {value: label for label, value in first.items()}
    return _labelled({value: str(as_typed(value, protocol.layer_defaults)) for value in tried} | values)


@dataclass
class _Price:
    """The time that architectures take, foreseen from a few of them."""

    candidates: Mapping[str, Architecture]
    protocol: Protocol
    ladder: Ladder
    workers: int

    @property
    def sample(self) -> list[Architecture]:
        """The reference, and candidates from the whole list."""
        values = [*self.candidates.values()]
        return [values[i * (len(values) - 1) // (SAMPLED - 1)] for i in range(SAMPLED)] if len(values) > SAMPLED else values

    @cached_property
    def of_scores(self) -> float:
        """Seconds for the scores of an architecture, with one seed."""
        trials = make_plan(self.protocol, self.sample).trials()
        return estimate(trials, self.workers).seconds / len(self.sample)

    @cached_property
    def of_ladder(self) -> float:
        """Seconds for the language models of an architecture."""
        specs = _as_typed({value.label: value for value in self.sample}, self.protocol)
        costs = plan_costs(scaling.plan(specs, self.ladder).runs, self.ladder)
        return sum(cost.seconds for cost in costs) / len(specs) / self.workers

    def affordable(self, total: float) -> dict[str, Architecture]:
        """The reference and as many candidates as there is time for; refuses a time that does not suffice for one."""
        number = int(FOR_MAD * total / self.of_scores)
        least = 2 * max(self.of_scores / FOR_MAD, self.of_ladder / (1 - FOR_MAD - FOR_FRESH - FOR_FITS))
        if number < 2 or least > total:
            raise ArchlabError(
                f"hours={total / 3600:g}: scores and language models of two architectures take about {duration(least)} here: "
                "give more, or a smaller protocol or ladder"
            )
        return dict(islice(self.candidates.items(), number))


@dataclass(frozen=True)
class _Files:
    """The files of a study."""

    folder: Path

    @property
    def study(self) -> Path:
        """The candidates."""
        return self.folder / "study.yaml"

    @property
    def plan(self) -> Path:
        """The ladder of the shortlist."""
        return self.folder / "plan.yaml"

    @property
    def store(self) -> Path:
        """Trials and training runs."""
        return self.folder / "archlab.db"

    def candidates(self, given: Mapping[str, Architecture], space: Space | None) -> dict[str, Architecture]:
        """The candidates of an earlier call, if there was one; refuses a folder of others."""
        if not self.study.exists():
            return {}
        earlier = read_study(self.study)[1]
        for one in earlier:
            if one not in given.values() and (space is None or not space.admits(one)):
                raise ArchlabError(f"folder {self.folder}: holds a study of other candidates ({one.label}): give another folder")
        return {one.label: one for one in earlier}

    def planned(self, tried: Mapping[str, Architecture]) -> dict[str, Architecture]:
        """The shortlist of an earlier call, if it came so far."""
        labels = dict.fromkeys(run.label for run in Plan.load(self.plan).runs) if self.plan.exists() else ()
        return {label: tried[label] for label in labels}

    def write_study(self, tried: Mapping[str, Architecture], protocol: Protocol, file: str | os.PathLike[str]) -> None:
        """Write the candidates down, in a form that `archlab run` reads."""
        name = os.fspath(file)
        named = str(Path(name).absolute()) if is_yaml(name) else name
        text = yaml.safe_dump(
            {"protocol": named, "seeds": list(protocol.seeds), "architectures": _as_typed(tried, protocol)},
            sort_keys=False,
        )
        if not self.study.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.study, text, "study")

    def plan_for(self, picked: Mapping[str, Architecture], ladder: Ladder, protocol: Protocol) -> Path:
        """The file of the plan, written unless it is there."""
        if not self.plan.exists():
            scaling.plan(_as_typed(picked, protocol), ladder).save(self.plan)
        return self.plan


def _as_typed(architectures: Mapping[str, Architecture], protocol: Protocol) -> dict[str, str]:
    """Specs by label, without the knobs that the protocol sets for its own width."""
    return {label: str(as_typed(value, protocol.layer_defaults)) for label, value in architectures.items()}


def _scored(
    candidates: Mapping[str, Architecture],
    protocol: Protocol,
    store: Path,
    watch: _Watch,
    listeners: Sequence[Listener],
    options: Mapping[str, Any],
) -> Scores:
    """Compute the trials that the store lacks, as far as there is time, and score what there is."""
    specs = [*candidates.values()]
    try:
        return run(specs, protocol, store=store, listeners=[*listeners, watch], **options)
    except TimeIsUpError:
        with TrialStore(store, create=False) as opened:
            return score_plan(opened, make_plan(protocol, specs), {})


def _pick(
    scores: Scores, reference: str, tried: Mapping[str, Architecture], price: _Price, seconds: float
) -> dict[str, Architecture]:
    """The shortlist that there is time for: never less than the reference and one candidate."""
    number = max(2, min(MOST_TRAINED, int(seconds / price.of_ladder)))
    return {one.label: tried[one.label] for one, _ in shortlist(scores, reference, number)}


def _decide(
    files: _Files,
    scores: Scores,
    fresh: Scores | None,
    picked: Mapping[str, Architecture],
    reference: str,
    stages: Sequence[Stage],
    not_tried: Sequence[str],
) -> Decision:
    """The decision that the store allows."""
    roles: dict[str, Role] = {one.label: role for one, role in shortlist(scores, reference, len(picked))}
    fit: StudyFit | str
    correlation: Correlations | str
    rows: list[dict[str, Any]] = []
    try:
        study = open_study(files.store)
        rows = [dict(model.row()) for table in study.tables.values() for model in table.models]
        fit = fit_study(study, RESAMPLING, reference=reference)
    except ArchlabError as error:
        fit = str(error)
    try:
        correlation = correlate(fresh or scores, files.store)
    except ArchlabError as error:
        correlation = str(error)
    return Decision(
        space=f"{len(scores.architectures)} architectures of {files.study}",
        reference=reference,
        scores=scores,
        fresh=fresh,
        shortlist=tuple(_shortlisted(label, value, roles.get(label, "best score"), rows) for label, value in picked.items()),
        fit=fit,
        correlation=correlation,
        stages=tuple(stages),
        not_tried=tuple(not_tried),
    )


def _shortlisted(label: str, value: Architecture, role: Role, rows: Sequence[Mapping[str, Any]]) -> Shortlisted:
    own = [row for row in rows if row["architecture"] == label]
    largest = max((row["budget"] for row in own), default=None)
    best = min((row for row in own if row["budget"] == largest), key=lambda row: row["loss"], default=None)
    return Shortlisted(
        label=label,
        spec=str(value),
        role=role,
        decode_bytes=None if best is None else decode_memory(value, int(best["dim"])),
        params=None if best is None else int(best["params"]),
        loss=None if best is None else float(best["loss"]),
    )


def _left_out(number: int, noun: str, why: str) -> str:
    return f"{count(number, noun)}: {why}" if number else ""
