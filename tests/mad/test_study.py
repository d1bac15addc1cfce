"""A study in a file: every field counts, and a wrong one is named."""

import re

import pytest

import archlab
from archlab.errors import ArchlabError
from archlab.mad.protocol import load_protocol
from archlab.mad.study import read_study

FULL = """
protocol: smoke
seeds: 2
tasks: [compression]
settings: base
set: {recipe.steps: 7, length: 12}
architectures:
  wide: 2*[mamba(d_state=32) swiglu]
  baseline: transformer++
"""


def write(path, text):
    path.write_text(text)
    return path


def test_every_field_counts(tmp_path):
    protocol, architectures = read_study(write(tmp_path / "study.yaml", FULL))
    assert (protocol.name, protocol.seeds, list(protocol.tasks)) == ("smoke", (0, 1), ["compression"])
    (setting,) = protocol.tasks["compression"].settings
    assert (setting.length, protocol.tasks["compression"].recipe.steps) == (12, 7)
    assert [value.label for value in architectures] == ["wide", "baseline"]
    assert str(architectures[0]) == "2*[mamba(d_state=32) swiglu]"


def test_specs_may_stand_without_labels_and_the_rest_is_the_protocols(tmp_path):
    protocol, architectures = read_study(write(tmp_path / "s.yaml", "protocol: smoke\narchitectures: [transformer++, 1*mamba]"))
    assert protocol == load_protocol("smoke")
    assert [value.label for value in architectures] == ["transformer++", "1*mamba"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("architectures: [mlp]", "study .*: protocol is missing"),
        ("protocol: smoke", "architectures is missing"),
        (
            "protocol: smoke\narchitectures: []",
            r"architectures=\[\]: give a mapping of names to values, or a list of texts that is not empty",
        ),
        ("protocol: smok\narchitectures: [mlp]", "unknown protocol 'smok': did you mean 'smoke'"),
        ("protocol: smoke\narchitecture: [mlp]", "study.yaml: unknown field 'architecture': did you mean 'architectures'"),
        ("protocol: smoke\narchitectures: {a: 3}", "architectures.a=3: give text"),
        ("protocol: smoke\narchitectures: [mlp]\nsettings: some", "settings='some': give one of all, base"),
        ("protocol: smoke\narchitectures: [mlp]\nseeds: [a]", "seeds='a': give a whole number of at least 0"),
        ("protocol: smoke\narchitectures: [mlp]\nset: {recipe.stepz: 1}", "stepz"),
        ("protocol: [", "not YAML"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, text, message):
    with pytest.raises(ArchlabError, match=message) as refusal:
        read_study(write(tmp_path / "study.yaml", text))
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ArchlabError, match=r"study .*none\.yaml: cannot be read: no such file"):
        read_study(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("specs", "protocol", "reason"),
    [
        ("st.yaml", "quick", "protocol: the study st.yaml names its own: change it there"),
        (["st.yaml", "mamba"], None, "study st.yaml: stands alone, it names its architectures: add yours to the file"),
        (["mamba", "st.yaml"], None, "study st.yaml: stands alone"),
    ],
)
def test_a_study_stands_alone(tmp_path, monkeypatch, specs, protocol, reason):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "st.yaml", FULL)
    for ask in (archlab.preview, archlab.run):
        with pytest.raises(ArchlabError, match=reason):
            ask(specs, protocol)


@pytest.mark.parametrize(
    ("architectures", "reason"),
    [
        ("{a: mamba, b: mamba}", "architectures: a and b are the same, 4*mamba: leave one out"),
        ("{a: 4*mamba, b: '4*[mamba]'}", "architectures: a and b are the same, 4*mamba"),
        ("{'': mamba}", "architectures: label '' of 4*mamba: give it a name"),
        ('{"a\\e[31m": mamba}', "architectures: label 'a\\x1b[31m' of 4*mamba: give it a name that can be printed"),
        ("{' ': mamba}", "architectures: label ' ' of"),
        ("{'a ': mamba, a: hyena}", "architectures: label 'a ' of 4*mamba: it begins or ends with a space"),
        ("{'2*[mamba swiglu]': hyena, b: '2*[mamba swiglu]'}", "architectures: label '2*[mamba swiglu]' is the spec of another"),
        ("{hyena: mamba, b: hyena}", "architectures: label 'hyena' is the catalogue's name of another architecture"),
    ],
)
def test_labels_that_would_mislead_are_refused(tmp_path, architectures, reason):
    with pytest.raises(ArchlabError, match=re.escape(reason)):
        read_study(write(tmp_path / "study.yaml", f"protocol: smoke\narchitectures: {architectures}"))


def test_an_architecture_of_the_catalogue_keeps_its_name_beside_the_protocols_knobs(tmp_path):
    _, found = read_study(write(tmp_path / "study.yaml", "protocol: smoke\narchitectures: {transformer++: transformer++}"))
    assert [(one.label, str(one)) for one in found] == [("transformer++", "2*[mh-attention(heads=2) swiglu]")]
