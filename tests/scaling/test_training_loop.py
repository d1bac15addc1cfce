"""One process: same bits whether interrupted or not, whatever is accumulated, recomputed or compiled the same loss."""

import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests import fake_fla
from tests.scaling.language_models import tiny_corpus, tiny_trial

from archlab.errors import ArchlabError
from archlab.machine import Ceilings
from archlab.scaling import checkpoints
from archlab.scaling import training_loop as loop
from archlab.scaling.checkpoints import Checkpoints
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.result import Interrupted, LMResult
from archlab.scaling.training_loop import train
from archlab.scaling.trial import LMTrial

RECIPE = LMRecipe(evaluations=2, validation_tokens=160)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setattr(loop, "ceilings", lambda device: Ceilings(1e11, 1e10))
    loop.gemm_peak.cache_clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def numbers(result: LMResult):
    return result.status, result.steps, result.loss, result.curve


def test_it_learns_and_records_what_it_took(corpus):
    trial = tiny_trial(corpus, steps=40)
    seen = []
    result = train(trial, corpus, on_progress=seen.append)
    guess = math.log(corpus.vocab_size)
    assert result.status == "finished"
    assert result.loss == result.curve[-1].validation_loss < result.curve[0].train_loss < guess + 1
    assert [p.step for p in result.curve if p.validation_loss is not None] == [20, 40]
    assert [p.step for p in result.curve] == list(range(1, 41))
    assert 0 < result.utilisation < 1
    assert result.utilisation == pytest.approx(trial.run.flops / result.seconds / 1e11)
    assert result.tokens_per_second == pytest.approx(trial.run.tokens / result.seconds)
    assert result.epochs == pytest.approx(trial.run.tokens / corpus.num_tokens("train"), rel=0.01)
    assert result.peak_bytes > 1e7
    assert LMResult.from_dict(result.to_dict()) == result


def interrupt(monkeypatch, at: int, number: int = signal.SIGTERM) -> None:
    """Send a signal to this process in the given step."""
    take_step = loop._Training._take_step

    def step_with_a_signal(self, step):
        if step == at:
            os.kill(os.getpid(), number)
        return take_step(self, step)

    monkeypatch.setattr(loop._Training, "_take_step", step_with_a_signal)


@pytest.mark.parametrize("spec", ["mh-attention(heads=2) swiglu", "hyena mamba"])
def test_an_interrupted_training_goes_on_bit_for_bit(corpus, tmp_path, monkeypatch, spec):
    trial = tiny_trial(corpus, spec=spec, steps=70)
    whole = train(trial, corpus)
    for at in (1, 51):
        with monkeypatch.context() as patch:
            interrupt(patch, at)
            with pytest.raises(Interrupted) as ended:
                train(trial, corpus, checkpoints=tmp_path / "run")
        assert (ended.value.status, [p.name for p in (tmp_path / "run").iterdir()]) == (143, [f"step-{at}"])
    assert numbers(train(trial, corpus, checkpoints=tmp_path / "run")) == numbers(whole)


def test_checkpoints_are_written_from_time_to_time_and_do_not_change_the_numbers(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_MOST_TIME", math.inf)
    trial = tiny_trial(corpus, steps=12)
    result = train(trial, corpus, checkpoints=tmp_path / "run", checkpoint_seconds=0)
    (place,) = (tmp_path / "run").iterdir()
    assert 1 <= int(place.name.removeprefix("step-")) <= 12
    assert numbers(result) == numbers(train(trial, corpus)) == numbers(train(trial, corpus, checkpoints=tmp_path / "run"))


def test_steps_go_on_while_a_checkpoint_is_written(corpus, tmp_path, monkeypatch):
    take_step, write, later = loop._Training._take_step, Checkpoints._write, threading.Event()

    def noted_step(self, step):
        if step == 9:
            later.set()
        return take_step(self, step)

    def slow_write(self, *arguments):
        assert later.wait(60), "a step waited until the checkpoint was written"
        write(self, *arguments)

    monkeypatch.setattr(loop._Training, "_take_step", noted_step)
    monkeypatch.setattr(Checkpoints, "_write", slow_write)
    trial = tiny_trial(corpus, steps=12)
    whole = train(trial, corpus, checkpoints=tmp_path / "run", checkpoint_seconds=0)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-1"]  # of the time when it was asked for
    monkeypatch.undo()
    assert numbers(train(trial, corpus, checkpoints=tmp_path / "run")) == numbers(whole)


KILLED = """
import math, os, signal, sys
from pathlib import Path
import torch
from tests.scaling.language_models import tiny_corpus, tiny_trial
from archlab.scaling import checkpoints
from archlab.scaling.training_loop import train

torch.set_num_threads(1)
checksums, written = checkpoints._checksums, []

def killing(folder, log):
    written.append(folder)
    if len(written) == 3:  # all files are there, but their checksums
        os.kill(os.getpid(), signal.SIGKILL)
    return checksums(folder, log)

checkpoints._checksums, checkpoints._MOST_TIME = killing, math.inf
corpus = tiny_corpus(Path(sys.argv[1]))
train(tiny_trial(corpus, steps=500), corpus, checkpoints=Path(sys.argv[2]), checkpoint_seconds=0)
"""


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path):
    corpus, (root, *_) = tiny_corpus(tmp_path), Path(__file__).parents[2:]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(tmp_path / "run")]
    assert subprocess.run(command, env=variables, timeout=240, check=False).returncode == -signal.SIGKILL
    unfinished, finished = sorted((path.name for path in (tmp_path / "run").iterdir()), reverse=True)
    assert (unfinished.startswith("unfinished-"), finished.startswith("step-")) == (True, True)
    trial = tiny_trial(corpus, steps=500)
    assert numbers(train(trial, corpus, checkpoints=tmp_path / "run")) == numbers(train(trial, corpus))


def test_a_checkpoint_that_was_never_finished_is_passed_over(corpus, tmp_path):
    trial = tiny_trial(corpus, steps=12)
    (tmp_path / "unfinished-3").mkdir()
    (tmp_path / "unfinished-3" / "log.json").write_text("{")
    assert numbers(train(trial, corpus, checkpoints=tmp_path)) == numbers(train(trial, corpus))


@pytest.fixture
def hears_ctrl_c():
    """As in the foreground: what a shell starts in the background ignores it, and so does the training."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_without_a_place_for_checkpoints_ends_with_its_own_status(corpus, monkeypatch):
    interrupt(monkeypatch, 3, signal.SIGINT)
    with pytest.raises(Interrupted, match="SIGINT") as ended:
        train(tiny_trial(corpus), corpus)
    assert ended.value.status == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_accumulation_and_recomputation_give_the_same_loss(corpus):
    whole = train(tiny_trial(corpus, RECIPE), corpus)
    for change in ({"micro_batch": 4}, {"recompute": True}):
        other = train(tiny_trial(corpus, replace(RECIPE, **change)), corpus)
        assert other.loss == pytest.approx(whole.loss, abs=1e-5)
        assert [p.train_loss for p in other.curve] == pytest.approx([p.train_loss for p in whole.curve], abs=1e-5)


def test_kernels_compute_again_what_is_recomputed(corpus, monkeypatch):
    given = fake_fla.install(monkeypatch)
    run = tiny_trial(corpus, RECIPE, spec="mamba-2 swiglu", steps=5)
    whole = train(run, corpus)
    assert not given
    fused = train(replace(run, recipe=replace(RECIPE, kernels="fla", recompute=True)), corpus)
    assert given.keys() == {"chunk_simple_gla"}
    assert fused.loss == pytest.approx(whole.loss, abs=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler trips over its own
def test_a_compiled_training_gives_the_same_loss(corpus):
    whole = train(tiny_trial(corpus, RECIPE, steps=5), corpus)
    compiled = train(tiny_trial(corpus, replace(RECIPE, compiled=True), steps=5), corpus)
    assert compiled.loss == pytest.approx(whole.loss, abs=1e-5)


def test_half_precision_is_near(corpus):
    whole = train(tiny_trial(corpus, RECIPE), corpus)
    half = train(tiny_trial(corpus, replace(RECIPE, precision="bf16")), corpus)
    assert half.loss != whole.loss
    assert half.loss == pytest.approx(whole.loss, abs=0.05)


def test_a_loss_that_is_not_a_number_ends_it_as_diverged(corpus, monkeypatch):
    take_step = loop._Training._take_step
    monkeypatch.setattr(loop._Training, "_take_step", lambda self, step: take_step(self, step) / (step != 7))
    result = train(tiny_trial(corpus), corpus)
    assert (result.status, result.loss, result.steps) == ("diverged", None, 7)
    assert result.reason == "the loss is not a number at step 7"


def test_a_training_that_stays_above_a_guess_is_given_up(corpus):
    result = train(tiny_trial(corpus, replace(RECIPE, grad_clip=0), steps=40, learning_rate=30.0), corpus)
    assert (result.status, result.loss) == ("diverged", None)
    assert result.steps < 40
    assert "uniform guess" in result.reason or "not a number" in result.reason


def test_padding_counts_as_guessed_too(corpus):
    """A short training of a padded vocabulary once was given up: it begins above a uniform guess of the tokens that there are."""
    trial = tiny_trial(corpus)
    run = replace(trial.run, vocab_size=1024, vocab_multiple=1024, backbone="tied-language-model")
    result = train(replace(trial, run=run), corpus)
    assert result.status == "finished"
    assert math.log(corpus.vocab_size) < result.curve[5].train_loss < math.log(1024)


# Trials


def test_the_key_holds_what_changes_the_loss_and_nothing_else(corpus):
    trial = tiny_trial(corpus)
    same = [{"label": "other"}, {"budget": 1e9}, {"convention": "6nd"}]
    other = [
        {"seed": 1},
        {"learning_rate": 1e-3},
        {"dim": 32},
        {"steps": 21},
        {"corpus_hash": "0"},
        {"spec": "mh-attention swiglu"},
        {"spec": "mh-attention(heads=2) experts(swiglu)"},
        {"spec": "mh-attention(heads=2) experts(mlp)"},
    ]
    assert {tiny_trial(corpus, **values).key for values in same} == {trial.key}
    keys = {tiny_trial(corpus, **values).key for values in other} | {LMTrial(trial.run, LMRecipe(beta2=0.9)).key, trial.key}
    assert len(keys) == len(other) + 2


def test_a_trial_comes_back_from_its_dictionary(corpus):
    trial = tiny_trial(corpus)
    assert LMTrial.from_dict(trial.to_dict()) == trial


def test_a_plan_for_another_corpus_is_refused(corpus):
    assert tiny_trial(corpus, corpus_hash=None).on(corpus).key == tiny_trial(corpus).key
    with pytest.raises(ArchlabError, match="corpus_hash"):
        tiny_trial(corpus, corpus_hash="0" * 64).on(corpus)


def test_reading_a_corpus_more_than_once_takes_a_plan_that_says_so(corpus):
    steps = corpus.num_tokens("train") // (6 * 16) + 100
    for epochs in (None, 0.5):
        with pytest.raises(ArchlabError, match=r"plan with repeat=True \(--repeat\) to read it 1\.0"):
            tiny_trial(corpus, steps=steps, epochs=epochs).on(corpus)
    assert tiny_trial(corpus, steps=steps, epochs=1.1).on(corpus).run.epochs > 1
