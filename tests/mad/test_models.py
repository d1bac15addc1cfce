"""Kept trials: the weights that a stored score is of, whatever else happened in the training."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.mad.trials import COPYING, MEMORY, RECALL, train, trial

import archlab
from archlab.errors import ArchlabError
from archlab.mad.models import KeptTrial, train_and_keep
from archlab.mad.store import TrialStore
from archlab.mad.trial import Trial, TrialResult
from archlab.store import kept
from archlab.store.kept import beside


def keep(folder: Path, *trials: Trial, thresholds=None) -> list[TrialResult]:
    """Train trials together, whose weights are kept beside the store ``a.db``."""
    models = beside(folder / "a.db", "models")
    found = train_and_keep(trials, lambda *_: None, thresholds or [{}] * len(trials), models=models)
    return [result for _, result in sorted(found, key=lambda ended: ended[0])]


def independent_accuracy(folder: Path) -> float:
    """The accuracy of a kept model on its test split, from its files alone."""
    values = json.loads((folder / "trial.json").read_text())["trial"]
    task = archlab.task(values["task"], **values["knobs"])
    sizes = {"vocab_size": task.vocab_size, "max_length": task.length, "dim": values["dim"], "backbone": task.backbone}
    model = archlab.architecture(values["architecture"]).build(**sizes)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    inputs, targets = archlab.sample(task, "test", values["recipe"]["num_evaluation"], values["seed"])
    with torch.no_grad():
        answers = model(torch.from_numpy(inputs)).argmax(-1).numpy()
    return float((answers == targets)[targets != -100].mean())


@pytest.mark.parametrize("task", [COPYING, RECALL, MEMORY])
@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_the_stored_accuracy_follows_from_the_kept_weights(tmp_path: Path, task, checkpoint):
    steps = {"steps": 24, "evaluations": 8, "num_evaluation": 200, "checkpoint": checkpoint}
    one = trial(task=task, learning_rate=0.1, **steps)
    (result,) = keep(tmp_path, one)
    assert independent_accuracy(tmp_path / "a.db.models" / one.key) == pytest.approx(result.test.accuracy, abs=1e-9)
    assert result.not_kept == ""


def test_the_weights_are_those_of_the_selected_step_not_of_the_last(tmp_path: Path):
    one = trial(learning_rate=0.1, schedule="constant", steps=24, evaluations=8, stop_accuracy=2.0, checkpoint="best")
    (result,) = keep(tmp_path, one)
    assert result.selected_step < result.steps  # else the case shows nothing
    assert result.test.accuracy != result.test_last.accuracy
    assert independent_accuracy(tmp_path / "a.db.models" / one.key) == pytest.approx(result.test.accuracy, abs=1e-9)


def test_keeping_changes_neither_key_nor_result(tmp_path: Path):
    one = trial("mamba swiglu", checkpoint="best")
    (result,) = keep(tmp_path, one)
    plain = train(one)
    assert (result.curve, result.test, result.selected_step) == (plain.curve, plain.test, plain.selected_step)
    assert [path.name for path in (tmp_path / "a.db.models").iterdir()] == [one.key]


def test_of_trials_trained_together_each_has_its_own_weights(tmp_path: Path):
    trials = [trial(task=RECALL, seed=seed, learning_rate=rate, num_evaluation=200) for seed in (0, 1) for rate in (0.02, 0.2)]
    last = max(trials[3].recipe.evaluation_steps(50))
    results = keep(tmp_path, *trials, thresholds=[{}, {2: 0.0}, {}, {last: 0.0}])
    assert [result.status for result in results] == ["finished", "dropped", "finished", "dropped"]
    assert results[1].steps < results[0].steps
    for one, result in zip(trials, results, strict=True):
        found = independent_accuracy(tmp_path / "a.db.models" / one.key)
        assert found == pytest.approx(result.test.accuracy, abs=1e-9)
    assert len({result.test.accuracy for result in results}) > 1


def test_a_trial_that_diverged_keeps_nothing(tmp_path: Path):
    (result,) = keep(tmp_path, trial(learning_rate=1e12))
    assert (result.status, result.not_kept) == ("diverged", "")
    assert not (tmp_path / "a.db.models").exists()


def test_weights_are_whole_before_the_result_is_given(tmp_path: Path):
    one = trial()
    for _, result in train_and_keep([one], lambda *_: None, [{}], models=tmp_path / "a.db.models"):
        assert archlab.load_model(one.key, tmp_path / "a.db").result.test == result.test


def test_a_full_disk_is_recorded_and_the_result_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kept, "save_file", full)
    one = trial()
    (result,) = keep(tmp_path, one)
    assert "No space left on device" in result.not_kept
    assert result.test == train(one).test
    assert TrialResult.from_dict(result.to_dict()).not_kept == result.not_kept
    assert list((tmp_path / "a.db.models").iterdir()) == []


def test_a_model_is_found_by_its_key_or_by_architecture_and_task(tmp_path: Path):
    good, bad = trial(task=RECALL, learning_rate=0.02, steps=24), trial(task=RECALL, learning_rate=1e-9, steps=24)
    other = trial("mlp")
    keep(tmp_path, good)
    keep(tmp_path, bad)
    keep(tmp_path, other)
    store = tmp_path / "a.db"
    label = good.architecture.label
    for name, wanted in [
        (good.key[:6], good),
        (bad.key, bad),
        (f"{label}@in-context-recall", good),
        (f"{label}@recall", good),
        (f"{label}@{RECALL}", good),
        (label, good),
        ("mh-attention swiglu@recall", good),
        ("mlp", other),
    ]:
        loaded = archlab.load_model(name, store)
        assert isinstance(loaded, KeptTrial)
        assert (loaded.key, loaded.trial) == (wanted.key, wanted), name
    with pytest.raises(ArchlabError, match=r"run 'mamba': no kept model is called so: .*or ARCHITECTURE@TASK: .*mlp on selec"):
        archlab.load_model("mamba", store)
    keep(tmp_path, replace(good, seed=1))
    with pytest.raises(ArchlabError, match=r"2 kept models are called so: give more of a key: .*seed 0.*seed 1"):
        archlab.load_model(label, store)
    with pytest.raises(ArchlabError, match=r"store .*b.db does not exist"):
        archlab.load_model("mlp", tmp_path / "b.db")


def test_a_kept_trial_computes_with_the_knobs_of_its_recipe(tmp_path: Path):
    one = trial(task=RECALL, norm="layernorm", reference_init=True, test_lengths=(16,))
    (result,) = keep(tmp_path, one)
    loaded = archlab.load_model(one.key, tmp_path / "a.db")
    inputs, targets = archlab.sample(one.setting, "test", one.recipe.num_evaluation, one.seed)
    answers = loaded.model(torch.from_numpy(inputs)).argmax(-1).numpy()
    assert (answers == targets)[targets != -100].mean() == pytest.approx(result.test.accuracy)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert str(loaded) == f"{one.key[:8]} (mh-attention(heads=2) swiglu on {RECALL}, lr 0.005, wd 0.1, seed 0)"


def test_a_kept_trial_is_exported_as_its_weights_alone(tmp_path: Path):
    one = trial("mlp")
    keep(tmp_path, one)
    with pytest.raises(ArchlabError, match=r"mlp on selective-copying.*a trial has no tokenizer .*--to state-dict") as refusal:
        archlab.export("mlp", tmp_path / "out", store=tmp_path / "a.db")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()
    place = archlab.export("mlp", tmp_path / "out", "state-dict", store=tmp_path / "a.db")
    assert independent_accuracy(place) == json.loads((place / "trial.json").read_text())["result"]["test"]["accuracy"]


def test_a_kept_trial_follows_its_result_to_a_new_key(tmp_path: Path):
    one = trial("mlp")
    keep(tmp_path, one)
    folder = tmp_path / "a.db.models"
    written = folder / one.key / "trial.json"
    written.write_text(written.read_text().replace(one.key, "old"))
    (folder / one.key).rename(folder / "old")
    with TrialStore(tmp_path / "a.db"):
        pass
    archlab.rekey_store(tmp_path / "a.db")
    assert archlab.load_model("mlp", tmp_path / "a.db").key == one.key == next(folder.iterdir()).name
