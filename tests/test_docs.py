"""What the documentation tells people to type works: commands, make targets, Python."""

import ast
import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tools.site import main

from tests.cli.command_line import CommandLine
from tests.fake_training import made_up_speeds, threads
from tests.jobs.thread_executor import ThreadExecutor
from tests.scaling.synthetic_ladders import made_up_training
from tests.test_package import PUBLIC, SUBPACKAGES

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONG = {"python.md", "scaling-runs.md", "scaling.md", "search.md"}
"""Pages whose commands and Python take long."""
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = {"archlab.db", "archlab.models", "archlab.checkpoints"}
ELSEWHERE = ("://", "--device cuda")
"""Commands with these need a machine that the tests do not have: they are only read."""


@dataclass(frozen=True)
class Command:
    """One command of a shell block."""

    words: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()
    output: str | None = None
    """File that the standard output is redirected to."""


def blocks(document: Path, *languages: str) -> list[str]:
    text = document.read_text(encoding="utf-8") if document.exists() else ""
    return [body for language, body in FENCE.findall(text) if language in languages]


def commands(document: Path) -> list[Command]:
    found: list[Command] = []
    for body in blocks(document, "console", "bash", "sh", "shell"):
        lines = body.replace("\\\n", " ").splitlines()
        prompts = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        parts = [part for line in prompts or lines for part in re.split(r" && | \| |; ", line)]
        found += [parse(words) for part in parts if (words := shlex.split(part, comments=True))]
    return found


def parse(words: list[str]) -> Command:
    variables = []
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        variables.append((name, value))
    output = words[words.index(">") + 1] if ">" in words else None
    words = words[: words.index(">")] if ">" in words else words
    return Command((words[0].removeprefix(".venv/bin/"), *words[1:]) if words else (), tuple(variables), output)


def pages(documents: list[Path]) -> list[Any]:
    """Documents as parameters; of those that take long the tests are slow ones."""
    return [
        pytest.param(path, id=str(path.relative_to(ROOT)), marks=[pytest.mark.slow] if path.name in LONG else [])
        for path in documents
    ]


def test_documents_use_public_names_only():
    public = {module: names | set(SUBPACKAGES if module == "archlab" else ()) for module, names in PUBLIC.items()}
    for document in [*DOCUMENTS, *(ROOT / "examples").glob("*.py")]:
        text = document.read_text(encoding="utf-8")
        code = [text] if document.suffix == ".py" else blocks(document, "python")
        nodes = [node for part in code for node in ast.walk(ast.parse(part))]
        used = {(node.module, alias.name) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        used |= {
            ("archlab", node.attr) for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "archlab"
        }
        whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        if "decisions" not in document.parts and document.name != "CONTRIBUTING.md":  # which tell of the inside
            whole |= set(re.findall(r"`(archlab(?:\.[a-zA-Z]+)+)(?=[`(])", FENCE.sub("", text))) - FILES
        for name in whole - set(public):
            used.add((name.rpartition(".")[0] or name, name.rpartition(".")[2]))
        hidden = {f"{home}.{name}" for home, name in used if str(home).startswith("archlab") and name not in public.get(home, ())}
        assert not hidden, document


def option(words: tuple[str, ...], name: str, default: str) -> str:
    return words[words.index(name) + 1] if name in words else default


def untrained(kept: dict[str, Any], trial: Any, on_progress: Any, thresholds: Any) -> Any:
    """Give a made-up result, and keep the language models that the document uses as they are initialised."""
    import torch

    from archlab.corpora import prepare
    from archlab.format import human
    from archlab.scaling.models import save_model
    from archlab.scaling.processes import Processes

    run, result = trial.run, made_up_training(trial, on_progress, thresholds)
    used = {word for command in commands(ROOT / "docs" / "scaling-runs.md") for word in command.words if "@" in word}
    if kept["models"] is None or f"{run.label}@{human(run.params)}" not in used:
        return result
    model = run.architecture.build(vocab_size=run.vocab_size, max_length=run.length, dim=run.dim)
    corpus = prepare(run.corpus, run.tokenizer)
    return replace(result, not_kept=save_model(kept["models"], trial, result, model, corpus, Processes(torch.device("cpu"))))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What documents prepare once for all: corpora."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def reader(archlab: CommandLine, cache: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line for who follows a document: trainings run in this process, nothing is measured."""
    from archlab.mad.profile import profile_trials
    from archlab.scaling.estimate import stated_costs
    from archlab.scaling.fits import bootstrap
    from tests.mad.trials import train

    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr("archlab.scaling.estimate.measured_costs", lambda runs: stated_costs(runs, lambda label: 1e9))
    monkeypatch.setattr("archlab.api.make_executor", lambda *_, **__: threads(train, num_workers=1))
    monkeypatch.setattr("archlab.scaling.api.make_executor", lambda work, *_, **__: threads(partial(untrained, work.keywords), 1))
    few = "archlab.scaling.fits.resampling.bootstrap"
    monkeypatch.setattr(few, lambda *of, **how: bootstrap(*of, **how | {"resamples": 20}))
    monkeypatch.setattr("archlab.mad.estimate.flops_per_second", lambda trial: 1e9)
    monkeypatch.setattr("archlab.mad.bench.measure", made_up_speeds)
    monkeypatch.setattr(
        "archlab.mad.bench.profile_trials", lambda protocol, label, trials: profile_trials(protocol, label, trials[:1])
    )
    monkeypatch.setattr("archlab.mad.memory.step_bytes", lambda *_, **__: 1 << 20)
    return archlab


def follow(reader: CommandLine, command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do as the document says; what would train for long is planned instead, and a smoke run stands in for it."""
    words = tuple(str(ROOT / word) if word.startswith("examples/") else word for word in command.words[1:])
    with monkeypatch.context() as context:
        for name, value in command.variables:
            context.setenv(name, value)
        if words[0] == "run" and option(words, "--protocol", "quick") != "smoke" and "--dry-run" not in words:
            outcome = reader(*words, "--dry-run")
            assert outcome.status == 0, f"{shlex.join(command.words)}: {outcome.err}"
            stand_in = ("mlp", "swiglu", "--protocol", "smoke", "--tasks", "compression")
            words = (
                "run",
                *stand_in,
                "--store",
                option(words, "--store", dict(command.variables).get("ARCHLAB_STORE", "archlab.db")),
            )
        elif words[0] in ("scores", "report") and "--protocol" in words:
            at = words.index("--protocol")
            words = words[:at] + words[at + 2 :]
        outcome = reader(*words)
    assert outcome.status == 0, f"{shlex.join(command.words)}: {outcome.err}"
    if command.output:
        (folder / command.output).write_text(outcome.out, encoding="utf-8")


@pytest.mark.parametrize("kind", ["layer", "task"])
def test_the_tutorial_shows_the_example(kind: str):
    assert blocks(ROOT / "docs" / f"write-a-{kind}.md", "python")[0] == (ROOT / "examples" / f"custom_{kind}.py").read_text()


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as the site and forges make them."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", head)).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path):
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", document.read_text(encoding="utf-8")))
    for target, anchor in re.findall(r"\]\(([^)\s#]*)#?([^)\s]*)\)", text):
        if "://" not in target:
            path = (document.parent / target).resolve() if target else document
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_lists_stand_apart_and_no_heading_is_there_twice(document: Path):
    """A list that follows a paragraph without an empty line is a part of it on the site."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    joined = re.findall(r"^(?![-#|>\s]|\d+\. )\S.*\n(?=- |\d+\. )", text, re.MULTILINE)
    assert not joined
    headings = re.findall(r"^## .*$", text, re.MULTILINE)
    assert document.name == "CHANGELOG.md" or len(headings) == len(set(headings))


def test_the_site_has_every_page_and_every_public_name(tmp_path: Path):
    main(tmp_path)
    settings = tomllib.loads((tmp_path / "zensical.toml").read_text(encoding="utf-8"))["project"]

    def pages(part: Any) -> set[str]:
        return {part} if isinstance(part, str) else set().union(*map(pages, part.values() if isinstance(part, dict) else part))

    shown = pages(settings["nav"])
    assert {str(path.relative_to(ROOT)) for path in DOCUMENTS} <= shown
    assert all((tmp_path / "pages" / page).exists() for page in shown)
    for module, names in PUBLIC.items():
        page = (tmp_path / "pages" / "docs" / "reference" / f"{module}.md").read_text(encoding="utf-8")
        assert set(re.findall(r"heading: (.*)", page)) == {f"{module}.{name}" for name in names if name != "fits"}
        for place in re.findall(r"^::: (.*)", page, re.MULTILINE):
            assert place.startswith("archlab.")
    assert not re.search(r":(meth|class|func):`", (tmp_path / "src" / "archlab" / "api.py").read_text(encoding="utf-8"))


def test_the_index_links_every_page():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page != "index.md" and f"({page})" not in index] == []
    titles = [path.read_text().split("\n")[0].removeprefix("# ") for path in sorted((ROOT / "docs" / "decisions").iterdir())]
    assert re.sub(r"\[(.*)\]\(decisions/.*\)", r"\1", index).splitlines()[-len(titles) :] == titles


def test_what_the_first_command_prints_is_what_the_page_shows(archlab: CommandLine):
    page = ROOT / "docs" / "architectures.md"
    assert archlab(*commands(page)[0].words[1:]).out == blocks(page, "text")[0]


def test_the_readme_shows_how_to_start():
    first = [command.words[0] for command in commands(ROOT / "README.md") if command.words]
    assert "make" in first
    assert first.count("archlab") >= 3


@pytest.mark.parametrize("document", pages(DOCUMENTS))
def test_commands_work(document: Path, reader: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert document.exists()
    for command in commands(document):
        line = shlex.join(command.words)
        if command.words[:1] == ("archlab",) and not any(mark in line for mark in ELSEWHERE):
            follow(reader, command, tmp_path, monkeypatch)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_and_scripts_exist(document: Path):
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands(document):
        if command.words[:1] == ("make",):
            assert {word for word in command.words[1:] if not re.match(r"-|\w+=", word)} <= targets
        for word in command.words:
            if re.match(r"(benchmarks|examples|tests)/", word):
                assert (ROOT / word).exists(), shlex.join(command.words)


WITH_PYTHON = [document for document in DOCUMENTS if blocks(document, "python")]
SCRIPTS = [ROOT / "docs" / "python.md", ROOT / "docs" / "write-a-layer.md"]
"""Run as scripts in processes of their own, with workers and layers; the others run in the tests' process."""


@pytest.mark.parametrize("document", pages(WITH_PYTHON))
def test_python_runs(document: Path, reader: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All blocks of a document, one after the other, in the folder that its commands leave."""
    for command in commands(document):
        if command.words[:2] == ("archlab", "run"):
            follow(reader, command, tmp_path, monkeypatch)
    (tmp_path / "document.py").write_text("\n".join(blocks(document, "python")), encoding="utf-8")
    if document in SCRIPTS:
        command = [sys.executable, "-W", "error", "document.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    else:
        monkeypatch.setattr("archlab.scaling.api.make_executor", lambda work, *_, **__: ThreadExecutor(work, 1))
        runpy.run_path("document.py", run_name="__main__")


@pytest.mark.usefixtures("reader")
def test_the_tutorial_notebook_runs():
    """Its cells one after the other, the values that end them shown as a notebook shows them."""
    notebook = json.loads((ROOT / "examples" / "tutorial.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in notebook["cells"]:
        assert not cell.get("outputs")  # which a reader makes
        if cell["cell_type"] == "code":
            *before, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(before, []), cell["id"], "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), cell["id"], "eval"), names)
                shown += [] if value is None else [getattr(value, "_repr_html_", getattr(value, "to_html", None))()]
            else:
                exec(compile(ast.Module([last], []), cell["id"], "exec"), names)
    assert len(shown) == 6
    assert all("<table" in text or "vega" in text for text in shown)
    assert Path("leaderboard.svg").read_text().startswith("<svg")
