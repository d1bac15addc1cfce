import pytest

from archlab.errors import ArchlabError
from archlab.fields import read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2E+4", -2e4),
        ("1.e3", 1e3),
        ("1.0e-3", 1e-3),
        ("0.1", 0.1),
        ("12", 12),
        ("true", True),
        ("cosine", "cosine"),
        ("1e", "1e"),
        ("e-3", "e-3"),
        ("'1e-3'", "1e-3"),
        ("[1e-3, 2]", [1e-3, 2]),
    ],
)
def test_numbers_are_what_they_look_like(text, value):
    read = read_yaml(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["{", "[1", "a: b: c", "2024-99-99", "\x00", "{a: 1, b: 2, a: 1}", "a: 1\nb:\n  c: 1\n  c: 2"])
def test_what_is_not_yaml_is_refused_in_one_line(text):
    with pytest.raises(ArchlabError, match=r"^not YAML: ") as refusal:
        read_yaml(text)
    assert "\n" not in str(refusal.value)
