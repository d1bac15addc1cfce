"""Drawing a split: the same numbers for the same arguments, on every machine and in every version."""

import hashlib

import numpy as np
import pytest

from archlab.errors import ArchlabError
from archlab.tasks import sample, setting

SHA256 = {
    ("compression", "train"): "77b5924737cb8870f019237cb346719291a4aee7ef28e78bbc666f90a7ce8ca7",
    ("compression", "test"): "68cf32e07fa5cc88d053838960d04bd7b1b49b9942b9b24ebfcdb298adc60dfc",
    ("fuzzy-in-context-recall", "train"): "e1ceb521c2b6298953bfbda2fad09626e8e1d71b8b84dbc8fdc6ec000d355ea4",
    ("fuzzy-in-context-recall", "test"): "c2b693c0abba7492f44cfbeaa54e44c26f77d06c4f8e23fd417a973cf41f8b09",
    ("in-context-recall", "train"): "5d96e4ece3faccca29f47a9641e3da6ab4cc088f6c7a7b16a436c422f7494a6b",
    ("in-context-recall", "test"): "a599db8217a34d72fb0a5b2cff0774adb7f79abf38d0d804a8a7f5b6cc3392ab",
    ("memorization", "train"): "609336ec07a976ca6f206e7cbc43f76168add2da51fecc56ec24b328063f016a",
    ("memorization", "test"): "05bba03aaedff89d6160c5638061af7cd27ce659f573e4261bd154204528ff97",
    ("noisy-in-context-recall", "train"): "2cc3bcc1d5d581598c43f84fd80f90d32aafea18d30dc057b95050f7e1cee1d3",
    ("noisy-in-context-recall", "test"): "88f0d53e05960fa1be5af13a8b71b8d112f39f50aa062a58c3bcc784051a82a3",
    ("selective-copying", "train"): "d3f9c5bc6a4c2f8088d349b421cd60688c1d569fc7bc49080be9b3e159af19ae",
    ("selective-copying", "test"): "40ab92d1935da078cb19bec1ba080b3ee14b7830d023cef360317e25c1922098",
}


def digest(name: str, split: str) -> str:
    """Of the first 300 sequences at the base setting, inputs then targets, little-endian 64-bit."""
    arrays = sample(name, split, n=300, seed=7)
    return hashlib.sha256(b"".join(array.astype("<i8").tobytes() for array in arrays)).hexdigest()


@pytest.mark.parametrize(("name", "split"), SHA256)
def test_numbers_have_not_changed(name: str, split: str):
    assert digest(name, split) == SHA256[name, split], "other data than before: scores in stores are no longer comparable"


def test_splits_of_long_sequences_share_no_sequence():
    rows = [{row.tobytes() for row in sample("compression", split, n=2000)[0]} for split in ("train", "validation", "test")]
    assert [len(split) for split in rows] == [2000] * 3
    assert len(set.union(*rows)) == 6000


def test_settings_share_no_draw():
    assert (sample("compression", "test", length=32)[0] != sample("compression", "test", length=33)[0][:, 1:]).mean() > 0.8


def test_a_setting_or_its_name_and_knobs():
    by_name = sample("compression", "test", n=4, seed=3, length=8)
    by_value = sample(setting("compression", length=8), "test", n=4, seed=3)
    np.testing.assert_array_equal(by_name, by_value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "in-contxt-recall"}, "unknown task 'in-contxt-recall': did you mean 'in-context-recall'?"),
        ({"task": "compression", "lenght": 8}, "unknown knob of compression: 'lenght': did you mean 'length'?"),
        ({"task": "compression", "split": "tset"}, "split='tset': give one of train, validation, test"),
        ({"task": "compression", "n": -1}, "n=-1: give a whole number of at least 0"),
        ({"task": "compression", "seed": -1}, "seed=-1: give a whole number of at least 0"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict[str, object], message: str):
    with pytest.raises(ArchlabError) as refusal:
        sample(**arguments)
    assert message in str(refusal.value)


def test_knobs_beside_a_setting_are_refused():
    with pytest.raises(ArchlabError, match="change the setting instead"):
        sample(setting("compression"), length=8)


def test_a_knob_that_came_later_changes_nothing_at_its_default():
    knobs = {"vocab_size": 16, "length": 128, "num_train_examples": 12_800, "multi_query": True}
    assert setting("in-context-recall").identity() == knobs
    assert setting("in-context-recall", keys_per_sequence=3).identity() == knobs | {"keys_per_sequence": 3}
