"""The code that counts in keys has one hash under every version of Python: stores are shared between them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from archlab.store.fingerprint import code_fingerprint

ROOT = Path(__file__).parents[1]
MODULES = [f"archlab.layers.{name}" for name in ("attention", "mamba", "hyena", "moe")]
PROGRAM = f"""
import sys
from archlab.store.fingerprint import code_fingerprint
found = code_fingerprint(*{MODULES})
assert "torch" not in sys.modules
print(*sys.version_info[:2], found)
"""


def interpreter(version: str) -> str | None:
    """The path of a version of Python; pyenv's own where it has one, for its shims show but one version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return next(map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python"))), shutil.which(f"python{version}"))


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_fingerprint_of_code_is_the_same_under_every_version(version: str):
    python = interpreter(version)
    if python is None:
        pytest.skip(f"python{version} is not on this machine")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([python, "-S", "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == [*version.split("."), code_fingerprint(*MODULES)]
