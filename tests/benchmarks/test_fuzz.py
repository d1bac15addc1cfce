"""Damaged and hostile input raises nothing but ArchlabErrors; ``python -m benchmarks.fuzz`` tries more of it."""

import random
from pathlib import Path

from benchmarks.fuzz import Count, fuzz, surfaces


def test_no_input_raises_anything_but_refusals(tmp_path: Path):
    counts: dict[str, Count] = {}
    fuzz(tmp_path, random.Random(0), counts, rounds=1, cases=6)
    assert {name: count.raised for name, count in counts.items() if count.raised} == {}
    assert all(count.cases == 6 for count in counts.values())
    assert sum(count.refused for count in counts.values()) > 20


def test_what_is_mutated_is_accepted_as_it_is(tmp_path: Path):
    for examples, run in surfaces(tmp_path).values():
        for example in examples:
            assert run(example, random.Random(0)) is not None
