"""The registry of tasks: names, short names, order, and what installed packages bring."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import pytest

from archlab.errors import ArchlabError
from archlab.sources import import_file, import_installed
from archlab.tasks import IGNORE, register, registry, sample, setting
from archlab.tasks.compression import Compression
from archlab.tasks.in_context_recall import InContextRecall
from archlab.tasks.registry import find_task, task_order
from tests.oracles.tasks import GENERATORS

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "custom_task.py"
ORDER = [
    "in-context-recall",
    "noisy-in-context-recall",
    "fuzzy-in-context-recall",
    "selective-copying",
    "compression",
    "memorization",
]
OTHERS = ["mqar", "copying", "palindrome", "needle", "depo", "parity", "modular-addition", "permutation-words", "mano", "stack"]
SHORT = {"recall": ORDER[0], "noisy": ORDER[1], "fuzzy": ORDER[2], "copy": ORDER[3]}


def test_tasks_stand_in_the_order_of_tables():
    assert list(registry()) == [*ORDER, *OTHERS]
    assert sorted(["memorization", "a-lost-task", "compression"], key=task_order)[-1] == "a-lost-task"


def test_a_task_is_found_by_its_name_and_its_short_name():
    assert {name: find_task(name).name for name in SHORT} == SHORT
    assert all(find_task(name) is task for name, task in registry().items())
    assert setting("copy", length=64) == setting("selective-copying", length=64)
    assert (sample("recall", "test", n=2)[0] == sample("in-context-recall", "test", n=2)[0]).all()
    with pytest.raises(ArchlabError, match="unknown task 'recal': did you mean 'recall'"):
        find_task("recal")


def test_a_task_without_a_short_name_is_called_by_its_name(outside: Path):
    @register("mine")
    @dataclass(frozen=True, kw_only=True)
    class Mine(InContextRecall):
        pass

    assert (Mine.short, find_task("mine")) == ("mine", Mine)
    assert InContextRecall.short == "recall"


def test_a_registered_class_is_made_a_frozen_dataclass(outside: Path):
    @register("mine")
    class Mine(InContextRecall):
        depth: int = 2

    assert str(setting("mine", depth=3)) == "mine(depth=3)"
    with pytest.raises(FrozenInstanceError):
        Mine().depth = 1


def test_the_same_class_may_register_again():
    assert register("compression")(Compression) is find_task("compression")


def test_a_knob_without_a_default_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Deep(InContextRecall):
        depth: int

    with pytest.raises(ArchlabError, match=r"^task 'deep': its knob depth needs a default, as in depth: int = 16$"):
        register("deep")(Deep)
    assert "deep" not in registry()


@pytest.mark.parametrize(("name", "short"), [("compression", "mine"), ("mine", "recall"), ("mine", "compression")])
def test_a_taken_name_is_refused(outside: Path, name: str, short: str):
    text = EXAMPLE.read_text().replace('"running-sum"', f'"{name}"').replace('"sum"', f'"{short}"')
    (outside / "taken_names.py").write_text(text)
    taken = name if short == "mine" else short
    owner = find_task(taken)
    message = f"task name {taken!r} is taken by {owner.__module__}.{owner.__name__}"
    with pytest.raises(ArchlabError, match=f"^tasks file .*: cannot be imported: {message}$"):
        import_file(outside / "taken_names.py", "tasks")
    assert list(registry()) == [*ORDER, *OTHERS]


@pytest.fixture
def installed(outside: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that brings the example, and one that cannot be imported."""
    for package, module in (("toy-tasks", "toy_tasks"), ("broken-tasks", "not_there")):
        information = outside / f"{package.replace('-', '_')}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[archlab.tasks]\nany = {module}\n")
    (outside / "toy_tasks.py").write_text(EXAMPLE.read_text())
    monkeypatch.syspath_prepend(str(outside))
    import_installed.cache_clear()
    yield
    import_installed.cache_clear()


@pytest.mark.usefixtures("installed")
def test_installed_packages_bring_tasks():
    inputs, targets = sample("running-sum", "test", n=3, length=9)
    assert (targets[:, 0] == inputs[:, 0]).all()
    assert (targets != IGNORE).all()
    reason = "unknown task 'running-sun': did you mean 'running-sum'.; the tasks of broken-tasks cannot be imported: Module"
    with pytest.raises(ArchlabError, match=reason):
        find_task("running-sun")


def test_every_task_of_the_package_has_a_rank_of_its_own():
    ranks = [registry()[name].order for name in GENERATORS]
    assert len(set(ranks)) == len(ranks)
