import json
import platform
import shutil
import subprocess
from importlib.metadata import version
from importlib.util import find_spec

import pytest
import torch

from archlab.store import provenance


def git(*arguments, cwd):
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    return subprocess.run(["git", *identity, *arguments], cwd=cwd, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def package(tmp_path):
    """A package in a repository."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    package = tmp_path / "src" / "archlab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    git("init", cwd=tmp_path)
    return package


def test_the_environment_names_machine_and_versions():
    found = provenance.environment()
    assert json.loads(json.dumps(found)) == found
    assert found["host"] == platform.node()
    assert found["cpu"]
    assert found["gpu"] is None
    assert found["fla"] == (version("fla-core") if find_spec("fla") else None)
    assert (found["python"], found["torch"], found["archlab"]) == (
        platform.python_version(),
        torch.__version__,
        version("archlab"),
    )


def test_the_commit_is_that_of_the_checkout_and_says_if_files_differ(package):
    git("add", ".", cwd=package)
    git("commit", "-m", "a commit", cwd=package)
    commit = git("rev-parse", "HEAD", cwd=package)
    assert provenance._commit(package) == commit
    (package / "__init__.py").write_text("changed = True")
    assert provenance._commit(package) == f"{commit}-dirty"


def test_a_repository_that_only_surrounds_the_package_is_not_its_checkout(package):
    git("commit", "--allow-empty", "-m", "a commit", cwd=package)
    assert provenance._commit(package) is None


def test_without_git_there_is_no_commit(package, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance._commit(package) is None
