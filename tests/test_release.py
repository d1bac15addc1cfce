"""What a release says about itself agrees, and commits keep their form."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_citation_is_of_the_latest_release_in_the_changelog():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["[Unreleased]", f"[{VERSION}] - {citation['date-released']}"]
    assert citation["version"] == VERSION
    assert citation["references"][0]["url"].endswith("2403.17844")


def test_hooks_run_what_the_environment_has():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local", "nothing is downloaded"
    checks = (ROOT / "Makefile").read_text()
    for hook in local["hooks"]:
        program = hook["entry"].split()[0]
        assert program.replace(".venv/bin", "$(BIN)") in checks or (ROOT / program).is_file()


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ("Refuse a window of no tokens", None),
        ("Compress what is stored", None),
        ("Merge branch 'main' into a branch whose name is longer than a subject of seventy-two characters", None),
        ("Keep exactly seventy-two characters in a subject" + "." * 23 + "x", None),
        ("Keep exactly seventy-three characters in a subject" + "." * 22 + "x", "it has 73 characters: at most 72"),
        ("The place is looked at first", "begin with a verb"),
        ("refuse a window", "begin with a capital letter"),
        ("Refuse a window.", "leave out the full stop"),
        ("Refused a window", 'no imperative: "Add", not "Added"'),
        ("Refuses a window", 'no imperative: "Add", not "Added"'),
        ("Refusing a window", 'no imperative: "Add", not "Added"'),
        ("", "it is empty"),
    ],
)
def test_a_commit_subject_is_a_short_imperative(tmp_path: Path, subject: str, reason: str | None):
    message = tmp_path / "message"
    message.write_text(f"# a comment\n{subject}\n\nThe body may say anything, at any length.\n")
    done = subprocess.run([ROOT / ".githooks" / "commit-msg", message], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (reason is None), done.stderr
    assert (reason or "") in done.stderr
