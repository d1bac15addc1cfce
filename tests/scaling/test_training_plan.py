"""The plan's file: it reads back, and what contradicts itself is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from archlab.errors import ArchlabError
from archlab.scaling.ladder import Ladder
from archlab.scaling.planner import make_plan
from archlab.scaling.training_plan import Plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    ladder = Ladder(name="test", budgets=(2e11, 4e11), sizes=2, vocab_size=99, seeds=(0, 1))
    return make_plan(ladder, ["transformer++", "mamba"])


def test_it_reads_back(plan: Plan, tmp_path: Path):
    plan.save(tmp_path / "plan.yaml")
    assert Plan.load(tmp_path / "plan.yaml") == plan
    text = (tmp_path / "plan.yaml").read_text()
    assert len([line for line in text.splitlines() if line.startswith("- {label: ")]) == len(plan.runs)
    assert "budget: 2e11" in text
    assert [path.name for path in tmp_path.iterdir()] == ["plan.yaml"]


def test_it_is_a_frame_and_a_document_of_its_runs(plan: Plan):
    frame = plan.to_frame()
    assert frame.label.tolist() == [run.label for run in plan.runs]
    assert frame.tokens.sum() == sum(run.tokens for run in plan.runs)
    assert json.loads(json.dumps(plan.to_dict()))["runs"][0]["params"] == plan.runs[0].params
    assert "transformer++" in plan._repr_html_()


def test_fields_that_differ_or_are_left_out_read_back(plan: Plan, tmp_path: Path):
    alone = Plan(plan.runs[:1])
    alone.save(tmp_path / "one.yaml")
    assert Plan.load(tmp_path / "one.yaml") == alone


def test_the_same_plan_may_be_written_again_another_not(plan: Plan, tmp_path: Path):
    path = tmp_path / "plan.yaml"
    plan.save(path)
    plan.save(path)
    with pytest.raises(ArchlabError, match="another plan is there: choose another name or remove it"):
        Plan(plan.runs[:1]).save(path)
    assert Plan.load(path) == plan
    with pytest.raises(ArchlabError, match="there is no directory"):
        plan.save(tmp_path / "nowhere" / "plan.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 10}, r"tokens=\d+ contradicts the \d+ of steps x batch_size x length"),
        ({"tokens": 1}, "tokens=1 contradicts"),
        ({"dim": 44}, r"params=\d+ contradicts the \d+ of the spec at width 44"),
        ({"spec": "mh-attention(heads=1) swiglu"}, r"params=\d+ contradicts"),
        ({"spec": "mh-atention swiglu"}, "unknown layer 'mh-atention': did you mean 'mh-attention'"),
        ({"spec": "mh-attention(heads=5) swiglu"}, r"mh-attention\(heads=5\): width \d+ does not split"),
        ({"params_non_embedding": 1}, "params_non_embedding=1 contradicts"),
        ({"state": 1}, "state=1 contradicts"),
        ({"flops": 5}, r"flops=5 contradicts the \d+ of its tokens by the convention exact"),
        ({"convention": "paper"}, r"flops=\d+ contradicts the \d+ of its tokens by the convention paper"),
        ({"convention": "papers"}, "convention='papers': give one of exact, paper, 6nd"),
        ({"budget": 3e11}, r"budget=3e\+11 is not within 1 % of flops=2\S+: \d+ steps would be nearest"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: give a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: give a finite number above 0"),
        ({"learning_rate": "fast"}, "learning_rate='fast': give a number above 0"),
        ({"seed": -1}, "seed=-1: give a whole number from 0 to 9223372036854775807"),
        ({"batch_size": 0}, "batch_size=0: give a whole number of at least 1"),
        ({"steps": True}, "steps=True: give a whole number of at least 1"),
    ],
)
def test_a_run_that_contradicts_itself_is_refused(plan: Plan, change: dict, message: str, tmp_path: Path):
    wrong = Plan((replace(plan.runs[0], **change), *plan.runs[1:]))
    wrong.save(tmp_path / "plan.yaml")
    with pytest.raises(ArchlabError, match=message) as refused:
        Plan.load(tmp_path / "plan.yaml")
    assert str(refused.value).startswith(f"plan {tmp_path / 'plan.yaml'}: run 1 (transformer++, width ")
    assert "\n" not in str(refused.value)


def test_runs_that_do_not_belong_together_are_refused(plan: Plan):
    first = plan.runs[0]
    half = {"batch_size": first.batch_size // 2, "steps": 2 * first.steps}
    for change, message in [
        (half, r"batch_size: budget 2e\+11 has 8 \(transformer.* and 16 \(.*: all architectures of a budget need the same"),
        ({"corpus": "other"}, r"corpus: .*other.*: losses compare only if it is the same in all runs"),
        ({"corpus_hash": "abc"}, "corpus_hash: None, abc: losses compare only"),
        ({"seed": 2**63}, "seed=9223372036854775808: give a whole number from 0 to 9223372036854775807"),
        ({"seed": 1}, "runs: transformer.* and transformer.* are the same training run: delete one of them"),
    ]:
        with pytest.raises(ArchlabError, match=message):
            Plan((replace(first, **change), *plan.runs[1:])).check()
    with pytest.raises(ArchlabError, match="runs: the plan has none"):
        Plan(()).check()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: []", r"runs=\[\]: give a list of mappings of names to values that is not empty"),
        ("[1, 2]", "give a mapping"),
        ("runs: [{label: a}]", "run 1: spec is missing: give text"),
        ("runs: [{labl: a}]", "run 1: unknown field 'labl': did you mean 'label'"),
        ("all: {sead: 1}\nruns: [{label: a}]", "run 1: unknown field 'sead': did you mean 'seed'"),
        ("runs: [{", "not YAML"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, message: str, tmp_path: Path):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ArchlabError, match=message):
        Plan.load(path)


def test_a_missing_plan_is_named():
    with pytest.raises(ArchlabError, match=r"plan nowhere\.yaml does not exist: `archlab scale plan SPEC"):
        Plan.load("nowhere.yaml")
