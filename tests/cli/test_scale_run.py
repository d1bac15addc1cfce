"""archlab scale run, fit, predict: a ladder that is killed finishes with the same numbers; what makes no sense is refused."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine, start
from tests.scaling.fits.laws import Law
from tests.scaling.language_models import tiny_corpus, tiny_run
from tests.scaling.synthetic_ladders import fill, ladder, stripes, sweep_of

from archlab.scaling.laws import METHODS
from archlab.scaling.store import StudyStore
from archlab.scaling.training_plan import Plan


@pytest.fixture
def tiny_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    corpus = tiny_corpus(tmp_path)
    Plan(tuple(tiny_run(corpus, dim=dim, steps=600) for dim in (8, 12, 16))).save(tmp_path / "plan.yaml")
    return str(tmp_path / "plan.yaml")


def losses(store: Path) -> dict[int, object]:
    with StudyStore(store, create=False) as opened:
        return {r.job.run.dim: (r.result.loss, r.result.curve) for r in opened.records(statuses=("finished",))}


@pytest.mark.slow
def test_a_ladder_that_is_killed_or_interrupted_finishes_with_the_same_bits(tmp_path: Path, tiny_plan: str):
    options = ("--workers", "2", "--set", "validation_tokens=160")
    whole = start("scale", "run", tiny_plan, "--store", "whole.db", "--json", *options, folder=tmp_path)
    out, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err
    document = json.loads(out)
    assert (document["training_runs"], document["computed"]) == (3, 3)
    assert err.count("loss ") == 3
    for number, status, sign in ((signal.SIGKILL, -9, "3 training runs"), (signal.SIGINT, 130, "/3  ")):
        killed = start("scale", "run", tiny_plan, "--store", "killed.db", *options, folder=tmp_path)
        while sign not in killed.stderr.readline():
            assert killed.poll() is None
        time.sleep(1)
        os.kill(killed.pid, number)
        _, err = killed.communicate(timeout=60)
        assert killed.returncode == status, err
    assert list((tmp_path / "killed.db.checkpoints").glob("*/step-*"))  # of the interrupted one
    rest = start("scale", "run", tiny_plan, "--store", "killed.db", *options, folder=tmp_path)
    _, err = rest.communicate(timeout=300)
    assert rest.returncode == 0, err
    assert losses(tmp_path / "killed.db") == losses(tmp_path / "whole.db")
    assert not (tmp_path / "killed.db.checkpoints").exists()


@pytest.fixture
def store(tmp_path: Path) -> str:
    good, bad = Law(), Law(A=500.0)
    return str(fill(tmp_path / "archlab.db", ladder("good", good) + ladder("bad", bad)))


def test_architectures_are_compared_at_trained_and_other_budgets(archlab: CommandLine, store: str):
    command = ("scale", "compare", "--store", store, "--resamples", "100", "--reference", "bad", "--flops", "1e19,2e19")
    document = json.loads(archlab(*command, "--json").out)
    assert document["reference"] == "bad"
    assert [row["extrapolation"] for row in document["rows"][-2:]] == [12.5, 25]
    assert all(row["difference"]["high"] < 0 and row["multiplier"]["high"] < 1 for row in document["rows"])
    shown = archlab(*command)
    assert shown.out.startswith("At 8e+17 FLOPs, against bad: good needs 0.")
    assert "12.5 x beyond" in shown.out
    refused = archlab("scale", "compare", "--store", store, "--reference", "god")
    assert refused.status == 2
    assert "unknown architecture 'god': did you mean 'good'?" in refused.err


def test_fits_are_shown_and_written_as_json(archlab: CommandLine, store: str):
    outcome = archlab("scale", "fit", "--store", store, "--resamples", "20", "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert document["architectures"].keys() == {"good", "bad"}
    for architecture in document["architectures"].values():
        assert architecture["methods"].keys() == set(METHODS)
        assert len(architecture["training_runs"]) == 28
    assert len(document["comparison"]["rows"]) == 4
    compared = archlab("scale", "compare", "--store", store, "--resamples", "20", "--json")
    assert json.loads(compared.out) == document["comparison"]
    assert len(document["off_optimal"]) == 16
    assert document["over_training"].keys() == {"good", "bad"}
    assert all(c["difference"]["value"] > 0 and c["multiplier"]["value"] > 1 for c in document["comparison"]["rows"])
    shown = archlab("scale", "fit", "--store", store, "--resamples", "0")
    assert shown.status == 0, shown.err
    assert "over-training law" in shown.out
    for words in (
        "good: 28 training runs",
        "variable-projection",
        "minima in 4 of 4 groups",
        "loss difference compute multiplier",
        "negative where good is worse",
        "excess loss at 0.25 N*",
    ):
        assert words in " ".join(shown.out.split())


def test_the_best_fraction_of_attention_is_shown(archlab: CommandLine, tmp_path: Path):
    store = str(fill(tmp_path / "sweep.db", sweep_of(stripes(0.35), budgets=(1e17, 4e17), sizes=5)))
    shown = archlab("scale", "fit", "--store", store, "--resamples", "0")
    assert shown.status == 0, shown.err
    for words in ("beside best fraction of attention loss at 0 loss at 0.25 loss at 0.5 loss at 1", "1e+17 hyena, swiglu 0.35"):
        assert words in " ".join(shown.out.split())
    document = json.loads(archlab("scale", "fit", "--store", store, "--resamples", "0", "--json").out)
    assert [best["bracketed"] for best in document["sweeps"][0]["best"]] == [True, True]


def test_predictions_say_how_far_beyond_the_data_they_are(archlab: CommandLine, store: str):
    outcome = archlab("scale", "predict", "--flops", "8e20", "--store", store, "--resamples", "20", "--json")
    assert outcome.status == 0, outcome.err
    rows = json.loads(outcome.out)
    assert len(rows) == 8
    assert all(row["beyond_the_data"] == pytest.approx(1000) for row in rows)
    huber = next(row for row in rows if row["architecture"] == "good" and row["method"] == "huber")
    assert huber["size"]["low"] <= huber["size"]["value"] <= huber["size"]["high"]
    back = archlab("scale", "predict", "--loss", str(huber["loss"]["value"]), "--store", store, "--resamples", "0", "--json")
    again = next(row for row in json.loads(back.out) if row["architecture"] == "good" and row["method"] == "huber")
    assert again["flops"]["value"] == pytest.approx(8e20, rel=1e-6)
    shown = archlab("scale", "predict", "--loss", "2.2", "--store", store, "--resamples", "0")
    assert "beyond: the budget over the largest of the runs" in " ".join(shown.out.split())
    assert re.search(r"huber .* 2\.200  ", shown.out)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("predict",), "give --flops"),
        (("predict", "--flops", "1e20", "--loss", "2"), "give --flops"),
        (("predict", "--flops", "-1"), "flops=-1.0: give a number above 0"),
        (("predict", "--loss", "1.0"), "no budget reaches it"),
        (("fit", "--resamples", "5"), "resamples=5"),
        (("fit", "--confidence", "95"), "confidence=95"),
        (("fit", "--store", "missing.db"), "does not exist"),
        (("run", "missing.yaml"), "does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(archlab, store, arguments, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = archlab("scale", *arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert named in outcome.err
    assert outcome.err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"archlab.db"}


def test_a_recipe_or_corpus_that_does_not_fit_is_refused_before_anything_is_written(archlab, tiny_plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "recipe: precision='fp16'" in archlab("scale", "run", tiny_plan, "--set", "precision=fp16").err
    assert "recipe: unknown field 'warm': did you mean 'warmup'?" in archlab("scale", "run", tiny_plan, "--set", "warm=0.1").err
    outcome = archlab("scale", "run", tiny_plan, "--set", "kernels=fla")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    outcome_alone = archlab("scale", "run", tiny_plan, "--replicas", "2")
    assert (outcome_alone.status, outcome_alone.err.count("\n")) == (2, 1)
    assert "replicas=2 (--replicas): only processes that torchrun has started share a model" in outcome_alone.err
    assert "recipe: kernels='fla': they need a GPU: choose device='cuda'" in outcome.err
    (tmp_path / "text.txt").write_text("".join(f"another text, line {n}\n" for n in range(5000)))
    outcome = archlab("scale", "run", tiny_plan)
    assert (outcome.status, "corpus_hash: the plan is for" in outcome.err) == (2, True)
    assert not (tmp_path / "archlab.db").exists()


@pytest.mark.slow
def test_processes_that_share_the_models_give_the_same_losses(tmp_path: Path, tiny_plan: str):
    run = ("-c", "from archlab.cli import main; main()", "scale", "run", tiny_plan, "--set", "validation_tokens=160", "--store")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable)
    subprocess.run([sys.executable, *torchrun, *run, "shared.db"], cwd=tmp_path, check=True, capture_output=True, timeout=240)
    subprocess.run([sys.executable, *run, "alone.db"], cwd=tmp_path, check=True, capture_output=True, timeout=240)
    shared, alone = losses(tmp_path / "shared.db"), losses(tmp_path / "alone.db")
    assert {dim: loss for dim, (loss, _) in shared.items()} == pytest.approx(
        {dim: loss for dim, (loss, _) in alone.items()}, abs=1e-5
    )


def test_a_study_of_one_budget_is_shown_as_what_it_lacks_and_predicts_nothing(archlab, tmp_path):
    store = str(fill(tmp_path / "one.db", ladder("a", Law(), budgets=(1e17,), sizes=3, reach=1.5)))
    shown = archlab("scale", "fit", "--store", store, "--resamples", "0")
    assert (shown.status, "a: 3 training runs" in shown.out, "two are needed" in shown.err) == (0, True, True)
    refused = archlab("scale", "predict", "--flops", "1e20", "--store", store)
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "no law by isoflop: 1 of 1 budgets" in refused.err


def test_an_architecture_that_has_hardly_begun_does_not_keep_the_others(archlab: CommandLine, tmp_path: Path):
    store = str(fill(tmp_path / "one.db", ladder("a", Law()) + ladder("b", Law())[:1]))
    shown = archlab("scale", "fit", "--store", store, "--resamples", "0")
    assert (shown.status, "a: 28 training runs" in shown.out) == (0, True)
    assert "no laws: sizes that have finished: 1; a law takes two at least, better five a budget: b" in shown.err
    document = json.loads(archlab("scale", "fit", "--store", store, "--resamples", "0", "--json").out)
    assert (document["architectures"].keys(), document["without_laws"].keys()) == ({"a"}, {"b"})
    told = archlab("scale", "predict", "--flops", "1e18", "--store", store, "--resamples", "0")
    assert (told.status, "no laws: sizes that have finished" in told.err) == (0, True)


def test_a_report_is_not_overwritten_by_its_table(archlab: CommandLine, store: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("archlab.scaling.api.fit_study", lambda *_: pytest.fail("fitted before the place was looked at"))
    refused = archlab("scale", "report", "--store", store, "--resamples", "0", "-o", "study.csv")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "the page is HTML: give study.html" in refused.err
    assert not Path("study.csv").exists()


def test_checkpoints_that_have_no_place_are_refused_before_anything_is_trained(archlab: CommandLine, tiny_plan: str):
    Path("taken").write_text("a file")
    refused = archlab("scale", "run", tiny_plan, "--checkpoints", "taken/checkpoints")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "give another folder by --checkpoints" in refused.err
    assert not Path("archlab.db").exists()


@pytest.mark.parametrize(("command", "options"), [("compare", ()), ("compare", ("--json",)), ("fit", ())])
def test_runs_that_are_too_few_are_refused_in_one_line_by_cause(
    command: str, options: tuple[str, ...], archlab: CommandLine, tmp_path: Path
):
    begun = [ladder(label, Law())[0] for label in ("a", "b", "c", "d")]
    refused = archlab("scale", command, *options, "--store", str(fill(tmp_path / "few.db", begun)), "--resamples", "0")
    assert (refused.status, refused.out, refused.err.count("\n")) == (2, "", 1)
    cause, cases = {
        "compare": ("so no difference: train more sizes at budgets of both", "(3): b; c; d"),
        "fit": ("no laws: sizes that have finished: 1; a law takes two at least", "(4): a; b; c; 1 more"),
    }[command]
    assert refused.err.count(cause) == 1
    assert cases in refused.err
