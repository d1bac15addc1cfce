"""Prints the lowest versions that pyproject.toml allows, as constraints for pip; torch stays as it is locked."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def constraints() -> list[str]:
    """One line for each dependency of the package."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (torch,) = re.findall(r"^torch==.*$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    lowest = [dependency.replace(">=", "==") for dependency in needed]
    return [torch if line.startswith("torch==") else line for line in lowest]


if __name__ == "__main__":
    print(*constraints(), sep="\n")
