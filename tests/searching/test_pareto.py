import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from archlab.searching.pareto import best_first, crowding, front, hypervolume, ranks

points = arrays(float, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.integers(0, 5).map(float))


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a <= b).all() and (a < b).any())


@given(points)
def test_no_point_of_a_rank_dominates_another_and_each_is_dominated_from_the_rank_before(losses: np.ndarray):
    found = ranks(losses)
    for i, own in enumerate(found):
        above = [j for j in range(len(losses)) if dominates(losses[j], losses[i])]
        assert own == max((found[j] for j in above), default=-1) + 1
    assert front(losses) == [i for i, rank in enumerate(found) if rank == 0]


@given(points)
def test_the_order_is_by_rank_and_whole(losses: np.ndarray):
    order = best_first(losses)
    assert sorted(order) == list(range(len(losses)))
    found = [ranks(losses)[index] for index in order]
    assert found == sorted(found)


def test_of_equal_points_all_are_on_the_front():
    assert front(np.array([(1, -5), (2, -4), (2, -9), (2, -9), (3, -9), (4, -10)])) == [0, 2, 3, 5]


def test_points_at_the_ends_stand_alone():
    assert crowding(np.array([[0.0, 4.0], [1.0, 2.0], [1.5, 1.0], [4.0, 0.0]])) == [
        np.inf,
        pytest.approx(1.5 / 4 + 3 / 4),
        pytest.approx(3 / 4 + 2 / 4),
        np.inf,
    ]
    assert best_first(np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 4.0], [4.0, 0.0]]))[:2] == [2, 3]


@given(points)
def test_a_hypervolume_is_the_fraction_of_a_grid_that_is_dominated(losses: np.ndarray):
    width = losses.shape[1]
    cells = np.stack(np.meshgrid(*[np.arange(6)] * width), -1).reshape(-1, width)  # the unit cubes within (6, ..., 6)
    covered = (losses[None] <= cells[:, None]).all(-1).any(1).sum()
    assert hypervolume(losses, [6.0] * width) == pytest.approx(covered)
    assert hypervolume(losses, [0.0] * width) == 0.0
