"""An hour on a GPU: what has to be known, in order, beside what the roofline model predicts.

    python benchmarks/gpu_hour.py --device cuda --output DIR
    python benchmarks/gpu_hour.py --device cpu        tiny sizes, to see that it runs to its end

Every part runs in a process of its own, in less than ten minutes, and leaves its rows in DIR; parts that are there are not run
again, so the same command goes on where it was cut off (`--part NAME` runs one, `--again` anew). At its end it writes all rows
that there are as JSON and as a dated table. A row that the model has a number for says `confirmed` if the two are within a
factor of two, else `refuted`.

A bare machine with Python 3.12 and PyTorch 2.11 needs no installation: `PYTHONPATH=src`, and what is missing of sqlalchemy,
safetensors, threadpoolctl, pandas and (for recipe.kernels=fla) fla-core in a folder on the path:
`pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 NAME`, then
`pip install --no-index --no-deps --target FOLDER *.whl`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

import _results
from archlab import architecture
from archlab.accelerators import REACHED_BANDWIDTH, REACHED_FLOPS, Accelerator, accelerator, accelerator_of
from archlab.layers.registry import registry
from archlab.machine import ceilings, cpu_name
from archlab.mad.learner import Examples, split_tensors
from archlab.mad.programs import Eager, Program, choose_program
from archlab.mad.recipe import Recipe
from archlab.mad.roofline import step_counts, step_seconds
from archlab.mad.train import make_learner
from archlab.mad.trial import Trial
from archlab.tasks import setting
from archlab.training.context import computing

ROOT = Path(__file__).parents[1]
LIMIT = 580
"""Seconds of a part."""
FACTOR = 2.0
"""A prediction is confirmed within this."""
NAMED = ("transformer++", "hyena", "gla", "2*[deltanet swiglu]", "striped-mh-hyena", "mamba")

Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Hour:
    """Where it is spent."""

    device: Any
    folder: Path

    @property
    def is_gpu(self) -> bool:
        return bool(self.device == "cuda")

    @property
    def card(self) -> Accelerator | None:
        """Its data sheet."""
        return accelerator_of(torch.cuda.get_device_name()) if self.is_gpu else None

    def trial(self, spec: str, length: int, batch: int, **recipe: Any) -> Trial:
        task = setting("in-context-recall", vocab_size=64 if length > 64 else 16, length=length, num_train_examples=2 * batch)
        values = {"batch_size": batch, "precision": "bf16"} | recipe
        rest = {"learning_rate": 1e-3, "weight_decay": 0.1, "seed": 0, "device": self.device}
        return Trial(architecture=architecture(spec), setting=task, recipe=Recipe(**values), dim=128, **rest)

    def learner(self, trial: Trial) -> Any:
        data = split_tensors(trial.setting, "train", trial.setting.num_train_examples, 0, self.device)
        return make_learner(trial, Examples.of(*data))

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def milliseconds(self, program: Program, batch: int, rounds: int) -> float:
        rows = [torch.arange(batch, device=self.device)]
        times = []
        for _ in range(4):
            self.wait()
            started = time.perf_counter()
            for _ in range(rounds):
                program.step(rows)
            self.wait()
            times.append(1e3 * (time.perf_counter() - started) / rounds)
        return median(times[1:])


def judged(part: str, what: str, unit: str, measured: float, predicted: float | None, note: str = "") -> dict[str, Any]:
    """A row; the verdict on a prediction, if there is one."""
    verdict = "no prediction"
    if predicted is not None:
        verdict = "confirmed" if predicted / FACTOR <= measured <= predicted * FACTOR else "refuted"
    shown = "" if predicted is None else f"{predicted:.4g}"
    row = {"part": part, "what": what, "unit": unit, "measured": f"{measured:.4g}", "predicted": shown}
    return row | {"verdict": verdict, "note": note}


def fact(part: str, what: str, is_so: bool, note: str = "") -> dict[str, Any]:
    """A row of something that is so or not, and should be."""
    verdict = "confirmed" if is_so else "refuted"
    return {"part": part, "what": what, "unit": "", "measured": str(is_so), "predicted": "True", "verdict": verdict, "note": note}


def machine(hour: Hour) -> Rows:
    """What it reaches of its data sheet."""
    found, card = ceilings(hour.device), hour.card
    predicted = (None, None) if card is None else (card.bf16 * REACHED_FLOPS, card.bandwidth * REACHED_BANDWIDTH)
    name = torch.cuda.get_device_name() if hour.is_gpu else cpu_name()
    yield judged("machine", f"product of large matrices, {name}", "FLOP/s", found.gemm, predicted[0])
    yield judged("machine", "copy", "B/s", found.copy, predicted[1])


def tests(hour: Hour) -> Rows:
    """The tests that need a GPU; on a CPU those of the programs, by a fake one."""
    files = [str(file.relative_to(ROOT)) for file in sorted(ROOT.glob("tests/**/test_*.py")) if "mark.gpu" in file.read_text()]
    chosen = ["-m", "gpu", *files] if hour.is_gpu else ["-m", "not gpu", "tests/mad/test_programs.py", "-k", "capture or graphs"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib", *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT - 20)
    lines = done.stdout.strip().splitlines()
    failed = [line.partition(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    yield fact(
        "tests", f"pytest {' '.join(chosen)}", done.returncode == 0, "; ".join([lines[-1] if lines else "", *failed])[:400]
    )


def capture(hour: Hour) -> Rows:
    """Every layer is captured, each in a process of its own, and its steps are those of eager ones."""

    def row(name: str) -> dict[str, Any]:
        command = [*again("capture-one", hour), "--layer", name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        lines = done.stdout.strip().splitlines()
        is_row = bool(lines) and not done.returncode
        return json.loads(lines[-1]) if is_row else fact("capture", name, False, done.stderr.strip()[-200:])

    with ThreadPoolExecutor(4 if hour.is_gpu else 1) as pool:  # most of the time of a process is its start
        yield from pool.map(row, sorted(registry()) if hour.is_gpu else ["mh-attention", "mlp"])


def capture_one(hour: Hour, name: str) -> dict[str, Any]:
    """A row of :func:`capture`."""
    length, batch = (160, 16) if hour.is_gpu else (16, 2)
    trial = hour.trial(f"1*{name}", length, batch)
    rows = [torch.arange(batch, device=hour.device)]
    with computing("torch", "bf16", hour.device):
        program, eager = choose_program([hour.learner(trial)]), Eager([hour.learner(trial)])
        worst = max(abs(float(program.step(rows)[0]) - float(eager.step(rows)[0])) for _ in range(5))
    is_captured = program.description.startswith("captured") or not hour.is_gpu
    return fact("capture", name, is_captured and worst < 1e-2, f"{program.description}; losses differ by {worst:.1e}")


def poison(hour: Hour) -> Rows:
    """A step that waits for the device is not captured, says why, and leaves the process as it was."""
    batch = 16 if hour.is_gpu else 2
    with computing("torch", "bf16", hour.device):
        waiting = hour.learner(hour.trial("1*mlp", 32, batch))
        update = waiting.update
        waiting.update = lambda: (float(next(waiting.model.parameters()).sum()), update())
        before = torch.cuda.current_stream() if hour.is_gpu else None
        program = choose_program([waiting])
        after = torch.cuda.current_stream() if hour.is_gpu else None
        yield fact("poison", "the stream is the one before", before == after)
        yield fact("poison", "it falls back", "cannot be captured" in program.description or not hour.is_gpu, program.description)
        loss = float(program.step([torch.arange(batch, device=hour.device)])[0])
        yield fact("poison", "steps go on", loss == loss)
    if hour.is_gpu:
        try:
            graph = torch.cuda.CUDAGraph()
            x = torch.ones(8, device="cuda")
            with torch.cuda.graph(graph):
                x += 1
            answer = "PyTorch captures again in the same process"
        except RuntimeError as error:
            answer = f"PyTorch captures nothing more in the same process: {str(error).splitlines()[0]}"
        yield fact("poison", "a worker is replaced", True, answer)


def steps(hour: Hour) -> Rows:
    """Step times beside the model's."""
    shapes = [(32, 128), (128, 128), (256, 128), (1024, 128)] if hour.is_gpu else [(32, 4)]
    for length, batch in shapes:
        for spec in NAMED if hour.is_gpu else NAMED[:2]:
            trial = hour.trial(spec, length, batch)
            counts = step_counts(trial)
            predicted = 1e3 * step_seconds(counts, hour.card) if hour.card else None
            note = f"{counts.num_kernels} kernels, {counts.bytes / 1e9:.2f} GB"
            with computing("torch", "bf16", hour.device):
                program = choose_program([hour.learner(trial)])
                measured = hour.milliseconds(program, batch, 20 if hour.is_gpu else 1)
            yield judged("steps", f"{spec}, length {length}", "ms", measured, predicted, f"{program.description}; {note}")
    if hour.is_gpu:
        for spec in NAMED[:3]:
            trial = hour.trial(spec, 128, 128, compiled=True)
            least = 1e3 * step_seconds(step_counts(trial), hour.card or accelerator("h100"), fused=True)
            with computing("torch", "bf16", hour.device):
                program = choose_program([hour.learner(trial)])
                measured = hour.milliseconds(program, 128, 20)
            note = f"{program.description}; at best {least:.2f} ms"
            yield judged("steps", f"{spec}, length 128, compiled", "ms", measured, None, note)


def grid(hour: Hour) -> Rows:
    """The six grid points of the base recall setting, one at a time and together: seconds until all have ended."""
    for population in ("1", "6"):
        store = hour.folder / f"grid-{population}.db"
        grid = ["--grid", "lr=1e-3,5e-4,1e-4", "--grid", "wd=0,0.1"] if hour.is_gpu else []
        yield from run_of(hour, "grid", [*grid, "--race", "off", "--population", population], store)


def paper(hour: Hour) -> Rows:
    """One setting of a protocol whole, as `archlab run` has it."""
    yield from run_of(hour, "paper", [], hour.folder / "paper.db")


def run_of(hour: Hour, part: str, options: list[str], store: Path) -> Rows:
    protocol = "paper" if hour.is_gpu and part == "paper" else "quick" if hour.is_gpu else "smoke"
    asked = ["run", "transformer++" if hour.is_gpu else "mlp", "--protocol", protocol, "--tasks", "in-context-recall"]
    asked += ["--settings", "base", "--seeds", "1", "--device", hour.device, "--store", str(store), *options]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "archlab", *asked], capture_output=True, text=True, timeout=LIMIT - 20)
    seconds = time.perf_counter() - started
    if done.returncode:
        yield fact(part, " ".join(asked[1:4]), False, done.stderr.strip()[-300:])
    else:
        note = " ".join(done.stdout.split())[:120]
        yield judged(part, f"{protocol}, base recall {' '.join(options[-2:])}".strip(), "s", seconds, None, note)


def language_models(hour: Hour) -> Rows:
    """Tokens a second of a language model's training, and the fraction of the data sheet's FLOP/s."""
    from archlab.corpora import prepare
    from archlab.scaling.recipe import LMRecipe
    from archlab.scaling.training_loop import train
    from archlab.scaling.training_plan import LMRun, Size
    from archlab.scaling.trial import LMTrial

    text = hour.folder / "text.txt"
    text.write_text("".join(f"line {i} of the text, whose square is {i * i}\n" for i in range(200_000 if hour.is_gpu else 3000)))
    corpus = prepare(str(text), "ascii", hour.folder / "corpora")
    depth, dim, length, batch, count = (8, 768, 1024, 32, 30) if hour.is_gpu else (1, 16, 16, 2, 3)
    model = architecture(f"{depth}*[mh-attention(heads={max(dim // 64, 1)}) swiglu]")
    size = Size(model, dim, corpus.vocab_size, length)
    flops = 3 * model.flops(length=length, dim=dim, vocab_size=corpus.vocab_size) * count * batch
    run = LMRun(
        label="transformer++", spec=str(model), dim=dim, flops=flops, params=size.params, state=size.state, steps=count,
        params_non_embedding=size.params_non_embedding, batch_size=batch, length=length, tokens=count * batch * length,
        corpus=corpus.source, tokenizer=corpus.tokenizer, vocab_size=corpus.vocab_size, budget=float(flops), learning_rate=1e-3,
        corpus_hash=corpus.hash,
    )  # fmt: skip
    for compiled in (False, True) if hour.is_gpu else (False,):
        recipe = LMRecipe(precision="bf16", compiled=compiled, evaluations=1, validation_tokens=length)
        processes = {} if not hour.is_gpu else {"device": "cuda"}
        result = train(LMTrial(run, recipe, **processes), corpus)
        note = f"{size.params / 1e6:.0f}M parameters, compiled={compiled}, utilisation {result.utilisation:.0%}"
        yield judged("language models", "training", "tokens/s", result.tokens_per_second, None, note)


PARTS: dict[str, Callable[[Hour], Rows]] = {
    "machine": machine,
    "tests": tests,
    "capture": capture,
    "poison": poison,
    "steps": steps,
    "grid": grid,
    "paper": paper,
    "language-models": language_models,
}


def again(part: str, hour: Hour) -> list[str]:
    return [
        sys.executable,
        str(Path(__file__)),
        "--device",
        hour.device,
        "--output",
        str(hour.folder),
        "--part",
        part,
        "--inside",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--output", type=Path, default=Path("gpu-hour"), help="folder of the rows (default: gpu-hour)")
    parser.add_argument("--part", choices=[*PARTS, "capture-one"], action="append", help="only these; repeatable")
    parser.add_argument("--again", action="store_true", help="run parts anew that are there")
    parser.add_argument("--layer", help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    hour = Hour(arguments.device, arguments.output.resolve())
    if arguments.inside:
        if arguments.layer:
            print(json.dumps(capture_one(hour, arguments.layer)))
            return
        with (hour.folder / f"{arguments.part[0]}.jsonl").open("w") as lines:  # what is there when the time is over counts
            for row in PARTS[arguments.part[0]](hour):
                print(json.dumps(row), file=lines, flush=True)
        return
    for part in arguments.part or PARTS:
        done = hour.folder / f"{part}.json"
        if done.exists() and not arguments.again:
            continue
        started = time.perf_counter()
        how = ended(again(part, hour))
        file = hour.folder / f"{part}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        rows += [fact(part, "runs to its end", False, how)] if how else []
        done.write_text(json.dumps(rows, indent=1))
        print(f"{part}: {len(rows)} rows in {time.perf_counter() - started:.0f} s {how}", flush=True)
    files = [file for part in PARTS if (file := hour.folder / f"{part}.json").exists()]
    rows = [row for file in files for row in json.loads(file.read_text())]
    verdicts = {word: sum(row["verdict"] == word for row in rows) for word in ("confirmed", "refuted", "no prediction")}
    device = torch.cuda.get_device_name() if hour.is_gpu else "cpu, tiny sizes: to see that it runs"
    path, command = hour.folder / "gpu-hour.json", f"python benchmarks/gpu_hour.py --device {hour.device}"
    _results.write("gpu-hour", "An hour on a GPU", command, {"device": device, **verdicts}, rows, path)
    print(_results.table(rows))
    print(f"{path}: {verdicts}")


def ended(command: list[str]) -> str:
    """Why a part did not run to its end; nothing if it did."""
    try:
        done = subprocess.run(command, timeout=LIMIT + 10, capture_output=True, text=True, env=os.environ)
    except subprocess.TimeoutExpired:
        return f"cut off after {LIMIT + 10} s"
    last = re.sub(r"\s+", " ", (done.stderr.strip().splitlines() or [""])[-1])
    return f"status {done.returncode}: {last[:300]}" if done.returncode else ""


if __name__ == "__main__":
    main()
