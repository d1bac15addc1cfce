"""lm-evaluation-harness on a kept model, without export and on the exported folder: the same numbers, offline."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.command_line import CommandLine
from tests.exports.kept_models import keep
from tests.scaling.language_models import LENGTH

import archlab as al

needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs lm-eval: pip install 'archlab[eval]'"
)
ROWS = [
    {"question": f"line {n} of ", "right": n % 2, "answers": ["the text", "a book"], "text": f"line {n}, {n * n}"}
    for n in range(6)
]
TASKS = {
    "own_choice": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{right}}"
doc_to_choice: "{{answers}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "own_rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}} and so on and on and on"
metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]
""",
    "own_generation": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "e"
generation_kwargs: {until: ["\\n"], max_gen_toks: 5, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
}


@pytest.fixture(name="own_tasks")
def fixture_own_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tasks whose data are beside them."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, text in TASKS.items():
        data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'rows.jsonl'}}}}}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{data}{text}")
    return folder


@needs_harness
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spec", ["mh-attention(heads=2) swiglu", "mamba swiglu"])
def test_a_model_and_its_export_have_the_same_numbers(spec: str, own_tasks: Path, tmp_path: Path):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from archlab.exports.harness import KeptLM, run_harness

    kept = keep(tmp_path, spec)
    ours = run_harness(kept, list(TASKS), include=str(own_tasks))["results"]
    folder = al.export(kept, tmp_path / "exported")
    theirs = simple_evaluate(
        "hf",
        model_args={"pretrained": str(folder), "trust_remote_code": True, "device": "cpu"},
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(own_tasks)),
        bootstrap_iters=0,
    )["results"]
    numbers = [(task, name) for task in TASKS for name, value in ours[task].items() if isinstance(value, float)]
    assert {task for task, _ in numbers} == set(TASKS)
    for task, name in numbers:
        if "stderr" not in name:
            assert ours[task][name] == pytest.approx(theirs[task][name], rel=1e-4), (task, name)
    lm = KeptLM(kept)
    question, answer = lm.tok_encode("line 7"), lm.tok_encode(" of")
    ((likelihood, _),) = lm._loglikelihood_tokens([(None, question, answer)])
    ids = torch.tensor([question + answer])
    scores = kept.model(ids)[0].log_softmax(-1)
    assert likelihood == pytest.approx(sum(float(scores[n - 1, ids[0, n]]) for n in range(len(question), ids.shape[1])), rel=1e-5)
    assert math.isfinite(ours["own_rolling"]["word_perplexity,none"])
    assert len(lm.tok_encode(ROWS[0]["text"] + " and so on and on and on")) > LENGTH  # so windows roll


@needs_harness
@pytest.mark.filterwarnings("ignore")
def test_the_command_shows_the_metrics(own_tasks: Path, archlab: CommandLine, tmp_path: Path):
    keep(tmp_path, "mamba swiglu")
    asked = ("eval", "tiny", "--include", str(own_tasks), "--store", str(tmp_path / "a.db"))
    document = json.loads(archlab(*asked, "--tasks", "own_choice", "--json").out)
    shown = archlab(*asked, "--tasks", "own_choice", "--limit", "3")
    assert (shown.status, "own_choice" in shown.out, "acc" in shown.out) == (0, True, True), shown.err
    assert document["n-samples"]["own_choice"]["effective"] == len(ROWS)
    refused = archlab(*asked, "--tasks", "own_choice,nothing")
    assert (refused.status, refused.err.startswith("error: task nothing: lm-evaluation-harness has none")) == (2, True), (
        refused.err
    )


def test_without_the_harness_the_extra_is_named(archlab: CommandLine, monkeypatch: Any):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "archlab.exports.harness", raising=False)
    refused = archlab("eval", "tiny", "--tasks", "piqa")
    assert refused.status == 2
    assert "pip install 'archlab[eval]'" in refused.err
