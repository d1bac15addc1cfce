from tests.synthetic_records import plan, score, simulate

from archlab.designs.decision import Decision
from archlab.tasks import setting


def scores(truth, seed, specs=("mlp", "swiglu", "mamba")):
    trials = plan(specs, [setting("in-context-recall")], seeds=(seed,))
    return score(trials, simulate(trials, lambda trial: truth[trial.architecture.label]))


def test_the_best_is_that_of_fresh_seeds_where_there_are_such():
    first = scores({"mlp": 0.5, "swiglu": 0.9, "mamba": 0.8}, 0)
    fresh = scores({"mlp": 0.9, "swiglu": 0.4, "mamba": 0.8}, 1)
    without_candidates = scores({"mlp": 0.9}, 1, ["mlp"])
    for found, best in ((fresh, "mamba"), (None, "swiglu"), (without_candidates, "swiglu")):
        decision = Decision(
            space="three", reference="mlp", scores=first, fresh=found, shortlist=(), fit="no time", correlation="no losses",
            stages=(), not_tried=(),
        )  # fmt: skip
        assert decision.headline.startswith(f"{best} scores best of the candidates")
