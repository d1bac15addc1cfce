"""Kept models: is the stored loss that of the weights, by code of its own? Loss by position, and text, of two architectures.

    python benchmarks/kept_models.py [--budget 2e12] [--params 1e5] [--specs transformer++,mamba]

Trains a small language model of each architecture on Python's standard library, one thread each.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import _results
import archlab
from archlab import scaling
from archlab.corpora import prepare

PROMPTS = ("def ", "import ", "    for ")


def independent_loss(folder: Path, corpus: Path) -> float:
    """The loss of the weights in a folder on the validation sequences of a corpus's folder, from the files alone."""
    trial = json.loads((folder / "trial.json").read_text())["trial"]
    run, length = trial["run"], trial["run"]["length"]
    model = archlab.architecture(run["spec"]).build(vocab_size=run["vocab_size"], max_length=length, dim=run["dim"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    stream = np.fromfile(corpus / "validation.bin", json.loads((corpus / "manifest.json").read_text())["dtype"])
    number, limit = (len(stream) - 1) // length, trial["recipe"]["validation_tokens"] // length
    which = np.arange(number) if limit >= number else np.arange(limit) * number // limit
    rows = torch.from_numpy(stream[which[:, None] * length + np.arange(length + 1)].astype(np.int64))
    with torch.no_grad():
        losses = [F.cross_entropy(model(ids[:, :-1]).double().mT, ids[:, 1:], reduction="sum").item() for ids in rows.split(32)]
    return sum(losses) / rows[:, 1:].numel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=2e12)
    parser.add_argument("--params", type=float, default=1e5)
    parser.add_argument("--specs", default="transformer++,mamba")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    shape = {"budgets": [asked.budget], "params": [asked.params], "length": 256, "data": "stdlib", "tokenizer": "ascii"}
    plan = scaling.plan(asked.specs.split(","), "quick", **shape)
    rows, texts, losses = [], [], {}
    with tempfile.TemporaryDirectory() as place:
        store = Path(place) / "kept.db"
        summary = scaling.train(plan, store=store)
        corpus = prepare("stdlib", "ascii")
        for key, result in summary.results.items():
            kept = archlab.load_model(key, store)
            (found,) = scaling.evaluate(kept).rows
            again = independent_loss(kept.folder, corpus.folder)
            label = kept.trial.run.label
            rows.append(
                {
                    "architecture": label,
                    "parameters": kept.trial.run.params,
                    "tokens": kept.trial.run.tokens,
                    "minutes": round(result.seconds / 60, 1),
                    "stored loss": f"{result.loss:.8f}",
                    "scale evaluate": f"{found.loss:.8f}",
                    "independent": f"{again:.8f}",
                    "bits a byte": round(found.bits_per_byte, 3),
                }
            )
            losses[label] = found.positions
            for prompt in PROMPTS:
                text = prompt + scaling.sample(kept, prompt, tokens=160, temperature=0.7, top_k=40)
                texts.append(f"### {label}, `{prompt}`\n```text\n{text}\n```")
    positions = [
        {"positions": f"{at[0].first}-{at[0].last}"}
        | {label: round(part.loss, 4) for label, part in zip(losses, at, strict=True)}
        for at in zip(*losses.values(), strict=True)
    ]
    command = f"python benchmarks/kept_models.py --budget {asked.budget:g} --params {asked.params:g} --specs {asked.specs}"
    settings = {"runs": f"ladder quick, {asked.budget:g} FLOPs, length 256, seed 0", "corpus": f"stdlib, ascii, {corpus.hash}"}
    page = _results.write("kept-models", "Kept models", command, settings, rows).with_suffix(".md")
    by_position = f"## Loss by position in the sequence, in nats a token\n\n{_results.table(positions)}"
    drawn = "## Text (`--temperature 0.7 --top-k 40 --tokens 160`, seed 0)\n\n" + "\n\n".join(texts)
    page.write_text("\n".join([page.read_text(), by_position, "", drawn, ""]))
    print(page.read_text())
