"""Checkpoints are checked before they are read: damage is named, and nothing that a file names is run."""

import errno
import io
import os
import pickle
import signal
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch
from tests.scaling.language_models import tiny_corpus, tiny_trial

from archlab.errors import ArchlabError
from archlab.scaling import checkpoints as module
from archlab.scaling import training_loop as train_module
from archlab.scaling.checkpoints import Checkpoints, _Planner, _Reader
from archlab.scaling.processes import Processes
from archlab.scaling.result import Interrupted
from archlab.scaling.training_loop import train


@pytest.fixture
def corpus(tmp_path):
    return tiny_corpus(tmp_path)


@pytest.fixture
def interrupted(corpus, tmp_path, monkeypatch):
    """The folder of a training run that was ended at step 8."""
    take_step = train_module._Training._take_step

    def step_with_a_signal(self, step):
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return take_step(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(train_module._Training, "_take_step", step_with_a_signal)
        with pytest.raises(Interrupted):
            train(tiny_trial(corpus), corpus, checkpoints=tmp_path / "run")
    return tmp_path / "run"


def test_a_checkpoint_is_taken_up_and_is_for_its_user_alone(corpus, interrupted):
    assert interrupted.stat().st_mode & 0o777 == 0o700
    assert train(tiny_trial(corpus), corpus, checkpoints=interrupted).loss == train(tiny_trial(corpus), corpus).loss


def test_a_checkpoint_is_due_when_its_time_is_a_small_share_and_the_last_one_is_on_the_disk(monkeypatch, tmp_path):
    now = 100.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    with Checkpoints(tmp_path, Processes(torch.device("cpu"))) as checkpoints:
        now = 109.0
        assert not checkpoints.is_due(10)
        now = 111.0
        assert checkpoints.is_due(10)
        checkpoints._cost = 0.3  # 15 seconds' share
        assert not checkpoints.is_due(10)
        now = 116.0
        assert checkpoints.is_due(10)
        checkpoints._written = Future()
        assert not checkpoints.is_due(10)
        checkpoints._written.set_result(None)
        assert checkpoints.is_due(10)


def test_a_checkpoint_that_could_not_be_written_fails_the_training(corpus, tmp_path, monkeypatch):
    def full(folder, log):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_checksums", full)
    with pytest.raises(OSError, match="No space left"):
        train(tiny_trial(corpus), corpus, checkpoints=tmp_path / "run", checkpoint_seconds=0)


def spoil(place, name):
    """Change a file of a checkpoint, remove it, or flip a digit of a loss in its log."""
    path = place / name.removeprefix("no ").removeprefix("digit of ")
    if name.startswith("no "):
        path.unlink()
    elif name.startswith("digit of "):
        text = path.read_text()
        at = text.index(".", text.index('"curve"')) + 2
        path.write_text(text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :])
    else:
        path.write_bytes((path.read_bytes() if path.exists() else b"")[:-5] + b"xxxxx")


@pytest.mark.parametrize("name", [".metadata", "no __0_0.distcp", "log.json", "digit of log.json", "no log.json", "another"])
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_training_begins_again(corpus, interrupted, capsys, name):
    spoil(interrupted / "step-8", name)
    (interrupted / "step-of-another-kind").mkdir()
    objective, optimizer = object(), object()  # not looked at
    assert Checkpoints(interrupted, Processes(torch.device("cpu"))).restore(objective, optimizer) is None
    line = capsys.readouterr().err
    assert line.startswith(f"checkpoint {interrupted / 'step-8'}: it is damaged (")
    assert line.endswith("): set aside as damaged-step-8, begun again\n")
    assert line.count("\n") == 1
    assert (interrupted / "damaged-step-8").is_dir()


def test_a_training_whose_checkpoint_is_damaged_ends_as_if_it_had_none(corpus, interrupted):
    spoil(interrupted / "step-8", "__0_0.distcp")
    assert train(tiny_trial(corpus), corpus, checkpoints=interrupted).loss == train(tiny_trial(corpus), corpus).loss


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users on this system")
def test_a_folder_that_others_can_write_to_is_refused(corpus, interrupted):
    interrupted.chmod(0o777)
    with pytest.raises(ArchlabError, match="can be written by others"):
        train(tiny_trial(corpus), corpus, checkpoints=interrupted)


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_the_metadata_runs_nothing(interrupted, tmp_path):
    place = interrupted / "step-8"
    (place / ".metadata").write_bytes(pickle.dumps(Attack(tmp_path / "attacked")))
    with pytest.raises(ArchlabError, match=r"metadata names (posix|nt)\.mkdir"):
        _Reader(place).read_metadata()
    assert not (tmp_path / "attacked").exists()


def test_values_that_are_no_tensors_run_nothing(tmp_path):
    stream = io.BytesIO()
    torch.save(Attack(tmp_path / "attacked"), stream)
    stream.seek(0)
    item = SimpleNamespace(dest_index=SimpleNamespace(fqn="optimizer.state"))
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights.only"):
        _Planner().load_bytes(item, stream)
    assert not (tmp_path / "attacked").exists()
