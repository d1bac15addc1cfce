"""Wrong input: one line with the fix, status 2, nothing written or changed."""

import shutil
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine

RUN = ["run", "transformer++", "--protocol", "smoke"]
WRONG = [
    (["run", "atention"], "unknown layer 'atention': did you mean 'attention'?"),
    (["run", "3*[hyena"], "'[' at character 3 is never closed: add ']'"),
    (["run", ""], "an architecture needs at least one layer"),
    (["run"], "Missing argument 'SPEC'"),
    ([*RUN, "mh-attention(heads=3)", "--set", "dim=128"], "width 128 does not split into 3 heads"),
    ([*RUN, "mh-attention(head=2)"], "did you mean 'heads'?"),
    ([*RUN, "--store", "folder"], "store folder is a directory: give a file"),
    ([*RUN, "--store", "text.db"], "store text.db is not an SQLite database"),
    ([*RUN, "--store", "damaged.db"], "store damaged.db is damaged"),
    ([*RUN, "--store", "missing/archlab.db"], "the folder missing does not exist"),
    ([*RUN, "--store", "nonsense://host"], "give a path, or a URL"),
    ([*RUN, "--dry-run", "--store", "text.db"], "store text.db is not an SQLite database"),
    (["run", "transformer++", "--protocol", "smokey"], "did you mean 'smoke'?"),
    (["run", "transformer++", "--protocol", "my.yaml"], "protocol my.yaml: cannot be read: no such file"),
    ([*RUN, "--tasks", "compresion"], "did you mean 'compression'?"),
    ([*RUN, "--tasks", ""], "--tasks '' names no task: `archlab tasks` lists them"),
    ([*RUN, "--settings", "some"], "settings='some': give one of all, base"),
    ([*RUN, "--set", "lenght=8"], "did you mean 'length'?"),
    ([*RUN, "--set", "length=7"], "in-context-recall: length=7"),
    ([*RUN, "--set", "length"], "--set length: write KEY=VALUE"),
    ([*RUN, "--set", "recipe.step=8"], "did you mean 'steps'?"),
    ([*RUN, "--set", "steps=8"], "steps belongs to the recipe: write recipe.steps"),
    ([*RUN, "--set", "compression.steps=8"], "steps belongs to the recipe: write recipe.steps"),
    ([*RUN, "--set", "recipe.length=8"], "length does not belong to the recipe: write length"),
    ([*RUN, "--set", "recipe.dim=8"], "dim does not belong to the recipe: write dim"),
    ([*RUN, "--set", "recipe.lr=1e-3"], "lr belongs to the grid: write --grid lr=A,B"),
    ([*RUN, "--set", "weight_decay=0.1"], "weight_decay belongs to the grid: write --grid weight_decay=A,B"),
    ([*RUN, "--set", "seeds=3"], "seeds is not set like a knob: write --seeds N"),
    ([*RUN, "--set", "d_state=8"], "d_state is a knob of layers: write it into the spec, as in "),
    (["search", "--space", "stacks6", "--protocol", "smoke", "-o", "x.pdf"], "report x.pdf: the page is HTML: give x.html"),
    (["search", "--space", "stacks6", "--protocol", "smoke", "-o", "no/x.html"], "there is no directory no: create it first"),
    (["correlate", "--published", "mad", "-o", "x.png"], "report x.png: the page is HTML: give x.html"),
    (["run", "recall"], "recall is a task, not an architecture: write tasks=['recall'] (--tasks recall)"),
    (["run", "mamba", "d_state=8"], "knobs stand in parentheses: name(d_state=8)"),
    ([*RUN, "--set", "recipe.steps=few"], "steps='few': give a whole number of at least 0"),
    ([*RUN, "--set", "dim=wide"], "dim='wide': give a whole number"),
    ([*RUN, "--set", "recipe.kernels=cuda"], "kernels='cuda': give one of torch, fla"),
    ([*RUN, "--set", "recipe.kernels=fla"], "recipe: kernels='fla': they need a GPU: choose device='cuda', or leave"),
    ([*RUN, "--set", "recipe.kernels=fla", "--dry-run"], "recipe: kernels='fla': they need a GPU"),
    ([*RUN, "--seeds", "some"], "--seeds some: give how many"),
    ([*RUN, "--seeds", "0"], "--seeds 0: give how many"),
    ([*RUN, "--seeds", "300000000"], "--seeds 300000000: give at most 10,000"),
    ([*RUN, "--grid", "lr=" + ",".join(map(str, range(1, 2000)))], "with at most 1,000 entries"),
    ([*RUN, "--workers", "99999999"], "--workers': Input should be less than or equal to 1024"),
    (["search", "--space", "stacks6", "--protocol", "smoke", "--executor", "workers"], "executor='workers': only runs and"),
    (["design", "--space", "stacks6", "--protocol", "smoke", "--executor", "workers"], "executor='workers': only runs and"),
    (["bench", "mlp", "--protocol", "smoke", "--executor", "workers"], "executor='workers': only runs and"),
    ([*RUN, "--store", "x" * 300], "is no place for a file (File name too long): choose another"),
    ([*RUN, "--store", "a\0b"], "store 'a\\x00b': is no place for a file (no path holds NUL)"),
    ([*RUN, "--layers", "a\0.py"], "there is no such Python file"),
    (["run", "a\0.yaml"], "study 'a\\x00.yaml': cannot be read: no path holds NUL"),
    (["run", "endless.yaml"], "study endless.yaml: longer than 32 MiB: is it the right file?"),
    (["scale", "run", "endless.yaml"], "plan endless.yaml: longer than 32 MiB"),
    (["scale", "plan", "mamba", "--ladder", "endless.yaml"], "ladder endless.yaml: longer than 32 MiB"),
    ([*RUN, "--seeds", "1,-2"], "--seeds 1,-2: give how many"),
    ([*RUN, "--grid", "rate=1"], "--grid rate=1: write lr=1e-3,5e-4 or wd=0,0.1"),
    ([*RUN, "--grid", "lr=1e-3,"], "--grid lr=1e-3,: write lr="),
    ([*RUN, "--grid", "lr=-1"], "-1"),
    ([*RUN, "--grid", "lr=1", "--grid", "lr=2"], "lr is given twice"),
    ([*RUN, "--grid", "lr=1", "--grid", "learning_rate=2"], "learning_rate is given twice"),
    ([*RUN, "--workers", "0"], "Invalid value for '--workers'"),
    ([*RUN, "--workers", "two"], "Invalid value for '--workers'"),
    ([*RUN, "--device", "cuda"], "no GPU is visible here: choose device='cpu'"),
    ([*RUN, "--device", "cuda", "--dry-run"], "no GPU is visible here"),
    ([*RUN, "--device", "tpu"], "'tpu' is not one of 'cpu', 'cuda'"),
    ([*RUN, "--sed", "1"], "No such option: --sed"),
    (["scores"], "store archlab.db does not exist: `archlab run SPEC --store archlab.db` makes it"),
    (["scores", "--store", "text.db"], "is not an SQLite database"),
    (["report"], "store archlab.db does not exist"),
    (["runs", "postgresql://u:pw@h/db"], "postgresql://***@h/db: one argument too many"),
    (["scale", "fit"], "store archlab.db does not exist: `archlab scale run PLAN --store archlab.db` makes it"),
    (["describe", "atention"], "did you mean 'attention'?"),
    (["describe", "mh-attention", "--dim", "30"], "the nearest that fits is heads=15"),
    (["describe", "mamba", "--dim", "0"], "--dim 0: must be at least 1"),
    (["describe", "parallel(mamba)"], "give two layers or more to add, as in parallel(mamba, mh-attention)"),
    (["describe", "stripe(mamba, hyena)"], "takes two layers or [groups], then every"),
    (["describe", "mamba", "--length", "0"], "--length 0: must be at least 1"),
    (["describe", "mamba", "--length", "1" + 400 * "0"], "0: must be at most 1,000,000,000,000"),
    (["describe", "gqa(heads=100000000001, kv_heads=7)"], "7 equal groups; the nearest that fits is kv_heads=1"),
    (["describe", "gated-linear-attention(expand_k=nan)"], "(expand_k=nan): give a finite number"),
    (["describe", "experts(mlp, num=-1)"], "experts: num=-1: give a whole number of at least 1"),
    (["describe", "mamba", "--vocab-size", "0"], "--vocab-size 0: must be at least 1"),
    (["normalise", "mamba"], "give --state, --params, or both"),
    (["normalise", "mamba", "--state", "0"], "state=0: give a whole number from 1 to 1000000000000"),
    (["normalise", "mamba", "--state", "9", "--params", "-3"], "params=-3: give a whole number from 1 to 1000000000000"),
    (["normalise", "mh-attention", "--state", "9", "--dim", "30"], "the nearest that fits is heads=15"),
    ([*RUN, "--iso-state", "0"], "state=0: give a whole number from 1 to 1000000000000"),
    (["layers", "mambo"], "unknown layer 'mambo': did you mean 'mamba'?"),
    (["run", "study.yaml"], "study study.yaml: cannot be read: no such file"),
    (["run", "study.yaml", "--protocol", "quick"], "the study study.yaml names its own: change it there"),
    (["layers", "--length", "0"], "--length 0: must be at least 1"),
    (["protocols", "smokey"], "did you mean 'smoke'?"),
    (["tasks", "show", "compresion"], "did you mean 'compression'?"),
    (["tasks", "show", "compression", "--split", "exam"], "'exam' is not one of 'train', 'validation', 'test'"),
    (["tasks", "show", "compression", "--seed", "-1"], "seed=-1"),
    ([*RUN, "--as", "7"], "label='7' (--as): a number could be mistaken for that of another run"),
    ([*RUN, "--as", " "], "label=' ' (--as): it begins or ends with a space: give a name"),
    ([*RUN, "--as", " ", "--dry-run"], "label=' ' (--as): it begins or ends with a space: give a name"),
    ([*RUN, "--as", "a\x1b[31m"], "label='a\\x1b[31m' (--as): it has characters that cannot be printed: give a name"),
    ([*RUN, "--executor", "locl"], "unknown executor 'locl': did you mean 'local'?"),
    ([*RUN, "--population", "0"], "--population 0: give auto, or a whole number"),
    ([*RUN, "--tasks-file", "none.py"], "tasks file none.py: there is no such Python file"),
    (["bench", "mambo"], "unknown layer 'mambo': did you mean 'mamba'?"),
    (["describe", "mamba", "--protocol", "smokey"], "did you mean 'smoke'?"),
    (["trials", "--store", "small.db", "--status", "done"], "status='done': give one of running, finished"),
    (["trials", "--store", "small.db", "--tasks", "recal"], "unknown task in store small.db: 'recal'"),
    (["trials", "--store", "small.db", "--architecture", "mambo"], "unknown architecture in store small.db: 'mambo'"),
    (["trials", "--store", "small.db", "--run", "9"], "unknown run '9': known: 1"),
    (["trials", "--store", "small.db", "delete", "--tasks", "recall"], "--store before delete has no effect on it"),
    (["trials", "--tasks", "recall", "delete"], "--tasks before delete has no effect on it"),
    (["trials", "delete", "--store", "small.db"], "say which: keys, --run, --architecture, --tasks or --status"),
    (["trials", "delete", "--store", "small.db", "zzz"], "has a key that begins with 'zzz'"),
    (["trials", "rerun", "--store", "small.db"], "say which: keys, --run, --architecture, --tasks or --status"),
    (["scores", "--store", "small.db", "--settings", "some"], "settings='some': give one of all, base"),
    (["scores", "--store", "small.db", "--run", "9"], "unknown run '9': known: 1"),
    (["scores", "--store", "small.db", "--architecture", "x"], "unknown architecture of the run: 'x'"),
    (["report", "--store", "small.db", "--output", "page.pdf"], "the page is HTML: give page.html"),
    (["store", "check", "--store", "none.db"], "store none.db does not exist"),
    (["store", "merge", "none.db", "--store", "new.db"], "store none.db does not exist"),
    (["trials", "delete", "", "--yes"], "archlab trials delete '': no key is empty"),
    (["trials", "rerun", "", "--yes"], "archlab trials rerun '': no key is empty"),
    (["store", "rekey", "--store", "none.db"], "store none.db does not exist"),
    (["store", "export", "--store", "small.db", "--output", "trials.pdf"], "give a name that ends in .csv or .jsonl"),
    (["store", "export", "--store", "small.db", "--status", "weird"], "status='weird': give one of"),
    (["scores", "--store", "small.db", "--run", "1", "--protocol", "quick"], "run 1 is of protocol smoke, not quick"),
    (["report", "--store", "small.db", "-o", "small.db"], "report small.db: is a database, perhaps a store"),
    (["report", "--store", "small.db", "-o", "x" * 300], "cannot be written: File name too long"),
    (["report", "--store", "small.db", "-o", "loop"], "report loop: cannot be written: Too many levels of symbolic links"),
    (["scale", "report", "--store", "small.db", "-o", "-"], "the runs go to the .csv file of the page's name"),
    (["scale", "plan", "mamba", "--budgets", "2e11,2.01e11"], "budgets=2e+11 and 2.01e+11 are the same within 1%"),
    (["export", "mamba", ".", "--store", "none.db"], "store none.db does not exist"),
    (["scores", "--store", "none.db", "-o", "missing/scores.csv"], "store none.db does not exist"),
    (["scores", "--store", "small.db", "-o", "missing/scores.csv", "--run", "9"], "--output missing/scores.csv: "),
    (
        ["report", "--store", "small.db", "-o", "missing/page.html", "--run", "9"],
        "report missing/page.html: there is no",
    ),
    (["describe", "mambo", "--vocab-size", "0"], "unknown layer 'mambo'"),
    (["scroes"], "No such command 'scroes'"),
]


@pytest.fixture
def folder(tmp_path: Path, smoke_run) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    (tmp_path / "text.db").write_text("not a database")
    shutil.copy(smoke_run[0], tmp_path / "small.db")
    (tmp_path / "damaged.db").write_bytes(smoke_run[0].read_bytes()[:5000])
    return tmp_path


def test_a_line_stays_short_whatever_is_given(archlab: CommandLine):
    assert len(archlab("run", "x" * 100_000).err) < 2500
    assert len(archlab("run", "attention", "--set", "dim=" + "9" * 4000).err) < 2500


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


WITHOUT_JSON = {"report", "scroes", "delete", "merge", "rekey", "export", "rerun"}
CASES = WRONG + [([*arguments, "--json"], reason) for arguments, reason in WRONG if WITHOUT_JSON.isdisjoint(arguments)]


@pytest.mark.parametrize(("arguments", "reason"), CASES, ids=[" ".join(arguments) for arguments, _ in CASES])
def test_wrong_input_is_one_line(archlab: CommandLine, folder: Path, monkeypatch, arguments: list[str], reason: str):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    before = contents(folder)
    outcome = archlab(*arguments)
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert reason in outcome.err
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("output", "reason"), [("folder", "is a directory: give a file"), ("missing/report.html", "there is no directory missing")]
)
def test_a_report_needs_a_place(archlab: CommandLine, folder: Path, smoke_run, output: str, reason: str):
    before = contents(folder)
    outcome = archlab("report", "--store", str(smoke_run[0]), "-o", output)
    assert (outcome.status, outcome.out) == (2, "")
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1
    assert contents(folder) == before


def test_a_protocol_that_never_ran(archlab: CommandLine, smoke_run):
    outcome = archlab("scores", "--store", str(smoke_run[0]), "--protocol", "paper")
    assert outcome.status == 2
    assert "has no run of protocol 'paper', only of smoke" in outcome.err
