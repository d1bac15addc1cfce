"""Which documents are held out."""

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archlab.corpora.split import held_out
from archlab.errors import ArchlabError


def digest(name: object) -> bytes:
    return blake2b(str(name).encode(), digest_size=16).digest()


@pytest.mark.parametrize("number", [100, 1000])
def test_held_out_documents_are_as_long_as_the_others(number: int):
    rng = np.random.default_rng(0)
    held, left = [], []
    for _ in range(200_000 // number):
        random = rng.bytes(16 * number)
        hashes = (random[n : n + 16] for n in range(0, len(random), 16))
        size_of = dict(zip(hashes, map(int, 1 + 1000 * rng.lognormal(0, 1.2, number)), strict=True))
        if max(size_of.values()) > sum(size_of.values()) / 2:
            continue
        chosen = held_out(size_of, 0.05, "x")
        held.append(np.mean([size_of[x] for x in chosen]))
        left.append(np.mean([size for x, size in size_of.items() if x not in chosen]))
    assert np.mean(held) / np.mean(left) == pytest.approx(1, abs=0.05)  # it was 0.4 for 100 documents


def test_most_documents_stay_where_they_are_when_others_are_added():
    few, many = ({digest(n): 10 for n in range(number)} for number in (1000, 2000))
    assert held_out(few, 0.05, "x") == held_out(many, 0.05, "x") & few.keys()


@given(
    st.dictionaries(st.binary(min_size=16, max_size=16), st.integers(1, 10**9), min_size=2, max_size=60), st.floats(0.001, 0.999)
)
def test_both_splits_have_documents(size_of: dict[bytes, int], fraction: float):
    if max(size_of.values()) > sum(size_of.values()) / 2:
        with pytest.raises(ArchlabError, match="of all bytes"):
            held_out(size_of, fraction, "x")
        return
    chosen = held_out(size_of, fraction, "x")
    assert chosen == held_out(dict(reversed(size_of.items())), fraction, "x")
    assert 0 < len(chosen) < len(size_of)
    assert sum(size_of[x] for x in chosen) <= (1 + fraction) / 2 * sum(size_of.values())


@pytest.mark.parametrize("number", range(2, 30))
def test_chance_neither_empties_nor_swells_the_split_of_few_documents(number: int):
    for study in range(50):
        assert 1 <= len(held_out({digest((study, n)): 5 for n in range(number)}, 0.05, "x")) <= 1 + 0.1 * number


def test_one_document_that_is_nearly_all_is_refused_with_a_way_out():
    sizes = {digest(n): 100 for n in range(500)} | {digest("long"): 10**7}
    with pytest.raises(
        ArchlabError,
        match=r"^corpus x: one of its 501 documents, equal ones counted as one, has 100% of all bytes.*: cut it into several",
    ):
        held_out(sizes, 0.05, "x")
