"""Wrong arguments of the public functions are refused in one line, before anything is computed or written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archlab
from archlab import ArchlabError, architecture, figures, scaling
from archlab.layers import layer
from archlab.scaling import fits

MAMBA: Any = architecture("mamba")
RUNS: Any = {"N": [1e6, 2e6, 4e6, 8e6], "D": [1e8, 4e8, 2e8, 1e9], "loss": [5.0, 4.0, 3.5, 3.0]}
CALLS: dict[str, Callable[[], Any]] = {
    "dim=64.5: give a whole number of at least 1": lambda: archlab.describe("mamba", dim=64.5),
    "length=0: give a whole number of at least 1": lambda: archlab.describe("mamba", length=0),
    "length=1.5: give a whole number": lambda: archlab.describe("mamba", length=1.5),
    "vocab_size=-3: give": lambda: archlab.describe("mamba", vocab_size=-3),
    "spec=5: give text, or a value of type Architecture": lambda: archlab.describe(5),
    "length=-1: give a whole number of at least 1": lambda: MAMBA.flops(length=-1),
    "dim=1.5: give": lambda: MAMBA.flops(length=8, dim=1.5),
    "length=2.5: give": lambda: MAMBA.state_size(length=2.5),
    "dim=True: give": lambda: MAMBA.num_params(length=8, vocab_size=16, dim=True),
    "vocab_size=-1: give": lambda: MAMBA.num_params(length=8, vocab_size=-1),
    "max_length=0: give": lambda: MAMBA.build(vocab_size=8, max_length=0),
    "vocab_size=0: give a whole number of at least 1": lambda: MAMBA.build(vocab_size=0, max_length=8),
    "dim=0: give": lambda: MAMBA.validate(0),
    "backbone='x': give one of language-model, tied-language-model, auto-encoder": lambda: MAMBA.flops(length=8, backbone="x"),
    "backbone='y': give one of": lambda: MAMBA.build(vocab_size=8, max_length=8, backbone="y"),
    "state=True: give a whole number": lambda: archlab.normalise("mamba", state=True),
    "state=1.5: give a whole number": lambda: archlab.normalise("mamba", state=1.5),
    "architecture=5: give text": lambda: archlab.normalise(5, state=4096),
    "spec=6: give text": lambda: archlab.architecture(6),
    "workers=True: give a whole number": lambda: archlab.run("mamba", "smoke", workers=True),
    "workers='2': give a whole number": lambda: archlab.preview("mamba", "smoke", workers="2"),
    "workers=0: give a whole number of at least 1": lambda: archlab.run("mamba", "smoke", workers=0),
    "workers=1000000000000": lambda: archlab.run("mamba", "smoke", workers=10**30),
    "seeds=1000000000000": lambda: archlab.preview("mamba", "smoke", seeds=10**30),
    "seeds=10001: give a whole number of at least 1 and of at most 10000": lambda: scaling.plan("mamba", seeds=10001),
    "unknown protocol ''": lambda: archlab.preview("mamba", ""),
    "protocol smoke: unknown suite ''": lambda: archlab.preview("mamba", "smoke", suite=""),
    "architecture: layers are no tuple of layers": lambda: archlab.Architecture("mamba"),
    "architecture: layers are no tuple": lambda: archlab.Architecture([layer("mamba")]),
    "models xxx": lambda: archlab.load_model("mamba", "x" * 3000),
    "scores='x.db': give a value of type Scores": lambda: figures.leaderboard("x.db"),
    "scores=None: give": lambda: figures.differences(None),
    "scores=5: give": lambda: figures.cost(5),
    "scores={}: give": lambda: figures.learning_curves({}, "copy"),
    "scores=6: give": lambda: figures.save(6, "figures"),
    "fit='x.db': give a value of type StudyFit": lambda: figures.frontier("x.db"),
    "fit=None: give": lambda: figures.isoflop(None, "mamba"),
    "start='x': give a value of type ParametricFit": lambda: fits.fit_parametric(**RUNS, start="x"),
    "method=[]: give one of huber": lambda: fits.fit_parametric(**RUNS, method=[]),
    "resampling=100: give a value of type Resampling": lambda: fits.fit_state(
        perplexity=[9.0, 8.0], state=[1, 2], group=["a", "a"], resampling=100
    ),
    "population=0: give": lambda: archlab.preview("mamba", "smoke", population=0),
    "label=5: give text": lambda: archlab.run("mamba", "smoke", label=5),
    "study mamba: cannot be read: no such file": lambda: archlab.run(Path("mamba")),
    "specs=MambaConfig(": lambda: archlab.run(layer("mamba"), "smoke"),
    "specs=None: give text": lambda: archlab.run(None, "smoke"),
    "specs=5: give text, or a value of type Architecture": lambda: archlab.run(["mamba", 5], "smoke"),
    "protocol=5: give text, or a path": lambda: archlab.run("mamba", 5),
    "tasks=5: give a list of texts": lambda: archlab.run("mamba", "smoke", tasks=5),
    "tasks=6: give text": lambda: archlab.run("mamba", "smoke", tasks=[6]),
    "tasks='copy': give a list of texts": lambda: archlab.run("mamba", "smoke", tasks="copy"),
    "seeds=0: give": lambda: archlab.run("mamba", "smoke", seeds=0),
    "store=None: give text, or a path": lambda: archlab.run("mamba", "smoke", store=None),
    "executor=None: give text": lambda: archlab.run("mamba", "smoke", executor=None),
    "listeners='x': give a function": lambda: archlab.run("mamba", "smoke", listeners=["x"]),
    "race='fast': give one of": lambda: archlab.run("mamba", "smoke", race="fast"),
    "device='tpu': give one of cpu, cuda": lambda: archlab.run("mamba", "smoke", device="tpu"),
    "store=5: give text, or a path": lambda: archlab.open(5),
    "name=5: give text": lambda: archlab.layer(5),
    "task=6: give text": lambda: archlab.task(6),
    "task=7: give a value of type Task, or text": lambda: archlab.sample(7),
    "n=1.5: give a whole number of at least 0": lambda: archlab.sample("copy", n=1.5),
    "seed='0': give a whole number of at least 0": lambda: archlab.sample("copy", seed="0"),
    "split='x': give one of train, validation, test": lambda: archlab.sample("copy", "x"),
    "scores='x.html': give a value of type Scores": lambda: archlab.report("x.html", None),
    "sources=[]: give text, or a path, or a list": lambda: archlab.merge_stores([]),
    "sources=5: give text": lambda: archlab.merge_stores(5),
    "specs='mamba': give a list": lambda: archlab.bench("mamba"),
    "study=5: give a value of type Study, or text, or a path": lambda: scaling.fit(5),
    "specs=7: give text": lambda: scaling.plan(7),
    "seeds=-1: give": lambda: scaling.plan("mamba", seeds=-1),
    "plan=5: give a value of type Plan, or text, or a path": lambda: scaling.train(5),
    "result='x.html': give a value of type StudyFit": lambda: scaling.report("x.html", 5),
}


@pytest.mark.parametrize("reason", CALLS)
def test_a_wrong_argument_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArchlabError) as refusal:
        CALLS[reason]()
    assert str(refusal.value).startswith(reason)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_are_knobs() -> None:
    assert layer("mamba", d_state=np.int64(8)) == layer("mamba", d_state=8)
    assert layer("torch.nn.LayerNorm", eps=np.float64(0.5)) == layer("torch.nn.LayerNorm", eps=0.5)
    with pytest.raises(ArchlabError, match=r"^mamba\(d_state=nan\): give a finite number$"):
        layer("mamba", d_state=np.float32("nan"))


def test_what_is_meant_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text((Path(archlab.__file__).parent / "mad/protocols/smoke.yaml").read_text())
    own = archlab.preview("mamba", path, seeds=np.int64(2), tasks=("copy",), store=tmp_path / "a.db")
    assert own.trials == archlab.preview("mamba", "smoke", seeds=range(2), tasks=["copy"], store=tmp_path / "a.db").trials
    by_text = archlab.normalise("2*[mamba swiglu]", state=4096)
    assert by_text == archlab.normalise(architecture("2*[mamba swiglu]"), state=4096)
