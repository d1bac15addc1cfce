"""The board's script: a row is one command, and nothing stays of an architecture that is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STUDY = "protocol: smoke\ntasks: [compression]\narchitectures:\n  transformer++: transformer++\n"


def board(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "leaderboard" / "board.py"), "--folder", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("quick", "standard"):
        (tmp_path / f"{part}.yaml").write_text(STUDY)
    return tmp_path


@pytest.mark.slow
def test_a_layer_of_a_file_becomes_a_row_by_one_command(folder: Path):
    done = board(folder, "add", "ema", "2*[ema swiglu]", "--layers", str(ROOT / "examples" / "custom_layer.py"))
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads((folder / "board.json").read_text()) if row["part"] == "quick"}
    assert rows.keys() == {"transformer++", "ema"}
    assert rows["ema"]["spec"] == "2*[ema swiglu]"
    assert rows["ema"]["complete"]
    assert rows["ema"]["mad_low"] <= rows["ema"]["mad"] <= rows["ema"]["mad_high"]
    assert rows["ema"]["num_params"] > 10_000


@pytest.mark.slow
def test_nothing_stays_of_what_is_refused(folder: Path, tmp_path: Path):
    leaking = tmp_path / "leaking.py"
    text = (ROOT / "examples" / "custom_layer.py").read_text()
    leaking.write_text(
        text.replace(
            "padded_bdl = F.pad(u_bld.transpose(1, 2), (length - 1, 0))",
            "padded_bdl = F.pad(u_bld.transpose(1, 2), (0, length - 1))",
        )
    )
    done = board(folder, "add", "ema", "2*[ema swiglu]", "--layers", str(leaking))
    assert done.returncode == 2
    assert "reads the future" in done.stderr
    assert yaml.safe_load((folder / "quick.yaml").read_text()) == yaml.safe_load(STUDY)
    assert not list(folder.glob("layers/*"))


def test_the_committed_board_names_what_is_there():
    for part in ("quick", "standard"):
        study = yaml.safe_load((ROOT / "leaderboard" / f"{part}.yaml").read_text())
        assert study["protocol"] == part
        assert len(study["architectures"]) >= {"quick": 21, "standard": 10}[part]


def test_a_file_that_is_not_there_is_named_in_one_line(folder: Path):
    done = board(folder, "add", "ema", "2*[ema swiglu]", "--layers", "none.py")
    assert (done.returncode, done.stderr) == (2, "error: no file none.py: give --folder or --layers another\n")
    assert yaml.safe_load((folder / "quick.yaml").read_text()) == yaml.safe_load(STUDY)
