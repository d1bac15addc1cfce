"""archlab tasks list and show."""

import json

import pytest
from typer.testing import CliRunner

from archlab.cli.tasks import app
from archlab.errors import ArchlabError
from archlab.mad.protocol import load_protocol
from archlab.tasks import registry, sample, setting


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list_names_every_task():
    text = printed("list")
    assert all(name in text for name in registry())
    document = json.loads(printed("list", "--json"))
    assert [entry["task"] for entry in document] == list(registry())
    compression = next(entry for entry in document if entry["task"] == "compression")
    assert compression["knobs"] == {"vocab_size": 16, "length": 32, "num_train_examples": 12_800, "num_tokens": 0}
    assert [entry["short"] for entry in document][:6] == ["recall", "noisy", "fuzzy", "copy", "compression", "memorization"]


def test_show_prints_the_sequence_that_sample_draws():
    options = ["--split", "train", "--seed", "3", "--set", "length=12", "--set", "multi_query=false"]
    document = json.loads(printed("show", "in-context-recall", "--json", *options))
    inputs, targets = sample("in-context-recall", "train", n=1, seed=3, length=12, multi_query=False)
    assert document["inputs"] == inputs[0].tolist()
    assert document["targets"] == targets[0].tolist()
    assert document["roles"] == {"key": [0, 7], "value": [7, 15], "copy": [15, 16]}
    text = printed("show", "in-context-recall", *options)
    roles = [*(f"k{i}" for i in range(7)), *(f"v{i}" for i in range(8)), ">"]
    assert " ".join(roles[i] for i in inputs[0]) in " ".join(text.split())


def test_show_takes_a_short_name_and_says_what_guessing_reaches():
    assert printed("show", "recall") == printed("show", "in-context-recall")
    first = " ".join(printed("show", "recall", "--set", "vocab_size=8", "--set", "length=4").split())
    knobs = "vocab_size=8, length=4, num_train_examples=12800, multi_query=True, keys_per_sequence=0"
    assert first.startswith(f"in-context-recall: {knobs}. Guessing reaches 25.0 %.")


def test_show_draws_what_a_protocol_trains_and_says_what_it_varies():
    document = json.loads(printed("show", "recall", "--protocol", "quick", "--json"))
    base = load_protocol("quick").tasks["in-context-recall"].settings[0]
    assert document["knobs"] == base.knobs() != setting("recall").knobs()
    assert document["chance"] == base.chance
    assert "The protocol also has" not in printed("show", "recall", "--protocol", "quick")
    text = " ".join(printed("show", "compression", "--protocol", "paper", "--set", "length=8").split())
    assert text.startswith("compression: vocab_size=16, length=8, ")
    assert "The protocol also has vocab_size=32, 64, 128; length=64, 128, 256; num_train_examples=6400, 3200" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "quik"], "unknown protocol 'quik': did you mean 'quick'?"),
        (["--set", "length"], "--set length: write KEY=VALUE"),
        (["--set", "length=[1"], "--set length=[1: write KEY=VALUE"),
        (["--set", "length=many"], "length='many': give a whole number from 1 to 1048576"),
        (["--set", "lenght=8"], "unknown knob of compression: 'lenght': did you mean 'length'?"),
    ],
)
def test_show_refuses_what_cannot_be_set(arguments: list[str], message: str):
    with pytest.raises(ArchlabError) as refusal:
        printed("show", "compression", *arguments)
    assert message in str(refusal.value)
