"""Keeps the board: adds an architecture, trains what is missing, exports the table.

    python leaderboard/board.py add NAME SPEC [--layers FILE] [--to quick standard laws]
    python leaderboard/board.py train [quick standard laws]
    python leaderboard/board.py export

quick.yaml and standard.yaml are studies of `archlab run`, laws.yaml is a ladder of `archlab scale plan`; each names its
architectures. Results are in board.db beside them, which is committed: every row is trained once. `export` writes board.json and,
where pyarrow is installed, board.parquet; README.md says what is in them.
"""

import argparse
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pandas as pd
import yaml

import archlab
from archlab import scaling

PARTS = ("quick", "standard", "laws")
COSTS = ("num_params", "state_size", "flops")
REFERENCE = "transformer++"
REFUSED = 2
"""Exit status of archlab for what it refuses."""


def refuse(why: str) -> NoReturn:
    """End this program as archlab does when it refuses something."""
    print(f"error: {why}", file=sys.stderr)
    sys.exit(REFUSED)


def command(folder: Path, *words: str) -> None:
    """Run `archlab` with the layers of the folder; ends this program if that fails."""
    layers = [word for file in sorted((folder / "layers").glob("*.py")) for word in ("--layers", str(file))]
    failed = subprocess.run([sys.executable, "-m", "archlab", *words, *layers]).returncode
    if failed:
        sys.exit(failed)


def add(folder: Path, name: str, spec: str, layers: Path | None, parts: list[str]) -> None:
    """Name an architecture in the studies, and train it; nothing stays of one that archlab refuses."""
    studies = [folder / f"{part}.yaml" for part in parts]
    if absent := [str(path) for path in (*studies, *([layers] if layers else [])) if not path.is_file()]:
        refuse(f"no file {', '.join(absent)}: give --folder or --layers another")
    kept = {path: path.read_text(encoding="utf-8") for path in studies}
    own = layers and folder / "layers" / layers.name
    if own and own.exists() and own.read_bytes() != layers.read_bytes():
        refuse(f"{own} is there already, and differs: give the file another name")
    is_new = own and not own.exists()
    try:
        if own:
            own.parent.mkdir(exist_ok=True)
            shutil.copyfile(layers, own)
        for path, text in kept.items():
            if name in yaml.safe_load(text)["architectures"]:
                refuse(f"{path} has {name} already: give another name")
            path.write_text(text + f"  {yaml.safe_dump({name: spec}, width=1000)}", encoding="utf-8")
        for part in parts:
            train(folder, part)
    except SystemExit as ended:
        if ended.code == REFUSED:
            for path, text in kept.items():
                path.write_text(text, encoding="utf-8")
            if is_new:
                own.unlink()
        raise


def train(folder: Path, part: str) -> None:
    """Train what a study lacks."""
    store, plan = folder / "board.db", folder / "plan.yaml"
    if part != "laws":
        command(folder, "run", str(folder / f"{part}.yaml"), "--store", str(store))
        return
    ladder = ["scale", "plan", "--ladder", str(folder / "laws.yaml")]
    tuning, first = folder / "tune.db", folder / "untuned.yaml"
    for one in (first, plan):
        one.unlink(missing_ok=True)
    command(folder, *ladder, "-o", str(first))
    command(folder, "scale", "tune", str(first), "--store", str(tuning))
    command(folder, *ladder, "--tuned", str(tuning), "-o", str(plan))
    command(folder, "scale", "run", str(plan), "--store", str(store), "--keep", "none")


def rows(folder: Path) -> pd.DataFrame:
    """The board: one row for each architecture and part."""
    found: list[dict[str, object]] = []
    store = folder / "board.db"
    with archlab.open(store) as results:
        runs = results.runs()
        for part in PARTS[:2]:
            protocol = Path(yaml.safe_load((folder / f"{part}.yaml").read_text(encoding="utf-8"))["protocol"]).stem
            of_part = runs[runs.protocol == protocol]
            if not of_part.empty:
                found += score_rows(results.scores(int(of_part.number.max())).to_dict(), part)
    try:
        compared = scaling.compare(store, reference=REFERENCE)
    except archlab.ArchlabError as error:
        print(f"without laws: {error}", file=sys.stderr)
    else:
        specs = {row["name"]: row["spec"] for row in found}
        found += [{"part": "laws", "spec": specs.get(row["name"]), **row} for row in law_rows(compared.to_dict())]
    return pd.DataFrame(found)


def score_rows(scores: dict, part: str) -> list[dict[str, object]]:
    """Rows of MAD scores, in percent."""
    found = []
    for one in scores["architectures"]:
        row = {"part": part, "name": one["name"] or one["architecture"], "spec": one["architecture"]}
        row |= {"complete": one["complete"], "seeds": max(s["num_seeds"] for t in one["tasks"].values() for s in t["settings"])}
        row |= {column: one[column] for column in COSTS}
        row |= {"mad": percent(one["score"]), "mad_low": percent(one["low"]), "mad_high": percent(one["high"])}
        for task, cell in one["tasks"].items():
            row |= {task: percent(cell["score"]), f"{task} low": percent(cell["low"]), f"{task} high": percent(cell["high"])}
            capacities = [setting["capacity"] for setting in cell["settings"] if "capacity" in setting]
            row |= {f"{task} capacity": capacities[0]} if len(capacities) == 1 else {}
        found.append(row)
    return found


def percent(fraction: float | None) -> float | None:
    """A score as the board states it."""
    return None if fraction is None else round(100 * fraction, 2)


def law_rows(compared: dict) -> list[dict[str, object]]:
    """Rows of language models: at each budget the loss beside the reference's, in nats a token, and the compute it is worth."""
    found: dict[str, dict[str, object]] = {}
    for one in compared["rows"]:
        row = found.setdefault(one["architecture"], {"name": one["architecture"]})
        for what in ("difference", "multiplier"):
            values = one[what] or dict.fromkeys(("value", "low", "high"))
            row |= {f"{what} at {one['budget']:.0e}": values["value"]}
            row |= {f"{what} at {one['budget']:.0e} {bound}": values[bound] for bound in ("low", "high")}
    return list(found.values())


def export(folder: Path) -> None:
    """Write the board as JSON, and as Parquet where pyarrow is installed."""
    board = rows(folder)
    text = board.to_json(orient="records", indent=1)
    (folder / "board.json").write_text(text + "\n", encoding="utf-8")
    if importlib.util.find_spec("pyarrow"):
        board.to_parquet(folder / "board.parquet", index=False)
    else:
        print("board.parquet is not written: pip install pyarrow", file=sys.stderr)
    print(f"{len(board)} rows in {folder / 'board.json'}", file=sys.stderr)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where the studies and the store are")
    todo = parser.add_subparsers(required=True, dest="todo")
    adding = todo.add_parser("add", help="add an architecture, and train it")
    adding.add_argument("name")
    adding.add_argument("spec")
    adding.add_argument("--layers", type=Path, help="a Python file that registers layers of your own; it is copied to layers/")
    adding.add_argument("--to", nargs="+", choices=PARTS, default=["quick"], help="parts of the board; default: quick")
    training = todo.add_parser("train", help="train what is missing")
    training.add_argument("parts", nargs="*", choices=PARTS, default=PARTS)
    todo.add_parser("export", help="write board.json and board.parquet")
    args = parser.parse_args()
    if args.todo == "add":
        add(args.folder, args.name, args.spec, args.layers, args.to)
    for part in args.parts if args.todo == "train" else ():
        train(args.folder, part)
    export(args.folder)


if __name__ == "__main__":
    main()
