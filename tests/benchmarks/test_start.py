"""Every benchmark starts: each of its imports is there."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORT_ALL = """
import importlib, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/benchmarks"]
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: {error}")
"""


@pytest.mark.slow
def test_every_benchmark_finds_what_it_imports():
    names = [path.stem for path in sorted((ROOT / "benchmarks").glob("*.py"))]
    command = [sys.executable, "-c", IMPORT_ALL, str(ROOT), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert len(names) > 15
    assert done.stdout == ""
