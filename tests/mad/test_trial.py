import json
import math
import os
import subprocess
import sys
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.architectures.strategies import layer_configs
from tests.mad.trials import COPYING, MEMORY, RECALL, trial

from archlab.architectures import Architecture, architecture
from archlab.architectures.stored import StoredArchitecture, is_available
from archlab.errors import ArchlabError
from archlab.layers import LayerConfig
from archlab.mad import trial as trial_module
from archlab.mad.recipe import Recipe
from archlab.mad.trial import CurvePoint, Metrics, Trial, TrialResult
from archlab.sources import import_file
from archlab.store import fingerprint
from archlab.tasks import registry, setting
from archlab.tasks.stored import is_known

DIM = 64
EXAMPLE_TASK = Path(__file__).parent.parent.parent / "examples" / "custom_task.py"


def fits(config: LayerConfig) -> bool:
    try:
        config.validate(DIM)
    except ArchlabError:
        return False
    return True


recipes = st.builds(
    Recipe,
    steps=st.integers(0, 10**6),
    warmup=st.floats(0, 0.999),
    final_lr=st.floats(0, 1),
    schedule=st.sampled_from(["cosine", "constant"]),
    embedding_std=st.floats(1e-6, 100),
    decay_all=st.booleans(),
)
trials = st.builds(
    Trial,
    architecture=st.lists(layer_configs().filter(fits), min_size=1, max_size=4).map(lambda layers: Architecture(tuple(layers))),
    setting=st.sampled_from([*(task() for task in registry().values()), COPYING, RECALL, MEMORY]),
    recipe=recipes,
    dim=st.just(DIM),
    learning_rate=st.floats(1e-9, 10),
    weight_decay=st.floats(0, 10),
    seed=st.integers(0, 2**40),
    device=st.sampled_from(["cpu", "cuda"]),
)
finite = st.floats(0, 1e6)
metrics = st.builds(Metrics, finite, finite, finite)
arrays = st.lists(st.floats(0, 1000, width=32), max_size=5).map(lambda values: np.array(values, dtype=np.float32))
results = st.builds(
    TrialResult,
    status=st.sampled_from(["finished", "diverged"]),
    steps=st.integers(1, 10**6),
    solved_step=st.none() | st.integers(1, 10**6),
    selected_step=st.integers(1, 10**6),
    selected=metrics,
    test=metrics,
    test_last=metrics,
    curve=st.lists(st.builds(CurvePoint, st.integers(1), finite, metrics), max_size=4).map(tuple),
    numerators=arrays,
    denominators=arrays,
    examples_per_second=finite,
    wall_seconds=finite,
    cpu_seconds=finite,
)


@settings(deadline=None)
@given(trials)
def test_trials_round_trip_through_json_with_their_key(value):
    read = Trial.from_dict(json.loads(json.dumps(value.to_dict())))
    assert read == value
    assert hash(read) == hash(value)
    assert read.key == value.key


@settings(deadline=None)
@given(results)
def test_results_round_trip_through_json(result):
    read = TrialResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    for field in fields(TrialResult):
        np.testing.assert_equal(getattr(read, field.name), getattr(result, field.name))
    assert read.numerators.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": "64"}, "dim='64': give a whole number of at least 1"),
        ({"dim": True}, "dim=True: give a whole number of at least 1"),
        ({"dim": 0}, "dim=0: give a whole number of at least 1"),
        ({"dim": 13}, "width 13"),
        ({"seed": -1}, "seed=-1: give a whole number of at least 0"),
        ({"seed": 1.0}, "seed=1.0: give a whole number of at least 0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: give a number above 0"),
        ({"learning_rate": "1e-3"}, "learning_rate='1e-3': give a number above 0"),
        ({"learning_rate": math.nan}, "learning_rate=nan: give a finite number above 0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1: give a number of at least 0"),
        ({"weight_decay": math.inf}, "weight_decay=inf: give a finite number of at least 0"),
        ({"device": "mps"}, "device='mps': give one of cpu, cuda"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_field_and_value(changes, message):
    with pytest.raises(ArchlabError, match=message):
        replace(trial(), **changes)


@pytest.mark.parametrize("change", [{"colour": "red"}, {"task": None}, {"knobs": {"colour": 1}}])
def test_a_trial_that_this_version_does_not_know_is_refused(change):
    values = trial().to_dict() | change
    if change == {"task": None}:
        del values["task"]
    with pytest.raises(ArchlabError):
        Trial.from_dict(values)


def test_a_trial_of_layers_that_are_gone_is_read_and_cannot_be_trained():
    read = Trial.from_dict(trial().to_dict() | {"architecture": "2*[atention(heads=3) swiglu]"})
    assert str(read.architecture) == "2*[atention(heads=3) swiglu]"
    assert read.key != trial().key
    with pytest.raises(ArchlabError, match="a layer is not available: unknown layer 'atention'"):
        read.architecture.build(vocab_size=8, max_length=8, dim=DIM)


def test_a_trial_that_its_layer_or_task_from_outside_refuses_by_now_is_read(outside):
    refusing = "raise SystemExit('no longer')"
    (outside / "fickle.py").write_text(
        f"from torch import nn\nclass Fickle(nn.Module):\n    def __init__(self, dim):\n        {refusing}\n"
    )
    import_file(outside / "fickle.py", "layers")
    read = Trial.from_dict(trial().to_dict() | {"architecture": "fickle.Fickle swiglu"})
    assert not is_available(read.architecture)
    import_file(EXAMPLE_TASK, "tasks")
    knobs = {"vocab_size": 8, "length": 16, "num_train_examples": 64, "gone": 3}
    read = Trial.from_dict(trial().to_dict() | {"task": "running-sum", "knobs": knobs})
    assert (is_known(read.setting), read.setting.knobs()) == (False, knobs)


def test_flops_are_three_forward_passes_of_every_sequence():
    value = trial(steps=0, epochs=3, task=replace(COPYING, num_train_examples=100))
    forward = value.architecture.flops(length=12, vocab_size=16, dim=16)
    assert value.num_steps == 21
    assert value.flops == 3 * forward * 300


def other_values(recipe: Recipe):
    """The recipe with each field changed in turn."""
    for name, hint in get_type_hints(Recipe).items():
        value = getattr(recipe, name)
        if get_origin(hint) is Literal:
            yield name, next(option for option in get_args(hint) if option != value)
        elif name in ("test_lengths", "levels"):
            yield name, (8,)
        else:
            yield name, {bool: not value, int: value + 1, float: value + 0.01 if value < 0.99 else value - 0.01}[hint]


def test_every_field_of_the_recipe_counts():
    base = trial(schedule="wsd")
    keys = {base.key}
    for name, value in other_values(base.recipe):
        keys.add(replace(base, recipe=replace(base.recipe, **{name: value})).key)
    assert len(keys) == 1 + len(fields(Recipe))


def test_the_version_of_the_kernels_counts_where_they_are_asked_for(monkeypatch):
    keys = []
    for installed in ("0.6.0", "0.6.1", "0.7.0"):
        monkeypatch.setattr(fingerprint, "version", lambda name, fla=installed: fla if name == "fla-core" else version(name))
        for kept in (fingerprint.library_versions, trial_module._key_of_alike):
            kept.cache_clear()
        keys.append([trial().key, trial(kernels="fla").key])
    (plain, first), (plain_again, patch), (plain_still, minor) = keys
    assert plain == plain_again == plain_still
    assert first == patch != minor
    assert plain not in (first, minor)


def test_everything_else_of_a_trial_counts():
    base = trial()
    changed = [
        replace(base, dim=32),
        replace(base, learning_rate=1e-3),
        replace(base, weight_decay=0.0),
        replace(base, seed=1),
        replace(base, device="cuda"),
        replace(base, architecture=architecture("swiglu mh-attention(heads=2)")),
        replace(base, architecture=architecture("2*[mh-attention(heads=2) swiglu]")),
        replace(base, architecture=architecture("mh-attention(heads=2) swiglu(inner=16)")),
        replace(base, architecture=architecture("mh-attention(heads=4) swiglu")),
        replace(base, setting=setting("compression")),
    ]
    assert len({base.key, *(value.key for value in changed)}) == 1 + len(changed)


@pytest.mark.parametrize("task", ["in-context-recall", "noisy-in-context-recall", "fuzzy-in-context-recall"])
def test_every_knob_of_a_setting_counts(task):
    base = setting(task, vocab_size=64)
    keys = set()
    for name, value in base.knobs().items():
        changed = {bool: lambda v: not v, int: lambda v: max(2 * (v // 4), 1), float: lambda v: v / 2}[type(value)](value)
        keys.add(trial(task=replace(base, **{name: changed})).key)
    assert len({trial(task=base).key} | keys) == 1 + len(base.knobs())


def test_equal_trials_have_equal_keys_however_they_were_written():
    base = replace(trial(), learning_rate=1.0, weight_decay=0.0)
    for same in (
        replace(base, learning_rate=1, weight_decay=-0.0),
        replace(base, architecture=architecture("mh-attention( heads = 2 )\nswiglu(inner=0)")),
        replace(base, architecture=replace(base.architecture, name="my-favourite")),
        replace(base, recipe=replace(base.recipe, grad_clip=0)),
    ):
        assert same == base
        assert same.key == base.key


def test_all_that_a_composite_is_made_of_counts():
    specs = [
        "parallel(mamba, mlp)",
        "parallel(mlp, mamba)",
        "parallel(mamba, mlp, gate=true)",
        "parallel(mamba(d_state=8), mlp)",
        "parallel(parallel(mamba, mlp), hyena, mlp)",
        "parallel(parallel(mamba, mlp, hyena), mlp)",
        "experts(mamba)",
        "experts(mamba, num=4)",
    ]
    assert len({replace(trial(), architecture=architecture(spec)).key for spec in specs}) == len(specs)


def test_the_key_is_the_same_in_another_process():
    base = trial("hyena 1*mamba swiglu")
    program = "import sys, json; from archlab.mad.trial import Trial; print(Trial.from_dict(json.load(sys.stdin)).key)"
    environment = os.environ | {"PYTHONHASHSEED": "17"}
    told = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(base.to_dict()),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == base.key
    assert len(base.key) == 32


def test_the_code_of_tasks_and_layers_from_outside_is_named(outside: Path):
    examples = Path(__file__).parent.parent.parent / "examples"
    import_file(examples / "custom_task.py", "tasks")
    import_file(examples / "custom_layer.py", "layers")
    origins = [trial(spec, task).origin for task in (RECALL, setting("running-sum")) for spec in ("mlp", "ema")]
    assert origins == ["", "custom_layer", "custom_task", "custom_layer custom_task"]


def test_a_trial_at_another_grid_point_is_as_if_made_anew():
    one = trial("attention mlp", setting("in-context-recall", length=16), learning_rate=1e-3)
    other = one.at(1, 0, 7)
    assert other == replace(one, learning_rate=1.0, weight_decay=0.0, seed=7)
    assert (other.key, hash(other)) == (replace(other).key, hash(replace(other)))
    assert repr(other) == repr(replace(other))
    with pytest.raises(ArchlabError, match="learning_rate=-1"):
        one.at(-1, 0, 0)


def test_the_environment_is_read_once_for_trials_of_a_kind(monkeypatch):
    one = trial("attention mlp", setting("in-context-recall", length=16))
    reads = []
    monkeypatch.setattr(trial_module, "chosen_kernels", lambda: reads.append(1) or {})
    assert len({one.at(1e-3, 0.0, seed).key for seed in range(5)}) == 5
    assert len(reads) == 1


def test_trials_are_equal_if_all_their_fields_are():
    one = trial(task=RECALL)
    read = Trial.from_dict(one.to_dict())
    assert one == read == one
    assert read == one, "kinds that were found equal once"
    assert hash(one) == hash(read)
    changes = {"architecture": architecture("2*mamba"), "setting": COPYING, "recipe": Recipe(steps=7), "dim": 64}
    changes |= {"learning_rate": 0.5, "weight_decay": 0.5, "seed": 99, "device": "cuda"}
    for name, value in changes.items():
        assert replace(one, **{name: value}) != read, name
    assert one != "a trial"


def test_a_text_of_a_store_that_does_not_fit_does_not_hide_a_wrong_architecture():
    spec, dim = "mh-attention(heads=3)", 64
    stored = replace(trial(task=RECALL), architecture=StoredArchitecture(spec, dim), dim=dim)
    assert not is_available(stored.architecture)
    with pytest.raises(ArchlabError, match="width 64 does not split into 3"):
        replace(trial(task=RECALL), architecture=architecture(spec), dim=dim)
