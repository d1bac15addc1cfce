import pickle

import pytest

from archlab.errors import ArchlabError, in_one_line, unknown


def test_a_near_name_is_suggested():
    error = unknown("layer", "atention", ["mamba", "attention", "mh-attention"])
    assert str(error) == "unknown layer 'atention': did you mean 'attention'?"


def test_without_a_near_name_all_are_listed_in_order():
    error = unknown("task", "xyz", ["recall", "copying"])
    assert str(error) == "unknown task 'xyz': known: copying, recall"


def test_of_many_names_the_nearest_few_are_listed():
    error = str(unknown("class", "Xyz1", [f"name{n}" for n in range(100)]))
    assert error.count("name") == 20
    assert "name1, " in error
    assert error.endswith(" and 80 more")


def test_the_error_is_a_value_error():
    with pytest.raises(ValueError, match="known: a"):
        raise unknown("thing", "?", ["a"])
    assert isinstance(unknown("thing", "?", ["a"]), ArchlabError)


def test_a_message_is_one_line_whatever_names_it_holds():
    error = ArchlabError("no field 'text': it has a\nb, c\r\nd: choose one")
    assert str(error) == "no field 'text': it has a b, c d: choose one"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


class MuteError(Exception):
    def __str__(self):
        raise ValueError("no")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MuteError(), "MuteError: its message cannot be had"),
        (ValueError("a\n\x00\x1b[31mb"), "ValueError: a [31mb"),
        (ValueError("m" * 5_000_000), f"ValueError: {'m' * 2000} ..."),
        (ArchlabError("m" * 3000), "m" * 3000),
        (ValueError(), "ValueError"),
    ],
)
def test_the_line_of_an_exception_of_others(error, line):
    assert in_one_line(error) == line
