import pytest

from archlab.errors import ArchlabError
from archlab.mad import submission
from archlab.mad.plan import make_plan
from archlab.mad.protocol import load_protocol
from archlab.mad.store import TrialStore
from archlab.store.submissions import Submissions


@pytest.fixture
def opened(tmp_path):
    TrialStore(tmp_path / "archlab.db").close()
    with Submissions(tmp_path / "archlab.db") as submissions:
        yield submissions


def read(opened, plan, keys=None, what=None, device="cpu", slots=1):
    trials = plan.trials()
    described = what or submission.describe(plan, "exact", None)
    opened.submit(1, "mad", described, keys or [trial.key for trial in trials], 0)
    return submission.read(opened.open()[-1], opened, slots, device)


@pytest.fixture
def plan():
    return make_plan(load_protocol("smoke").with_tasks(["copy"]), ["mlp", "mamba swiglu"])


def test_a_worker_reads_the_trials_that_were_submitted(opened, plan):
    order = read(opened, plan)
    assert (order.jobs, order.left) == (plan.trials(), "")
    assert (order.policy.race, order.policy.group_size) == ("exact", 1)


def test_trials_of_code_that_is_not_known_or_another_are_left(opened, plan):
    keys = [trial.key for trial in plan.trials()]
    elsewhere = submission.describe(plan, "off", 2)
    elsewhere["plan"]["architectures"][0]["spec"] = "their_layers.Mixer swiglu"
    order = read(opened, plan, what=elsewhere)
    assert [trial.architecture for trial in order.jobs] == [plan.architectures[1]]
    assert order.left.startswith("1 of 2 trials are left to others: the layers of their_layers.Mixer swiglu are not known here")
    order = read(opened, plan, keys=["other code", keys[1]])
    assert order.jobs == plan.trials()[1:]
    assert "the code or a library of this machine is another version than the submitter's" in order.left


def test_trials_for_another_device_or_more_memory_are_left(opened, plan, monkeypatch):
    assert "they are for --device cpu" in read(opened, plan, device="cuda").left
    monkeypatch.setattr("archlab.mad.memory.available_bytes", lambda: 1 << 20)
    order = read(opened, plan, slots=4)
    assert order.jobs == []
    assert "2 of 2 trials are left to others: they need more memory than this machine has free" in order.left


def test_a_submission_of_another_archlab_is_refused(opened, plan):
    what = submission.describe(plan, "exact", None)
    with pytest.raises(ArchlabError):
        read(opened, plan, what=what | {"race": "of the future"})
    with pytest.raises(KeyError):
        read(opened, plan, what={"plan": what["plan"]})
