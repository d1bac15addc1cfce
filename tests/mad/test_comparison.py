import numpy as np
import pytest
from tests.synthetic_records import plan, record, result, score, simulate

from archlab.errors import ArchlabError
from archlab.mad.comparison import difference, differences_to_best
from archlab.mad.scores import Scores
from archlab.mad.trial import Trial
from archlab.tasks import setting

SPECS = ["2*mlp", "3*mlp", "4*mlp", "5*mlp"]
SETTINGS = [setting("in-context-recall"), setting("compression")]


def _truth(trial: Trial) -> float:
    return 0.3 + 0.1 * len(trial.architecture.layers)


@pytest.fixture(scope="module")
def scores() -> Scores:
    trials = plan(SPECS, SETTINGS)
    return score(trials, simulate(trials, _truth))


def test_difference_of_the_means(scores: Scores) -> None:
    by_label = {a.label: a for a in scores.architectures}
    found = difference(scores, "5*mlp", "2*mlp")
    assert found is not None
    assert by_label["5*mlp"].score is not None
    assert by_label["2*mlp"].score is not None
    assert found.mean == pytest.approx(by_label["5*mlp"].score - by_label["2*mlp"].score)
    assert found.interval.low < found.mean < found.interval.high
    assert found.superiority == 1.0
    reverse = difference(scores, "2*mlp", "5*mlp")
    assert reverse is not None
    assert reverse.mean == pytest.approx(-found.mean)
    assert reverse.interval.low == pytest.approx(-found.interval.high)


def test_pairing_removes_what_both_share() -> None:
    """Two models right on the same instances, one of them on one more: their scores are unsure, the order is not."""
    rng = np.random.default_rng(0)
    trials = plan(["2*mlp", "3*mlp"], SETTINGS[:1], seeds=(0,))
    shared = rng.integers(0, 4, size=300)
    records = {t.key: record(t, result(t, (shared + (t.architecture.layers.__len__() == 3)).tolist())) for t in trials}
    scores = score(trials, records)
    found = difference(scores, "3*mlp", "2*mlp")
    assert found is not None
    assert found.interval.low == pytest.approx(0.25)
    assert found.interval.high == pytest.approx(0.25)
    interval = scores.architectures[0].interval
    assert interval is not None
    assert interval.high - interval.low > 0.04


def test_level_architectures_are_not_separated() -> None:
    trials = plan(SPECS[:2], SETTINGS)
    scores = score(trials, simulate(trials, lambda _: 0.5))
    found = difference(scores, *(a.label for a in scores.architectures))
    assert found is not None
    assert found.interval.low < 0 < found.interval.high
    assert 0.5 <= found.superiority < 1.0


def test_a_difference_uses_what_both_have() -> None:
    trials = plan(SPECS[:2], SETTINGS)
    records = simulate(trials, _truth)
    gone = next(t for t in trials if t.setting == SETTINGS[0] and t.seed == 1 and len(t.architecture.layers) == 2)
    del records[gone.key]
    partial = difference(score(trials, records), "3*mlp", "2*mlp", "in-context-recall")
    without = [t for t in trials if not (t.seed == 1 and t.setting == SETTINGS[0])]
    both = difference(score(without, records), "3*mlp", "2*mlp", "in-context-recall")
    assert partial is not None
    assert both is not None
    assert partial.mean == pytest.approx(both.mean)
    assert partial.interval.low == pytest.approx(both.interval.low)


def test_a_tie_counts_half() -> None:
    trials = plan(SPECS[:2], SETTINGS[:1], seeds=(0,))
    level = score(trials, {t.key: record(t, result(t, [2, 2])) for t in trials})
    found = difference(level, *SPECS[:2])
    assert found is not None
    assert (found.mean, found.superiority, found.task) == (0.0, 0.5, None)
    often = score(trials, {t.key: record(t, result(t, [4, 0] if str(t.architecture) == SPECS[0] else [2, 2])) for t in trials})
    found = difference(often, *SPECS[:2], "in-context-recall")
    assert found is not None
    assert found.superiority == pytest.approx(0.5, abs=0.05), "better, level and worse by 1 : 2 : 1"
    assert found.task == "in-context-recall"


def test_only_what_both_have_is_compared_whichever_of_them_has_less() -> None:
    """Neither has all: the difference is that of the one setting and seed which both have."""
    trials = plan(SPECS[:2], SETTINGS, seeds=(0, 1))
    right = {(SETTINGS[0], 0): {"2*mlp": 1, "3*mlp": 3}}
    for lacking, other in ((SPECS[0], SPECS[1]), (SPECS[1], SPECS[0])):
        records = {}
        for t in trials:
            spec, cell = str(t.architecture), (t.setting, t.seed)
            both, one = cell in right, t.setting == SETTINGS[0] if spec == other else t.setting == SETTINGS[1]
            if both or one:
                records[t.key] = record(t, result(t, [right[cell][spec] if both else 4] * 3))
        scores = score(trials, records)
        for first, second, sign in (("3*mlp", "2*mlp", 1), ("2*mlp", "3*mlp", -1)):
            for task in (None, "in-context-recall"):
                found = difference(scores, first, second, task)
                assert found is not None
                assert found.mean == pytest.approx(sign * 0.5), lacking
            assert difference(scores, first, second, "compression") is None


def test_an_architecture_is_found_by_its_name_or_its_text() -> None:
    trials = plan(["transformer++", SPECS[0]], SETTINGS[:1], seeds=(0,))
    scores = score(trials, {t.key: record(t, result(t, [t.seed, 2])) for t in trials})
    assert scores.architectures[0].label == "transformer++"
    text = str(trials[0].architecture)
    by_text, by_name = (difference(scores, named, SPECS[0]) for named in (text, "transformer++"))
    assert by_text is not None
    assert by_name is not None
    assert by_text.mean == by_name.mean


def test_the_first_of_the_ranking_is_the_best() -> None:
    """Recall: 4 of 4, 3 and 2; compression: 0, 3 and nothing stored."""
    right = {"2*mlp": (4, 0), "3*mlp": (3, 3), "4*mlp": (2, None)}
    trials = plan(right, SETTINGS, seeds=(0,))
    known = {t.key: right[str(t.architecture)][SETTINGS.index(t.setting)] for t in trials}
    scores = score(trials, {t.key: record(t, result(t, [known[t.key]] * 3)) for t in trials if known[t.key] is not None})
    assert scores.architectures[0].label == "3*mlp"
    (first, _) = differences_to_best(scores)
    assert (first.first, first.second, first.task) == ("2*mlp", "3*mlp", None)


def test_who_lacks_tasks_does_not_lead_though_its_mean_is_higher() -> None:
    trials = plan(SPECS[:2], SETTINGS, seeds=(0,))
    right = {("2*mlp", SETTINGS[0]): 4, ("3*mlp", SETTINGS[0]): 2, ("3*mlp", SETTINGS[1]): 2}
    known = {t.key: right.get((str(t.architecture), t.setting)) for t in trials}
    scores = score(trials, {t.key: record(t, result(t, [known[t.key]] * 3)) for t in trials if known[t.key]})
    assert [a.label for a in scores.architectures] == ["3*mlp", "2*mlp"]
    (found,) = differences_to_best(scores)
    assert (found.first, found.second, found.mean) == ("2*mlp", "3*mlp", 0.5)
    assert scores.differences == (found,)


def test_nothing_in_common() -> None:
    trials = plan(SPECS[:2], SETTINGS[:1], seeds=(0,))
    records = {trials[0].key: record(trials[0], result(trials[0], [1, 2]))}
    assert difference(score(trials, records), "2*mlp", "3*mlp") is None


def test_differences_to_best(scores: Scores) -> None:
    assert [(x.first, x.second) for x in differences_to_best(scores)] == [
        ("4*mlp", "5*mlp"), ("3*mlp", "5*mlp"), ("2*mlp", "5*mlp")
    ]  # fmt: skip
    assert all(x.mean < 0 for x in differences_to_best(scores))


def test_unknown_names(scores: Scores) -> None:
    with pytest.raises(ArchlabError, match="unknown architecture '5mlp': did you mean '5\\*mlp'"):
        difference(scores, "5mlp", "2*mlp")
    with pytest.raises(ArchlabError, match="unknown task 'compresion': did you mean 'compression'"):
        difference(scores, "5*mlp", "2*mlp", "compresion")
