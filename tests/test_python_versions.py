"""The code that counts in keys has one hash under every version of Python: stores are shared between them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PYENV = shutil.which("pyenv")
if PYENV:  # which shows but one version otherwise
    found = subprocess.run([PYENV, "versions", "--bare"], capture_output=True, text=True, check=False).stdout.split()
VERSIONS = {"PYENV_VERSION": ":".join(found)} if PYENV else {}
ROOT = Path(__file__).parents[1]
PROGRAM = """
import sys
from archlab.store.fingerprint import MODELS, code_fingerprint
assert "torch" not in sys.modules
print(sys.version_info[:2], code_fingerprint(*(f"archlab.layers.{name}" for name in ("attention", "mamba", "hyena", "moe"))))
"""


def printed(python: str) -> tuple[str, str]:
    environment = {**os.environ, **VERSIONS, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([python, "-S", "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=True)
    version, _, found = done.stdout.strip().rpartition(" ")
    return version, found


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_the_fingerprint_of_code_is_the_same_under_every_version(version: tuple[int, int]):
    name = "python{}.{}".format(*version)
    try:
        subprocess.run([name, "-c", ""], env={**os.environ, **VERSIONS}, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"{name} is not on this machine")
    assert printed(name) == (str(version), printed(sys.executable)[1])
