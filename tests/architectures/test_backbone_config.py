"""The accounting of backbones; test_backbones.py checks it against what is built and counted."""

import subprocess
import sys

from archlab.architectures import architecture
from archlab.architectures.backbone_config import BACKBONES


def test_accounting_is_known_without_torch():
    code = """
import sys
from archlab.architectures.backbone_config import BACKBONES
for backbone in BACKBONES.values():
    backbone.around(4, vocab_size=11, length=12, dim=64, norm="rmsnorm"), backbone.positions(4, 2, 12)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_backbone_is_built_as_its_own_module():
    built = {name: type(architecture("swiglu").build(vocab_size=5, max_length=4, dim=8, backbone=name)) for name in BACKBONES}
    assert {name: module.__name__ for name, module in built.items()} == {
        "language-model": "LanguageModel",
        "tied-language-model": "TiedLanguageModel",
        "auto-encoder": "AutoEncoder",
    }


def test_behind_the_last_sequence_mixer_the_auto_encoder_runs_at_one_position():
    value = architecture("swiglu mamba swiglu mlp")
    assert value.positions(12, "auto-encoder") == [12, 12, 1, 1]
    assert value.positions(12) == [12] * 4


def test_only_the_auto_encoder_has_a_decoder():
    shape = {"vocab_size": 11, "length": 12, "dim": 64}
    value = architecture("mamba")
    names = ["embedding", "norms", "unembedding"]
    assert [part.name for part in value.around(**shape)] == names
    assert [part.name for part in value.around(**shape, backbone="auto-encoder")] == [*names[:2], "decoder", names[2]]
