"""Orders: permutations, whatever the size, that can be read from anywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archlab.corpora.order import shuffled
from archlab.errors import ArchlabError


@settings(deadline=None)  # on a busy machine any example may take long
@given(size=st.integers(1, 3000), key=st.integers(0, 2**40))
def test_every_number_comes_once(size: int, key: int):
    assert sorted(shuffled(np.arange(size), size, key)) == list(range(size))


def test_it_can_begin_anywhere():
    size = 10**12
    places = np.array([0, 17, size - 1])
    order = shuffled(places, size, 5, 1)
    assert len(set(order)) == 3
    assert [int(shuffled(places[i : i + 1], size, 5, 1)[0]) for i in range(3)] == list(order)


def test_orders_of_different_keys_have_nothing_in_common():
    orders = [shuffled(np.arange(4096), 4096, seed, epoch) for seed in range(2) for epoch in range(2)]
    for i, one in enumerate(orders):
        assert abs(np.corrcoef(one, np.arange(4096))[0, 1]) < 0.08  # five standard deviations
        for other in orders[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.08
            assert (one == other).mean() < 0.005


def test_a_place_beyond_the_end_is_refused():
    with pytest.raises(ArchlabError, match="an order of 4 has places 0 to 3"):
        shuffled(np.array([4]), 4, 0)
