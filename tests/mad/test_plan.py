import json

import pytest
from tests.synthetic_records import PROVENANCE, result

from archlab.mad.architecture_score import SeedScore
from archlab.mad.plan import Plan, at_equal_state, make_plan, score_plan
from archlab.mad.protocol import Protocol, parse_protocol
from archlab.mad.store import TrialStore
from archlab.mad.trial import Trial

TEXT = """
summary: a small one
dim: 32
layer_defaults: {mh-attention: {heads: 2}}
seeds: [0]
grid: {learning_rate: [1.0e-3], weight_decay: [0.0]}
recipe: {steps: 8}
tasks: {compression: {base: {length: 8}}}
"""


@pytest.fixture(name="protocol")
def fixture_protocol() -> Protocol:
    return parse_protocol("small", TEXT)


@pytest.fixture(name="store")
def fixture_store(tmp_path):
    with TrialStore(tmp_path / "a.db") as store:
        yield store


def labels(plan: Plan) -> list[str]:
    return [value.label for value in plan.architectures]


def test_an_architecture_counts_once_however_it_is_written(protocol):
    plan = make_plan(protocol, ["mlp", "transformer++", "mlp()", "2*[mh-attention(heads=2) swiglu]"])
    assert labels(plan) == ["mlp", "transformer++"]
    assert len(plan.trials()) == 2


def test_plans_round_trip_through_json_with_their_names_and_keys(protocol):
    plan = make_plan(protocol, ["transformer++", "mlp swiglu"], "cuda")
    read = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert read == plan
    assert labels(read) == labels(plan) == ["transformer++", "mlp swiglu"]
    assert [trial.key for trial in read.trials()] == [trial.key for trial in plan.trials()]


def test_a_plan_at_equal_state_reads_back_as_it_is(protocol):
    plan = make_plan(protocol, ["mamba", "1*mamba(d_state=2)", "2*[mamba swiglu]", "transformer++"])
    normal, found = at_equal_state(plan, 256)
    assert [value.state for value in found] == [256, 256, 256, 2 * 2 * 8 * 32]
    assert labels(normal) == ["4*mamba(d_state=1)", "1*mamba", "2*[mamba(d_state=2) swiglu]", "transformer++"]
    assert Plan.from_dict(json.loads(json.dumps(normal.to_dict()))) == normal
    assert {heads for value in normal.architectures for x in value.layers if (heads := getattr(x, "heads", 0))} == {2}


class EarlierTrial(Trial):
    """A trial as an earlier version of the code would have known it."""

    key = "0" * 32


def earlier(trial: Trial) -> Trial:
    return EarlierTrial(**{name: getattr(trial, name) for name in trial.__dataclass_fields__})


def finish(store: TrialStore, trial: Trial, right: int) -> None:
    store.claim([trial], 1)
    store.finish(trial, result(trial, [right]), PROVENANCE)


def seed_score(store: TrialStore, plan: Plan) -> SeedScore:
    return score_plan(store, plan, {}).architectures[0].tasks[0].settings[0].seeds[0]


@pytest.mark.parametrize("present_first", [True, False])
def test_a_result_of_the_present_code_counts_before_that_of_an_earlier_version(store, protocol, present_first):
    plan = make_plan(protocol, ["mlp"])
    (trial,) = plan.trials()
    order = [(trial, 3), (earlier(trial), 1)]
    for version, right in order if present_first else reversed(order):
        finish(store, version, right)
    assert seed_score(store, plan).score == 0.75


def test_a_result_of_an_earlier_version_counts_where_the_present_has_none(store, protocol):
    plan = make_plan(protocol, ["mlp"])
    (trial,) = plan.trials()
    assert seed_score(store, plan).missing
    finish(store, earlier(trial), 1)
    assert seed_score(store, plan).score == 0.25
    store.claim([trial], 1)
    assert seed_score(store, plan).score == 0.25  # while the present version runs
    store.fail(trial, "unlucky", PROVENANCE)
    assert seed_score(store, plan).score == 0.25


def test_an_earlier_versions_result_counts_though_the_present_version_was_stored_before(store, protocol):
    plan = make_plan(protocol, ["mlp"])
    (trial,) = plan.trials()
    store.claim([trial], 1)
    finish(store, earlier(trial), 1)
    assert seed_score(store, plan).score == 0.25


def test_what_else_a_store_holds_is_left_out(store, protocol):
    for trial in make_plan(protocol.with_seeds([0, 1]), ["mlp", "swiglu"]).trials():
        finish(store, trial, 2)
    scores = score_plan(store, make_plan(protocol, ["mlp"]), {})
    assert [record.job.seed for record in scores.records] == [0]
    assert [a.label for a in scores.architectures] == ["mlp"]
