"""Layers that a notebook's cell defines, in a process whose main module has no file, as a notebook's kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNEL = """
import linecache, sys

def run(number, cell):
    name = f"<cell {number}>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    exec(compile(cell, name, "exec"), globals())
"""
CELL = """
from dataclasses import dataclass
from torch import nn
from archlab.layers import LayerConfig, register

SCALE = 2

@register("cell-mixer")
@dataclass(frozen=True)
class CellMixer(LayerConfig):
    kind = "sequence"
    paper = "none"

    def num_params(self, dim, length):
        return dim * dim

    def state_size(self, dim, length):
        return 0

    def flops(self, dim, length):
        return SCALE * length * dim * dim

    def build(self, dim, max_length):
        return nn.Linear(dim, dim, bias=False)

print("the cell runs")
"""
RESULTS = """
from archlab.architectures import architecture
value = architecture("cell-mixer swiglu")
print(value.layers[0].flops(8, 4), type(value.layers[0]).__module__ == CellMixer.__module__)
"""
WORKER = """
import pickle, subprocess
loaded = f"import sys, pickle; sys.path[:] = {sys.path!r}; value = pickle.loads({pickle.dumps(value)!r})"
worker = f"{loaded}; print(value, value.layers[0].flops(8, 4))"
print(subprocess.run([sys.executable, "-c", worker], capture_output=True, text=True, check=True).stdout.strip())
"""


def notebook(tmp_path: Path, *cells: str, kernel: str = KERNEL) -> "subprocess.CompletedProcess[str]":
    runs = [f"run({number}, {cell!r})" for number, cell in enumerate(cells)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    code = "\n".join([kernel, *runs])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def test_a_layer_of_a_cell_is_known_and_its_file_runs_nothing_else(tmp_path: Path):
    outcome = notebook(tmp_path, CELL, RESULTS)
    assert outcome.stdout.splitlines() == ["the cell runs", "512 True"], outcome.stderr
    (file,) = tmp_path.rglob("archlab_cell_*.py")
    assert "the cell runs" not in file.read_text()


@pytest.mark.slow
def test_a_cell_that_is_edited_and_run_again_replaces_its_layer_here_and_in_workers(tmp_path: Path):
    outcome = notebook(tmp_path, CELL, CELL.replace("SCALE = 2", "SCALE = 3"), RESULTS, CELL, RESULTS, WORKER)
    found = [line for line in outcome.stdout.splitlines() if line != "the cell runs"]
    assert found == ["768 True", "512 True", "cell-mixer swiglu 512"], outcome.stderr


@pytest.mark.slow
def test_imports_of_earlier_cells_are_taken_along(tmp_path: Path):
    imports, rest = CELL.split("\n\n", 1)
    outcome = notebook(tmp_path, imports, rest, RESULTS, WORKER)
    assert outcome.stdout.splitlines() == ["the cell runs", "512 True", "cell-mixer swiglu 512"], outcome.stderr


def test_a_cell_that_needs_what_another_defines_is_refused_in_one_line(tmp_path: Path):
    outcome = notebook(tmp_path, "SCALE = 2", CELL.replace("SCALE = 2", ""))
    last = outcome.stderr.splitlines()[-1]
    assert "layer class CellMixer of a session: it uses SCALE of another cell: define all that it needs in its cell" in last


def test_a_layer_of_standard_input_is_refused_in_one_line(tmp_path: Path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    outcome = subprocess.run([sys.executable, "-"], input=CELL, capture_output=True, text=True, env=environment)
    last = outcome.stderr.splitlines()[-1]
    assert last.startswith("archlab.errors.ArchlabError: layer class CellMixer of a session: its source is not known: ")
