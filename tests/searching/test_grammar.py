import pytest

from archlab.errors import ArchlabError
from archlab.searching.grammar import Grammar


def texts(spec: str, **rules: tuple[str, ...]) -> list[str]:
    return [text for _, text in Grammar(spec, rules, {}).derivations()]


def test_each_reference_is_chosen_by_itself():
    assert texts("{layer:2} end", layer=("a", "b")) == ["a a end", "a b end", "b a end", "b b end"]
    assert texts("{n}*[{layer}]", n=("2", "3"), layer=("a",)) == ["2*[a]", "3*[a]"]
    assert texts("a(k={8|16}) {b|c d}") == ["a(k=8) b", "a(k=8) c d", "a(k=16) b", "a(k=16) c d"]


def test_a_rule_of_once_is_chosen_once():
    grammar = Grammar("{x} {x} {y:2}", {"y": ("{x} p", "q")}, {"x": ("a", "b{1|2}")})
    found = [text for _, text in grammar.derivations()]
    assert found[:4] == ["a a a p a p", "a a a p q", "a a q a p", "a a q q"]
    assert len(found) == len(set(found)) == grammar.num_derivations == 12


def test_choices_have_names_that_say_where_they_stand():
    rules = {"block": ("{mixer} {mixer}", "{mixer}"), "mixer": ("a(k={1|2})", "b", "b(j={1|2})")}
    names = {name for choices, _ in Grammar("{block:2}", rules, {}).derivations() for name in choices}
    assert {"block.1", "block.1=#1.mixer.2", "block.2=#2.mixer"} <= names
    assert {"block.1=#1.mixer.1=a.k", "block.1=#2.mixer=b#3.j"} <= names


def test_derivations_are_counted_without_being_made():
    rules = {"a": ("{b}", "{b:2}", "x"), "b": ("1", "2")}
    assert Grammar("{a:3}", rules, {}).num_derivations == (2 + 4 + 1) ** 3
    assert len(texts("{a:3}", **rules)) == 7**3


def test_asking_by_name_gives_the_choices_back():
    grammar = Grammar("{a:2}", {"a": ("x(k={1|2})", "y")}, {})
    for choices, text in grammar.derivations():
        assert grammar.derive(lambda name, _, choices=choices: choices[name]) == text


@pytest.mark.parametrize(
    ("spec", "rules", "reason"),
    [
        ("{layr}", {"layer": ("a",)}, "unknown rule 'layr': did you mean 'layer'"),
        ("{a}", {"a": ("{b}",), "b": ("x {a}", "y")}, "rule a refers to itself"),
        ("{a", {"a": ("x",)}, "a brace stands alone"),
        ("{a:0}", {"a": ("x",)}, "give a number from 1 to 1000, as in {a:6}"),
        ("{a:b}", {"a": ("x",)}, "give a number from 1 to 1000"),
        ("x", {"a": ("x",)}, "rule a is used nowhere"),
        ("{a.1}", {"a.1": ("x",)}, "rule 'a.1': give a name of letters, digits, _ and -"),
        ("{a:100}", {"a": ("{b:100}",), "b": ("x", "y")}, "'{a:100}': more than 1,000 choices in one spec"),
        ("{r0}", {f"r{n}": (f"{{r{n + 1}}} {{r{n + 1}}}",) for n in range(40)} | {"r40": ("x",)}, "more than 1,000 choices"),
        ("{r0}", {f"r{n}": (f"{{r{n + 1}}}",) for n in range(2000)} | {"r2000": ("x",)}, "more than 50 rules stand within each"),
        (
            " ".join(f"{{r{n}}}" for n in reversed(range(2001))),
            {f"r{n}": (f"{{r{n + 1}}}",) for n in range(2000)} | {"r2000": ("x",)},
            "more than 50 rules stand within each",
        ),
    ],
)
def test_a_wrong_grammar_is_refused(spec: str, rules: dict[str, tuple[str, ...]], reason: str):
    with pytest.raises(ArchlabError, match=reason):
        Grammar(spec, rules, {})
