"""Trainings that run together give what they give alone, however their steps run."""

import math
import shutil
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests import fake_fla
from tests.mad.trials import COPYING, MEMORY, RECALL, train, trial

from archlab import isolation
from archlab.mad import programs
from archlab.mad import train as train_module
from archlab.mad.learner import Examples, Learner, split_tensors
from archlab.mad.programs import Eager, Overlapped, Stacked, choose_program, undone
from archlab.mad.train import make_learner, train_together

SPECS = [
    "mh-attention(heads=2) swiglu",
    "attention mlp",
    "hyena 1*mamba",
    "gated-deltanet(heads=2) swiglu",
    "parallel(mlp, hyena) moe(num=4)",
]


def learner(value, device="cpu") -> Learner:
    data = split_tensors(value.setting, "train", value.setting.num_train_examples, value.seed, device)
    return make_learner(value, Examples.of(*data))


def together(values, thresholds=None):
    """Results in the order of the trials, and the order in which they came."""
    found = dict(train_together(values, lambda *_: None, thresholds or [{}] * len(values)))
    return [found[place] for place in range(len(values))], list(found)


def assert_same(found, expected):
    assert (found.status, found.steps, found.solved_step, found.selected_step) == (
        expected.status,
        expected.steps,
        expected.solved_step,
        expected.selected_step,
    )
    for mine, alone in zip(found.curve, expected.curve, strict=True):
        assert mine.train_loss == pytest.approx(alone.train_loss, rel=1e-4)
        assert mine.metrics.loss == pytest.approx(alone.metrics.loss, rel=1e-4)
    assert found.test.loss == pytest.approx(expected.test.loss, rel=1e-4)
    assert found.score == pytest.approx(expected.score, abs=0.02)


@pytest.fixture(autouse=True)
def nothing_is_known_to_be_fastest(monkeypatch):
    monkeypatch.setattr(programs, "_fastest", {})


@pytest.fixture
def stacked(monkeypatch):
    monkeypatch.setattr(programs, "_seconds", lambda program, _: 0.0 if isinstance(program, Stacked) else 1.0)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("task", [COPYING, RECALL], ids=["copying", "recall"])
def test_stacked_trainings_give_what_they_give_alone(stacked, spec, task):
    grid = [(0, 5e-3, 0.1), (0, 1e-3, 0.0), (3, 5e-3, 0.1)]
    values = [trial(spec, task, seed=seed, learning_rate=lr, weight_decay=wd) for seed, lr, wd in grid]
    results, _ = together(values)
    for value, result in zip(values, results, strict=True):
        assert result.program == "stacked, 3 together"
        assert_same(result, train(value))


def test_who_ends_early_leaves_the_others_as_they_are(stacked):
    recipe = {"steps": 60, "batch_size": 32, "evaluations": 6, "stop_accuracy": 0.6, "checkpoint": "best"}
    rates = (5e-3, 1e30, 1e-4, 2e-2)
    values = [trial("mh-attention(heads=2) swiglu", MEMORY, learning_rate=rate, **recipe) for rate in rates]
    alone = [train(value) for value in values]
    hurdle = {20: alone[2].curve[1].metrics.loss - 1e-3}
    alone[2] = train(values[2], thresholds=hurdle)
    results, order = together(values, [{}, {}, hurdle, {}])
    assert [result.status for result in alone] == ["finished", "diverged", "dropped", "finished"]
    assert order[0] == 1
    for result, expected in zip(results, alone, strict=True):
        assert_same(result, expected)


def test_the_faster_of_two_ways_is_taken(monkeypatch):
    values = [trial(seed=seed) for seed in (0, 1)]
    for slow, description in ((Eager, "stacked, 2 together"), (Stacked, "eager")):
        monkeypatch.setattr(programs, "_seconds", lambda program, _, slow=slow: float(isinstance(program, slow)))
        programs._fastest.clear()
        assert choose_program([learner(value) for value in values]).description == description


def test_choosing_leaves_the_learners_as_they_were():
    learners = [learner(trial(seed=seed)) for seed in (0, 1)]
    before = [{name: p.clone() for name, p in one.model.state_dict().items()} for one in learners]
    choose_program(learners)
    for one, state in zip(learners, before, strict=True):
        for name, parameter in one.model.state_dict().items():
            assert torch.equal(parameter, state[name])
        for state in one.optimizer.state.values():
            assert all(tensor.count_nonzero() == 0 for tensor in state.values())


def test_steps_that_are_undone_leave_a_training_under_way_as_it_was():
    first, second = learner(trial()), learner(trial())
    rows = torch.arange(16)
    for one in (first, second):
        Eager([one]).step([rows])
    with undone([first]):
        Eager([first]).step([rows + 16])
    for one in (first, second):
        Eager([one]).step([rows + 32])
    for name, parameter in first.model.state_dict().items():
        assert torch.equal(parameter, second.model.state_dict()[name]), name


def test_what_cannot_be_stacked_runs_one_after_the_other_and_says_why(stacked, monkeypatch):
    def refuse(self, batches):
        raise RuntimeError("vmap: no\nmore")

    monkeypatch.setattr(Stacked, "step", refuse)
    values = [trial(seed=seed) for seed in (0, 1)]
    results, _ = together(values)
    assert {result.program for result in results} <= {"eager", "eager: cannot be stacked: vmap: no"}
    for value, result in zip(values, results, strict=True):
        assert_same(result, train(value))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU takes g++")
@pytest.mark.filterwarnings("ignore")  # what the compiler's own modules warn of
@pytest.mark.parametrize("spec", ["mh-attention(heads=2) swiglu", "mamba-swiglu"])
def test_a_compiled_training_gives_what_the_eager_one_gives(spec):
    compiled = train(trial(spec, RECALL, compiled=True))
    assert compiled.program == "compiled"
    assert_same(compiled, train(trial(spec, RECALL)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_by_kernels_gives_what_operations_give_and_names_them(monkeypatch, precision):
    fake_fla.install(monkeypatch)
    fused = train(trial("mamba-2 swiglu", RECALL, kernels="fla", precision=precision))
    assert fused.program == "eager, fla: chunk_simple_gla"
    plain = train(trial("mamba-2 swiglu", RECALL, precision=precision))
    assert plain.program == "eager"
    assert fused.curve[-1].train_loss == pytest.approx(plain.curve[-1].train_loss, abs=1e-5 if precision == "fp32" else 1e-2)


def test_only_trials_that_are_alike_are_trained_together():
    with pytest.raises(ValueError, match="alike"):
        list(train_together([trial(), trial(steps=7)], lambda *_: None, [{}, {}]))


def test_progress_names_the_place_of_each(stacked):
    heard = []
    list(train_together([trial(seed=0), trial(seed=1)], lambda place, p: heard.append((place, p.step)), [{}, {}]))
    assert heard == [(0, 2), (1, 2), (0, 4), (1, 4), (0, 6), (1, 6)]


class FakeGraphs:
    """What programs need of ``torch.cuda``, on a CPU: captures run the step, and fail as PyTorch's do."""

    def __init__(self, monkeypatch, fails=False):
        self.fails, self.replayed, self.alive, self.streams = fails, [], 0, ["current"]
        for name in ("graph_pool_handle", "CUDAGraph", "Stream", "stream", "graph", "current_stream", "synchronize"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(isolation, "_spoilt", [])

    def graph_pool_handle(self):
        return "pool"

    def synchronize(self, *_):
        pass

    def CUDAGraph(self):  # noqa: N802 - PyTorch's name
        return SimpleNamespace(replay=lambda: self.replayed.append(None))

    def Stream(self, _=None):  # noqa: N802 - PyTorch's name
        return SimpleNamespace(wait_stream=lambda _: None)

    def current_stream(self, _=None):
        return self.streams[-1] if self.streams[-1] != "current" else SimpleNamespace(wait_stream=lambda _: None)

    @contextmanager
    def stream(self, stream):
        depth = len(self.streams)
        self.streams.append(stream)
        try:
            yield
        finally:
            del self.streams[depth:]

    @contextmanager
    def graph(self, graph, pool, stream):
        self.streams.append(stream)  # as PyTorch does, which leaves it there when the end of a capture raises
        try:
            yield
        finally:
            if self.fails:
                try:
                    raise RuntimeError("the cause: a wait")
                except RuntimeError:
                    raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904 - as there
            self.streams.pop()


def capture(learners, program=None):
    return programs._capture(program or Eager(learners), learners)


def test_a_smaller_last_batch_is_a_graph_of_its_own(monkeypatch):
    graphs = FakeGraphs(monkeypatch)
    (one,) = learners = [learner(trial(batch_size=24))]
    assert len(one.examples.inputs) % 24
    program = capture(learners)
    for size in (24, len(one.examples.inputs) % 24):
        program.step([torch.arange(size)])
    assert (program.description, len(graphs.replayed)) == ("captured, eager", 2)


def test_a_capture_that_fails_leaves_nothing_behind_and_names_the_cause(monkeypatch):
    graphs = FakeGraphs(monkeypatch, fails=True)
    learners = [learner(trial(seed=seed)) for seed in (0, 1)]
    for program in (Eager(learners), Stacked(learners)):
        isolation._spoilt.clear()
        found = capture(learners, program)
        assert found is program
        assert found.description.endswith("cannot be captured: the cause: a wait")
        assert graphs.streams == ["current"]
        parameters = [*getattr(program, "parameters", {}).values(), *(p for one in learners for p in one.model.parameters())]
        assert all(parameter.grad is None for parameter in parameters)


def test_nothing_is_captured_after_a_failure_and_the_process_serves_no_other_job(monkeypatch):
    graphs = FakeGraphs(monkeypatch, fails=True)
    capture([learner(trial())])
    graphs.fails = False
    assert "not captured" in capture([learner(trial())]).description
    assert isolation.spoilt() == "the capture of a CUDA graph failed"


def test_those_that_go_on_keep_their_graphs(monkeypatch):
    FakeGraphs(monkeypatch)
    learners = [learner(trial(seed=seed)) for seed in (0, 1, 2)]
    together = Overlapped([capture([one]) for one in learners])
    kept = together.keep([0, 2])
    assert kept.programs == [together.programs[0], together.programs[2]]
    stack = capture(learners, Stacked(learners))
    left = stack.keep([1, 2])
    assert stack.graphs == {}  # their memory is free before others are captured
    assert left.description == "captured, stacked, 2 together"
    assert left.keep([1]).description == "captured, eager"


def test_all_captures_of_a_learner_use_one_stream(monkeypatch):
    FakeGraphs(monkeypatch)
    one = learner(trial())
    assert one.capturing_stream() is one.capturing_stream()


def test_the_way_is_chosen_once_for_a_shape(monkeypatch):
    timed = []
    monkeypatch.setattr(programs, "_seconds", lambda program, _: timed.append(program) or len(timed))
    for _ in range(2):
        choose_program([learner(trial(seed=seed)) for seed in (0, 1)])
    assert len(timed) == 2


@pytest.mark.gpu
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_captured_step_equals_the_eager_step(spec, precision):
    value = replace(trial(spec, precision=precision), device="cuda")
    rows = torch.arange(16, device="cuda")
    eager, captured = learner(value, "cuda"), learner(value, "cuda")
    program = choose_program([captured])
    assert program.description == "captured, eager"
    for _ in range(3):
        torch.testing.assert_close(program.step([rows]), Eager([eager]).step([rows]), rtol=1e-4, atol=1e-5)
    for name, parameter in captured.model.state_dict().items():
        torch.testing.assert_close(parameter, eager.model.state_dict()[name], rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("maker", ["_overlapped", "_stacked"])
def test_trainings_together_on_a_gpu_give_what_they_give_alone(monkeypatch, maker):
    monkeypatch.setattr(train_module, "choose_program", getattr(programs, maker))
    values = [replace(trial(learning_rate=rate), device="cuda") for rate in (5e-3, 1e-3)]
    for value, result in zip(values, together(values)[0], strict=True):
        assert "captured" in result.program
        assert_same(result, train(value))


@pytest.mark.gpu
def test_a_step_that_waits_for_the_device_falls_back_with_the_reason(monkeypatch):
    forward = programs.Learner.update

    def waiting(self):
        assert math.isfinite(float(next(self.model.parameters()).sum()))
        forward(self)

    monkeypatch.setattr(programs.Learner, "update", waiting)
    result = train(replace(trial(), device="cuda"))
    assert result.status == "finished"
    assert "cannot be captured" in result.program
