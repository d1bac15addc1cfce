"""Damaged and hostile input for everything that archlab reads: whatever it is, an ArchlabError or a value, soon.

    .venv/bin/python -m benchmarks.fuzz --rounds 100 --seed 0

Prints a table: cases, those refused, those that raised anything else (a traceback for a user), and those of over two
seconds; then processor time and the most memory. Status 1 if anything else was raised.
"""

import argparse
import gzip
import json
import random
import resource
import sqlite3
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from contextlib import closing, redirect_stderr, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import torch

from archlab import architecture
from archlab.corpora.documents import Source
from archlab.corpora.tokenizers import tokenizer_maker
from archlab.designs.check_table import check_table
from archlab.designs.finding import load_finding
from archlab.errors import ArchlabError
from archlab.fields import read_yaml
from archlab.mad.protocol import load_protocol, parse_protocol, protocol_text
from archlab.mad.store import TrialStore
from archlab.mad.study import read_study
from archlab.scaling.checkpoints import Checkpoints
from archlab.scaling.imports import read_runs
from archlab.scaling.ladder import load_ladder, measured_utilisations
from archlab.scaling.models import read_training_run
from archlab.scaling.processes import Processes
from archlab.scaling.store import StudyStore
from archlab.scaling.training_plan import Plan
from archlab.searching.space import load_space
from archlab.store.kept import read_files

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
SLOW_SECONDS = 2.0
TOKENS = [
    *(
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        ":",
        ",",
        "*",
        "&a ",
        "*a",
        "!!int ",
        "!!set ",
        "<<: ",
        "- ",
        "\n",
        "\t",
        "\0",
        "\ufeff",
        '"',
        "'",
    ),
    *("null", "true", "NaN", "-1", "1e999", "9" * 400, "0.1", "\\ud800", "é", "[[[[[[[[", "5", "x", "=", "#", "../", "|", ">"),
]
SPECS = ["transformer++", "2*[mh-attention(heads=2) swiglu]", "hyena swiglu experts(swiglu, num=3)", "mamba(d_state=16) mlp"]
STUDY = "protocol: smoke\nseeds: 2\nset: {recipe.steps: 20}\narchitectures:\n  one: mamba swiglu\n  two: transformer++\n"
TABLE = "model,params,tokens,val_loss\na,1e6,20M,3.0\nb,2.5e6,4e7,2.8\n"
SCORES = "model,recall,fuzzy,copy,mean\na,99.0,30.0,64.5,64.5\nb,98.0,31.0,70.5,66.5\n"
FINDING = """claim: x
source: y
architectures: {mamba: "2*[mamba swiglu]", mlp: "2*[mlp swiglu]"}
test: scores
compare: [[mamba, mlp]]
above: 1
experiments:
  smoke: {protocol: smoke, tasks: [compression], seeds: 2}
  laptop: {protocol: quick, tasks: [compression], seeds: 3, set: {recipe.steps: 600}}
"""
SPACE = """summary: x
spec: "{depth}*[{mixer} swiglu]"
rules:
  depth: ["1", "2"]
  mixer: ["{single}", "parallel({single}, {single}, gate={true|false})"]
  single: [mh-attention, "mamba(d_state={8|16})"]
at_most: {decode-memory: 1.0e+9}
"""
TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "added_tokens": [
            {"id": 0, "content": "<|endoftext|>", "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]]},
    }
)
SPEEDS = '{"device": "cuda", "steps": [{"architecture": "a", "flops_per_second": 1e14}]}'
ROWS = '[{"text": "a b", "n": 1}, {"text": "c", "n": null}]'


@dataclass
class Count:
    """What became of the cases of one surface."""

    cases: int = 0
    refused: int = 0
    slow: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)


def mutated(text: str, rng: random.Random) -> str:
    """The text with up to four of its pieces cut, doubled, moved or replaced by what parsers care about."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice([0, 1, 1, 5, 40]))
        piece = rng.choice(
            [rng.choice(TOKENS), rng.choice(TOKENS) * rng.randint(1, 50), text[start:end] * 2, chr(rng.randrange(0x250))]
        )
        text = text[:start] + piece + text[rng.choice([start, end]) :]
    return text


def _rows(name: str, table: str, column: str) -> list[str]:
    with closing(sqlite3.connect(f"file:{FIXTURES / name}?mode=ro", uri=True)) as store:
        return [text for (text,) in store.execute(f"SELECT {column} FROM {table} LIMIT 3")]


def surfaces(folder: Path) -> dict[str, tuple[list[str], Callable[[str, random.Random], object]]]:
    """Examples and the reader of everything that is read, by name; files go into the folder."""

    def from_file(name: str, read: Callable[[str], object]) -> Callable[[str, random.Random], object]:
        def run(text: str, _: random.Random) -> object:
            (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
            return read(str(folder / name))

        return run

    def from_row(store: Path, ledger: type, table: str, column: str) -> Callable[[str, random.Random], object]:
        def run(text: str, _: random.Random) -> object:
            with closing(sqlite3.connect(store)) as connection, connection:
                value = text.encode(errors="replace") if "\0" in text else text.encode(errors="replace").decode()
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE id = (SELECT min(id) FROM {table})", [value])
            with ledger(store, create=False) as opened:
                lines: dict[str, str] = {}
                return opened.records(unreadable=lines), opened.outcomes(unreadable=lines), opened.runs(unreadable=lines)

        return run

    def corpus(text: str, rng: random.Random) -> object:
        data = text.encode(errors="replace")
        packed = rng.random() < 0.2
        name = f"corpus{rng.choice(['.json', '.jsonl', '.csv', '.tsv', '.txt', '.fa', '.xlsx'])}{'.gz' if packed else ''}"
        (folder / name).write_bytes(gzip.compress(data)[: rng.choice([None, 20])] if packed else data)
        return sum(len(document) for document in Source.parse(str(folder / name)).documents())

    def checkpoint(text: str, _: random.Random) -> object:
        place = folder / "run" / "step-8"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.parent.chmod(0o700)
        (place / "log.json").write_text(text, errors="replace")
        return Checkpoints(place.parent, Processes(torch.device("cpu")))._checked_log(place)

    def kept(text: str, _: random.Random) -> object:
        (folder / "kept").mkdir(exist_ok=True)
        (folder / "kept" / "trial.json").write_text(text, errors="replace")
        return read_files(folder / "kept", read_training_run)

    def tokenizer(text: str, _: random.Random) -> object:
        (folder / "tokenizer.json").write_text(text, encoding="utf-8", errors="replace")
        made = tokenizer_maker(f"hf:{folder / 'tokenizer.json'}")(())
        return [made.decode(tokens.tolist()) for tokens in made.encode([b"ab a", b"b"])]

    smoke = load_protocol("smoke")
    for name in ("smoke.db", "lm.db"):
        (folder / name).write_bytes((FIXTURES / name).read_bytes())
    trials, models = folder / "smoke.db", folder / "lm.db"
    run, result = (_rows("lm.db", "language_models", column)[0] for column in ("run", "result"))
    ladder = "summary: x\nbudgets: [1.0e+9, 2.0e+9]\ndata: stdlib\ntokenizer: ascii\nlength: 128\n"
    log = {"step": 8, "curve": [[1, 2.5]]}
    plan = f"provenance: {{}}\nall: {json.dumps(json.loads(run)['run'])}\nruns:\n- {{seed: 1}}\n"
    return {
        "specs": (SPECS, lambda text, _: architecture(text)),
        "YAML": ([STUDY, protocol_text("smoke"), plan], lambda text, _: read_yaml(text)),
        "protocols": ([protocol_text("smoke"), protocol_text("quick")], lambda text, _: parse_protocol("x", text, "all")),
        "studies": ([STUDY], from_file("study.yaml", read_study)),
        "ladders": ([ladder], from_file("ladder.yaml", load_ladder)),
        "spaces": ([SPACE], from_file("space.yaml", lambda path: load_space(path, smoke))),
        "findings": ([FINDING], from_file("finding.yaml", load_finding)),
        "plans": ([plan], from_file("plan.yaml", Plan.load)),
        "rows of trials": (_rows("smoke.db", "trials", "trial"), from_row(trials, TrialStore, "trials", "trial")),
        "results of trials": (_rows("smoke.db", "trials", "result"), from_row(trials, TrialStore, "trials", "result")),
        "runs": (_rows("smoke.db", "runs", "plan"), from_row(trials, TrialStore, "runs", "plan")),
        "rows of language models": ([run], from_row(models, StudyStore, "language_models", "run")),
        "results of language models": ([result], from_row(models, StudyStore, "language_models", "result")),
        "checkpoints": ([json.dumps({"log": log, "checksums": {"log.json": zlib.crc32(json.dumps(log).encode())}})], checkpoint),
        "kept models": ([f'{{"key": "x", "trial": {run}, "result": {result}}}'], kept),
        "corpora": ([ROWS, ROWS[1:-1].replace("}, ", "}\n"), TABLE, ">a\nACGT\n", "plain text\n" * 9], corpus),
        **({"tokenizers": ([TOKENIZER], tokenizer)} if find_spec("tokenizers") else {}),
        "tables of scores": ([SCORES], from_file("scores.csv", check_table)),
        "speeds": ([SPEEDS], from_file("speeds.json", lambda path: measured_utilisations(path, 1e15))),
        "tables": ([TABLE], from_file("runs.csv", read_runs)),
        "tables in JSON": (
            ['[{"model": "a", "params": 1e6, "tokens": 2e7, "val_loss": 3.0}]'],
            from_file("runs.json", read_runs),
        ),
    }


def fuzz(folder: Path, rng: random.Random, counts: dict[str, Count], *, rounds: int, cases: int = 20) -> None:
    """Give every surface so many cases a round, and count in ``counts`` what becomes of them."""
    found = surfaces(folder)
    for _ in range(rounds):
        for name, (examples, run) in found.items():
            count = counts.setdefault(name, Count())
            for _ in range(cases):
                _try(mutated(rng.choice(examples), rng), run, rng, count)


def _try(text: str, run: Callable[[str, random.Random], object], rng: random.Random, count: Count) -> None:
    started = time.process_time()
    try:
        with redirect_stderr(StringIO()):
            run(text, rng)
    except ArchlabError as error:
        count.refused += 1
        if "\n" in str(error).strip():
            count.raised.append(f"more than a line: {error}")
    except Exception:
        count.raised.append(f"{text[:500]!r}\n{traceback.format_exc()}")
    if time.process_time() - started > SLOW_SECONDS:
        count.slow.append(text[:500])
    count.cases += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="of 20 cases for each surface; Ctrl-C ends early")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: dict[str, Count] = {}
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        fuzz(Path(folder), random.Random(options.seed), counts, rounds=options.rounds)
    print(f"{'surface':28}{'cases':>9}{'refused':>9}{'raised':>8}{'over 2 s':>9}")
    for name, count in counts.items():
        print(f"{name:28}{count.cases:9,}{count.refused:9,}{len(count.raised):8}{len(count.slow):9}")
        for trace in [*count.raised[:3], *count.slow[:1]]:
            print(trace, file=sys.stderr)
    print(f"{'all':28}{sum(count.cases for count in counts.values()):9,}")
    print(
        f"processor time {time.process_time():.0f} s; most memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB"
    )
    sys.exit(any(count.raised for count in counts.values()))


if __name__ == "__main__":
    main()
