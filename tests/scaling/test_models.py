"""Weights of finished training runs are kept, whole or not at all, and give the loss that was stored."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.scaling.language_models import tiny_corpus, tiny_trial
from tests.scaling.synthetic_ladders import result as made_up
from tests.scaling.test_processes import ROOT

import archlab
from archlab.errors import ArchlabError
from archlab.scaling import models
from archlab.scaling.models import load_model
from archlab.scaling.processes import Processes
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.result import LMResult
from archlab.scaling.store import StudyStore
from archlab.scaling.training_loop import train
from archlab.scaling.trial import LMTrial
from archlab.store import kept
from archlab.store.kept import beside, rekey_models


def keep(folder: Path, **values) -> tuple[LMTrial, LMResult]:
    """Train a tiny model whose weights are kept beside the store ``a.db``."""
    corpus = tiny_corpus(folder)
    trial = tiny_trial(corpus, **values)
    return trial, train(trial, corpus, models=beside(folder / "a.db", "models"))


def independent_loss(folder: Path, corpus_folder: Path) -> float:
    """The loss of a kept model on the sequences that its recipe asks for, from its files alone."""
    trial = json.loads((folder / "trial.json").read_text())["trial"]
    run = trial["run"]
    model = archlab.architecture(run["spec"]).build(vocab_size=run["vocab_size"], max_length=run["length"], dim=run["dim"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    tokens = np.fromfile(corpus_folder / "validation.bin", json.loads((corpus_folder / "manifest.json").read_text())["dtype"])
    number, limit = (len(tokens) - 1) // run["length"], trial["recipe"]["validation_tokens"] // run["length"]
    first = (np.arange(min(number, limit)) * max(1.0, number / limit)).astype(int) * run["length"]
    rows = torch.from_numpy(tokens[first[:, None] + np.arange(run["length"] + 1)].astype(np.int64))
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(model(rows[:, :-1]).double().mT, rows[:, 1:]).item()


@pytest.mark.parametrize("spec", ["mh-attention(heads=2) swiglu", "mamba swiglu", "hyena experts(swiglu, num=3)"])
def test_the_stored_loss_follows_from_the_kept_weights(tmp_path: Path, spec: str):
    trial, result = keep(tmp_path, spec=spec)
    assert result.not_kept == ""
    folder = beside(tmp_path / "a.db", "models") / trial.key
    assert independent_loss(folder, tiny_corpus(tmp_path).folder) == pytest.approx(result.loss, abs=1e-6)
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "trial.json"}
    loaded = load_model(trial.key[:6], tmp_path / "a.db")
    assert (loaded.trial, loaded.result, loaded.key) == (trial, result, trial.key)
    assert loaded.tokenizer.decode([3, 4]) == " !"


def test_keeping_changes_neither_key_nor_result(tmp_path: Path):
    corpus = tiny_corpus(tmp_path)
    trial, kept = keep(tmp_path)
    again = tiny_trial(corpus)
    plain = train(again, corpus)
    assert (again.key, plain.loss, plain.curve) == (trial.key, kept.loss, kept.curve)


def test_a_model_that_diverged_is_not_kept(tmp_path: Path):
    _, result = keep(tmp_path, learning_rate=1e6)
    assert (result.status, result.not_kept) == ("diverged", "")
    assert not beside(tmp_path / "a.db", "models").exists()


@pytest.mark.parametrize("broken", ["save_file", "_sync"])
def test_a_full_disk_is_recorded_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kept, broken, full)
    _, result = keep(tmp_path)
    assert "No space left on device" in result.not_kept
    assert result.loss == train(tiny_trial(tiny_corpus(tmp_path)), tiny_corpus(tmp_path)).loss
    assert list(beside(tmp_path / "a.db", "models").iterdir()) == []


def test_a_folder_that_is_none_is_recorded(tmp_path: Path):
    beside(tmp_path / "a.db", "models").write_text("a file")
    _, result = keep(tmp_path)
    assert "NotADirectoryError" in result.not_kept


def test_weights_that_the_system_does_not_write_are_recorded(tmp_path: Path):
    corpus, weights = tiny_corpus(tmp_path), torch.nn.Linear(1000, 2000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        told = models.save_model(
            tmp_path / "models", tiny_trial(corpus), made_up(2.0), weights, corpus, Processes(torch.device("cpu"))
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in told
    assert list((tmp_path / "models").iterdir()) == []


KILLED = """
import os, signal, sys, time
from pathlib import Path
import torch
from tests.scaling.language_models import tiny_corpus, tiny_trial
from archlab.scaling.models import save_model
from archlab.scaling.processes import Processes
from tests.scaling.synthetic_ladders import result

folder = Path(sys.argv[1])
corpus = tiny_corpus(folder)
trial = tiny_trial(corpus)
def write():
    for value in range(1, 10_000):
        weights = torch.nn.Linear(1000, 2000)
        torch.nn.init.constant_(weights.weight, value)
        torch.nn.init.constant_(weights.bias, value)
        os.write(begun, b".")
        assert save_model(folder / "a.db.models", trial, result(2.0), weights, corpus, Processes(torch.device("cpu"))) == ""

for line in sys.stdin:
    heard, begun = os.pipe()
    writer = os.fork()
    if not writer:
        write()
        os._exit(1)
    for _ in range(2):  # the second writes over the first
        os.read(heard, 1)
    time.sleep(float(line))
    os.kill(writer, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_a_process_killed_while_it_writes_leaves_a_whole_model_or_none(tmp_path: Path):
    tiny_corpus(tmp_path)
    (tmp_path / "killed.py").write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    place, torn = beside(tmp_path / "a.db", "models"), 0
    command = [sys.executable, tmp_path / "killed.py", tmp_path]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writers:
        for delay in [*np.linspace(0, 0.03, 4)] * 5:
            if torn and delay == 0:  # on a busy machine the first kills may come between two models
                break
            writers.stdin.write(f"{delay}\n")
            writers.stdin.flush()
            assert writers.stdout.readline() == f"{-signal.SIGKILL}\n"
            torn += len(list(place.glob("*.unfinished")))
            for folder in place.glob("*"):
                if folder.suffix != ".unfinished":
                    weights = load_file(folder / "model.safetensors")
                    assert {w.unique().numel() for w in weights.values()} == {1}
                    assert weights["weight"][0, 0] == weights["bias"][0] >= 1
                    assert [one.folder for one in models.language_models(tmp_path / "a.db")] == [folder]
    assert torn, "no kill came while a model was written"


SHARED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.scaling.language_models import tiny_corpus, tiny_trial
from archlab.scaling.processes import Processes
from archlab.scaling.training_loop import train

folder = Path(sys.argv[1])
corpus = tiny_corpus(folder)
with Processes.join("cpu") as processes:
    trial = tiny_trial(corpus, spec="mamba swiglu")
    result = train(trial, corpus, processes, checkpoints=folder / "kept", last_checkpoint=True, models=folder / "a.db.models")
    assert result.not_kept == ""
    if processes.is_first:
        print(result.loss)
"""


@pytest.mark.slow
def test_processes_that_share_a_model_keep_the_whole_of_it(tmp_path: Path):
    corpus = tiny_corpus(tmp_path)
    (tmp_path / "shared.py").write_text(SHARED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, tmp_path / "shared.py", tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "a.db.models").iterdir()
    assert independent_loss(folder, corpus.folder) == pytest.approx(float(done.stdout), abs=1e-6)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step-20"]


def test_the_last_checkpoint_stays_where_it_is_asked_for(tmp_path: Path):
    corpus = tiny_corpus(tmp_path)
    trial = tiny_trial(corpus)
    result = train(trial, corpus, checkpoints=tmp_path / "kept", last_checkpoint=True)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step-20"]
    assert train(trial, corpus, checkpoints=tmp_path / "kept").loss == result.loss  # nothing is trained again


def test_a_run_is_found_by_its_key_or_by_architecture_and_size(tmp_path: Path):
    small, _ = keep(tmp_path, dim=8)
    large, _ = keep(tmp_path, dim=16)
    other, _ = keep(tmp_path, dim=16, label="other")
    seed, _ = keep(tmp_path, dim=16, label="other", seed=1)
    store, folder = tmp_path / "a.db", beside(tmp_path / "a.db", "models")
    assert other.key == large.key  # the same training run under another label
    for name, key in [
        (small.key, small.key),
        (small.key[:5], small.key),
        (f"tiny@{small.run.params}", small.key),
        (f"tiny@{small.run.params / 1000:.3g}k", small.key),
        (f"tiny@{small.run.params * 1.02:.0f}", small.key),
        ("tiny", small.key),
    ]:
        assert load_model(name, store).folder == folder / key
    with pytest.raises(ArchlabError, match=r"run 'other': 2 kept models are called so: give more of a key: .*seed 0.*seed 1"):
        load_model("other", store)
    for wrong in ("tiny@1M", "tiny@", "tiny@x", "@", "zzz", ""):
        with pytest.raises(ArchlabError, match=r"no kept model is called so: .*tiny@"):
            load_model(wrong, store)
    with pytest.raises(ArchlabError, match=r"store .*b.db does not exist: `archlab scale run PLAN --store .*b.db` makes it"):
        load_model("tiny", tmp_path / "b.db")
    with StudyStore(tmp_path / "b.db"):
        pass
    with pytest.raises(ArchlabError, match=r"b.db.models has no models: `archlab scale run PLAN` keeps"):
        load_model("tiny", tmp_path / "b.db")
    assert seed.key != other.key


def test_a_kept_model_follows_its_result_to_a_new_key(tmp_path: Path):
    trial, _ = keep(tmp_path)
    store, folder = tmp_path / "a.db", beside(tmp_path / "a.db", "models")
    written = folder / trial.key / "trial.json"
    written.write_text(written.read_text().replace(trial.key, "old"))
    (folder / trial.key).rename(folder / "old")
    with StudyStore(store):
        pass
    rekey_models(store, models.read_training_run, lambda job: None)
    assert load_model("old", store).key == "old"
    archlab.rekey_store(store)
    assert [path.name for path in folder.iterdir()] == [trial.key]
    assert load_model(trial.key, store).key == trial.key


def test_damaged_files_are_refused_in_one_line(tmp_path: Path):
    trial, _ = keep(tmp_path)
    weights = beside(tmp_path / "a.db", "models") / trial.key / "model.safetensors"
    whole = weights.read_bytes()
    flipped = whole[:-10] + bytes([whole[-10] ^ 1]) + whole[-9:]
    for damaged in (flipped, whole[:-10], b"", b"x" * 100):
        weights.write_bytes(damaged)
        with pytest.raises(ArchlabError, match=r"safetensors is damaged, not as it was written: train it again") as refusal:
            load_model(trial.key, tmp_path / "a.db")
        assert "\n" not in str(refusal.value)
    description = weights.with_name("trial.json")
    written = json.loads(description.read_text())
    description.write_text(json.dumps({name: value for name, value in written.items() if name != "checksums"}))  # earlier
    weights.write_bytes(whole[:-10])
    with pytest.raises(ArchlabError, match=r"cannot be read: .*train it again"):
        load_model(trial.key, tmp_path / "a.db")
    kept.save_file({"embedding.weight": torch.zeros(2, 2)}, weights)
    with pytest.raises(ArchlabError, match="does not fit mh-attention") as refusal:
        load_model(trial.key, tmp_path / "a.db")
    assert "\n" not in str(refusal.value)


def test_a_damaged_description_is_named_and_other_models_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trial, _ = keep(tmp_path)
    folder = beside(tmp_path / "a.db", "models")
    text = (folder / trial.key / "trial.json").read_text()
    for name, content in {
        "flipped": text.replace('"seed": 0', '"seed": 1'),
        "empty": "",
        "list": "[]",
        "deep": "[" * 9999,
    }.items():
        (folder / name).mkdir()
        (folder / name / "trial.json").write_text(content)
    assert load_model(trial.key, tmp_path / "a.db").key == trial.key
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split(": cannot be read: ")[0] for line in lines) == [
        f"warning: model {folder / name}" for name in ("deep", "empty", "flipped", "list")
    ]


def test_the_loss_at_half_precision_is_kept_too(tmp_path: Path):
    corpus = tiny_corpus(tmp_path)
    recipe = LMRecipe(evaluations=1, validation_tokens=160, precision="bf16")
    trial = replace(tiny_trial(corpus), recipe=recipe)
    result = train(trial, corpus, models=beside(tmp_path / "a.db", "models"))
    weights = load_file(beside(tmp_path / "a.db", "models") / trial.key / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float32}
    assert result.not_kept == ""
