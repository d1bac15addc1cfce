"""An exported folder is a model of Hugging Face: same logits, same text with a cache and without, no archlab anywhere."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.cli.command_line import CommandLine
from tests.exports.kept_models import keep
from tests.scaling.language_models import LENGTH

import archlab as al
from archlab.corpora.tokenizers import load_tokenizer
from archlab.exports.tokenizer import tokenizer_files
from archlab.scaling.models import KeptModel
from archlab.sources import import_file

HAS_TRANSFORMERS = importlib.util.find_spec("transformers") is not None
SPECS = {
    "transformer++": "transformer++",
    "mamba": "mamba",
    "striped-hyena": "striped-hyena",
    "gated-deltanet": "gated-deltanet",
    "experts": "mh-attention(heads=2) moe(num=4) parallel(mamba, swiglu) experts(swiglu, num=3)",
    "own": "my_export_layers.Mixer(gain=2.0) averaging",
}
LAYERS = """
import torch
from torch import nn
from archlab.layers import LayerConfig, register

class Mixer(nn.Module):
    def __init__(self, dim, gain=1.0):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.register_buffer("gain", torch.tensor(gain), persistent=False)

    def forward(self, x_bld):
        return self.gain * self.linear(x_bld.cumsum(1)), None

@register("averaging")
class AveragingConfig(LayerConfig):
    paper = "none"
    def num_params(self, dim, length): return dim
    def state_size(self, dim, length): return 2 * dim
    def flops(self, dim, length): return 0
    def build(self, dim, max_length): return Averaging(dim)

class Averaging(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x_bld):
        return self.weight * x_bld.cumsum(1)
"""


@pytest.fixture(name="exported")
def fixture_exported(tmp_path: Path, outside: Path):
    """A function that exports the model of a spec, and returns the kept one with the folder."""

    def exported(spec: str, **values: Any) -> tuple[KeptModel, Path]:
        kept = keep(outside, spec, **{"dim": 32, "label": "tiny"} | values)
        return kept, al.export(kept.key, outside / f"hf-{kept.key[:8]}", store=outside / "a.db")

    (outside / "my_export_layers.py").write_text(LAYERS)
    import_file(outside / "my_export_layers.py", "layers")
    return exported


LOADED = """
import json, sys
sys.modules["archlab"] = None  # which no import gets past
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
found = {}
for folder in sys.argv[1:]:
    asked = torch.load(f"{folder}/asked.pt")
    ids, padded, mask = asked["ids"], asked["padded"], asked["mask"]
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        logits, loss = model(ids).logits, model(ids, labels=ids).loss
        step_form = model.config.step_form
        with_padding = [model(padded, attention_mask=mask, use_cache=u).logits[mask.bool()] for u in (False, step_form)]
    how = {"max_new_tokens": 6, "do_sample": False, "attention_mask": mask, "eos_token_id": None}
    texts = [model.generate(padded, use_cache=u, **how, **more) for more in ({}, {"num_beams": 3}) for u in (True, False)]
    alone = model.generate(ids[:1, 2:5], max_new_tokens=6, do_sample=False, eos_token_id=None)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    torch.save({"logits": logits, "loss": loss, "with_padding": with_padding, "texts": texts, "alone": alone,
                "tokens": tokenizer("line 7\\n").input_ids, "text": tokenizer.decode(ids[0])}, f"{folder}/found.pt")
"""


@pytest.mark.skipif(not HAS_TRANSFORMERS, reason="needs transformers: pip install 'archlab[hf]'")
def test_transformers_computes_what_archlab_does_without_archlab(exported: Any, tmp_path: Path):
    cases = {name: exported(spec) for name, spec in SPECS.items()}
    cases["tied"] = exported("mh-attention(heads=2) swiglu", backbone="tied-language-model")
    ids = torch.randint(1, 97, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    padded, mask = ids[:, :5].clone(), torch.ones(2, 5, dtype=torch.int64)
    mask[0, :2] = padded[0, :2] = 0
    for _, folder in cases.values():
        torch.save({"ids": ids, "padded": padded, "mask": mask}, folder / "asked.pt")
    folders = [str(folder) for _, folder in cases.values()]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "HF_HOME": str(tmp_path / "home")
    }
    done = subprocess.run([sys.executable, "-c", LOADED, *folders], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, (kept, folder) in cases.items():
        found = torch.load(folder / "found.pt")
        with torch.inference_mode():
            wanted, rows = kept.model(ids), [kept.model(ids[:1, 2:5])[0], kept.model(ids[1:, :5])[0]]
        torch.testing.assert_close(found["logits"], wanted, atol=1e-5, rtol=1e-5, msg=name)
        loss = torch.nn.functional.cross_entropy(wanted[:, :-1].mT, ids[:, 1:])
        torch.testing.assert_close(found["loss"], loss, atol=1e-5, rtol=1e-5, msg=name)
        for logits in found["with_padding"]:
            torch.testing.assert_close(logits, torch.cat(rows), atol=1e-4, rtol=1e-4, msg=name)
        drawn, beams = found["texts"][:2], found["texts"][2:]
        assert torch.equal(*drawn), name
        assert torch.equal(*beams), name
        assert torch.equal(drawn[0][0, 2:], found["alone"][0]), name
        assert found["tokens"] == next(kept.tokenizer.encode([b"line 7\n"]))[:-1].tolist()
        assert found["text"] == kept.tokenizer.decode(ids[0].tolist())


def test_a_folder_says_what_the_model_is(exported: Any):
    kept, folder = exported(SPECS["own"])
    config = json.loads((folder / "config.json").read_text())
    assert config["layers"] == [["my_export_layers.Mixer", {"gain": 2.0}], ["averaging", {}]]
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_archlab.ArchlabForCausalLM"
    assert (config["step_form"], config["archlab"]["key"]) == (False, kept.key)
    names = {path.name for path in folder.iterdir()}
    assert {"my_export_layers.py", "model.safetensors", "tokenizer.json", "trial.json", "README.md"} <= names
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(weights["model.layers.0.layer.module.gain"], torch.tensor(2.0))  # which is in no state_dict
    card = (folder / "README.md").read_text()
    for text in (
        kept.key,
        kept.trial.run.spec,
        kept.trial.run.corpus,
        f"{kept.trial.run.flops:.4g} FLOPs",
        "a.db",
        "no step form",
    ):
        assert text in card
    for path in folder.glob("*.py"):
        compile(path.read_text(), path.name, "exec")
        assert not re.search(r"^\s*(from|import) archlab\b", path.read_text(), re.MULTILINE)


def test_rows_that_no_token_has_are_never_drawn(exported: Any):
    _, folder = exported("mh-attention(heads=2)", vocab_multiple=8)
    assert json.loads((folder / "generation_config.json").read_text())["suppress_tokens"] == [99, 100, 101, 102, 103]


@pytest.mark.skipif(importlib.util.find_spec("tokenizers") is None, reason="needs tokenizers: pip install 'archlab[hf]'")
@pytest.mark.parametrize(("name", "text"), [("bytes", "Ünïcode\r\n\tĀ 7"), ("ascii", "Ünï\t7\n\r"), ("dna", "acgtNNNACGTnnG")])
def test_tables_become_tokenizers_of_hugging_face(name: str, text: str, tmp_path: Path):
    from tokenizers import Tokenizer

    ours = load_tokenizer(name, tmp_path)
    theirs = Tokenizer.from_str(tokenizer_files(ours, 16)["tokenizer.json"])
    (wanted,) = ours.encode([text.encode()])
    found = theirs.encode(text).ids
    assert found == wanted[:-1].tolist()
    assert theirs.decode(found, skip_special_tokens=False) == ours.decode(np.array(found)).replace(
        "N", "<|endoftext|>" if name == "dna" else "N"
    )


def test_weights_alone_are_those_of_the_model(exported: Any, tmp_path: Path):
    kept, _ = exported("mamba")
    folder = al.export(kept, tmp_path / "weights", "state-dict")
    kept.model.load_state_dict(load_file(folder / "model.safetensors"))
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "trial.json"}


def test_the_command_writes_a_folder_once_and_whole(archlab: CommandLine, exported: Any, outside: Path):
    exported("mamba swiglu")
    store = ("--store", str(outside / "a.db"))
    done = archlab("export", "tiny", "mine", "--to", "hf", *store)
    assert (done.status, "mine holds the model" in done.err) == (0, True), done.err
    again = archlab("export", "tiny", "mine", *store)
    assert (again.status, again.err) == (2, "error: folder mine: is there already: give a new one\n")
    wrong = archlab("export", "tiny", "other", "--to", "onnx", *store)
    assert (wrong.status, wrong.err) == (2, "error: to='onnx': give one of hf, state-dict\n")
    assert {path.name for path in Path().iterdir() if path.is_dir()} >= {"mine"}
    assert not Path("other").exists()
    assert not Path("other.unfinished").exists()
