from pathlib import Path

import numpy as np
import pytest
from tests.searching.spaces import SMOKE, VARIED, space, truth

from archlab.errors import ArchlabError
from archlab.searching.pareto import front
from archlab.searching.proposers import FIRST, PROPOSERS, Evaluated, Proposal, make_proposer
from archlab.searching.space import Space, load_space

STACKS = load_space("stacks6", SMOKE)


def _asked(name: str) -> str:
    if name == "tpe":
        pytest.importorskip("optuna")
    return name


def losses(one: Proposal) -> tuple[float, float]:
    return -truth(one.architecture), float(one.architecture.state_size(length=16, dim=32) or 0)


def searched(name: str, seed: int, number: int = 24, batch: int = 4, of: Space = STACKS) -> list[Evaluated]:
    done: list[Evaluated] = []
    while len(done) < number:
        proposals = make_proposer(name, of, seed, lambda one: (None, losses(Proposal(one, {}, ""))[1])).propose(
            done, min(batch, number - len(done))
        )
        if not proposals:
            break
        done += [Evaluated(one, losses(one)) for one in proposals]
    return done


@pytest.mark.parametrize("name", PROPOSERS)
def test_a_proposer_depends_on_its_seed_and_the_results_only_and_proposes_nothing_twice(name: str):
    done = searched(_asked(name), 3)
    assert done == searched(name, 3)
    assert len({one.proposal.architecture for one in done}) == 24
    assert {one.architecture for one in STACKS.members} >= {one.proposal.architecture for one in done}
    for number, one in enumerate(done):
        assert all(parent < number for parent in one.proposal.parents)
    if name != "exhaustive":
        assert searched(name, 4) != done


@pytest.mark.parametrize("name", PROPOSERS)
def test_a_proposer_ends_when_nothing_is_left(name: str):
    assert len(searched(_asked(name), 0, number=100, batch=28)) == 64


@pytest.mark.parametrize("name", ["nsga2", "guided", "tpe"])
def test_results_lead_to_the_front_more_often_than_chance_does(name: str):
    table = np.array([losses(Proposal(one.architecture, one.choices, "")) for one in STACKS.members])
    best = {tuple(table[index]) for index in front(table)}

    def found(proposer: str) -> float:
        each = [{one.losses for one in searched(proposer, seed)} for seed in range(6)]
        return float(np.mean([len(best & seen) / len(best) for seen in each]))

    assert found(_asked(name)) > found("random") + 0.1


@pytest.mark.parametrize("name", ["nsga2", "guided", "tpe", "random"])
def test_proposals_of_a_varied_space_are_its_members_also_after_failures(name: str, tmp_path: Path):
    varied = space(VARIED, tmp_path)
    done = searched(_asked(name), 0, FIRST, of=varied)
    lost = [Evaluated(one.proposal, None if number % 2 else one.losses) for number, one in enumerate(done)]
    for known in (lost, [Evaluated(one.proposal, None) for one in done]):
        new = make_proposer(name, varied, 0).propose(known, 6)
        assert len(new) == 6
        assert {one.architecture for one in new} <= {one.architecture for one in varied.members}
        assert {one.architecture for one in new}.isdisjoint(one.proposal.architecture for one in done)


def test_an_unknown_proposer_is_refused():
    with pytest.raises(ArchlabError, match="unknown proposer 'nsga': did you mean 'nsga2'"):
        make_proposer("nsga", STACKS)
