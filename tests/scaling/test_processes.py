"""Several processes share a model: the losses are those of one process, and any number of them takes up a checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.scaling.language_models import tiny_corpus

from archlab.errors import ArchlabError
from archlab.scaling.process_group import follow
from archlab.scaling.processes import Processes
from archlab.scaling.result import LMResult

ROOT = Path(__file__).parents[3]
SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.scaling.language_models import tiny_corpus, tiny_trial
from archlab.scaling import training_loop as loop
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.result import Interrupted
from archlab.scaling.processes import Processes, launched_together
from contextlib import nullcontext
import json
import torch
import warnings

spec, stop, corpora, checkpoints = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
replicas = int(sys.argv[5])
warnings.simplefilter("error")
take_step = loop._Training._take_step

def step_with_a_signal(self, step):
    if step == stop and self.processes.is_first:  # the others learn of it
        os.kill(os.getpid(), signal.SIGTERM)
    return take_step(self, step)

loop._Training._take_step = step_with_a_signal
corpus = tiny_corpus(corpora)
trial = tiny_trial(corpus, LMRecipe(evaluations=2, validation_tokens=176, micro_batch=2), spec=spec, batch_size=5, steps=24)
alone = nullcontext(Processes(torch.device("cpu")))
with Processes.join("cpu", replicas) if launched_together() else alone as processes:
    try:
        result = loop.train(trial, corpus, processes, checkpoints=checkpoints)
    except Interrupted as interrupted:
        sys.exit(interrupted.status)
    if processes.is_first:
        print(json.dumps(result.to_dict()))
"""


def run(processes: int, spec: str, stop: int, folder: Path, checkpoints: Path, replicas: int = 1) -> LMResult | None:
    """Train in so many processes; None if the training was interrupted."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [*(torchrun if processes > 1 else [sys.executable]), str(script), spec, str(stop), str(folder), str(checkpoints)]
    command.append(str(replicas))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    if stop:
        assert done.returncode == (143 if processes == 1 else 1), done.stderr
        assert "exitcode  : 143" in done.stderr or processes == 1
        return None
    assert done.returncode == 0, done.stderr
    return LMResult.from_dict(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "spec"),
    [
        ((2, 1), (1, 1), "mh-attention(heads=2) swiglu"),
        ((1, 1), (2, 2), "hyena mamba"),
        ((2, 1), (4, 2), "mh-attention(heads=2) swiglu"),
    ],
)
def test_other_processes_and_replicas_go_on_with_the_same_losses(tmp_path, before, after, spec):
    tiny_corpus(tmp_path)
    whole = run(1, spec, 0, tmp_path, tmp_path / "whole")
    for (processes, replicas), stop in ((before, 10), (after, 0)):
        resumed = run(processes, spec, stop, tmp_path, tmp_path / "run", replicas)
        if stop:
            assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-10"]
    assert resumed.processes == after[0]
    assert resumed.loss == pytest.approx(whole.loss, abs=1e-6)
    assert [p.train_loss for p in resumed.curve] == pytest.approx([p.train_loss for p in whole.curve], abs=2e-6)


def test_replicas_that_do_not_divide_the_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(ArchlabError, match="replicas=3: must divide the number of processes, 8"), Processes.join("cpu", 3):
        pass


@pytest.mark.parametrize(("batch", "size", "most"), [(8, 1, 0), (8, 2, 0), (7, 2, 2), (7, 3, 1), (2, 3, 0), (5, 1, 2)])
def test_every_row_is_taken_once_in_equally_many_pieces(batch, size, most):
    rows = torch.arange(batch)
    everyone = [list(Processes(torch.device("cpu"), rank, size).shares(rows, most)) for rank in range(size)]
    assert len({len(pieces) for pieces in everyone}) == 1
    pieces = [piece for own in everyone for piece in own]
    assert sum(weight for _, weight in pieces) == pytest.approx(1)
    assert sorted(int(row) for piece, weight in pieces if weight for row in piece) == list(range(batch))
    assert all(0 < len(piece) <= (most or batch) for piece, _ in pieces)
    assert all(weight in (0, len(piece) / batch) for piece, weight in pieces)


def test_a_process_that_waits_in_vain_ends_and_knows_its_gpu(monkeypatch):
    given = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda place: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *names, **options: given.append((names, options)))
    for name in ("get_rank", "get_world_size", "barrier", "destroy_process_group", "new_group"):
        monkeypatch.setattr(torch.distributed, name, lambda **options: 0)
    with Processes.join("cuda") as processes:
        assert processes.device == torch.device("cuda", 1)
    ((names, options),) = given
    assert (names, options["device_id"]) == (("nccl",), torch.device("cuda", 1))
    assert options["timeout"].total_seconds() == 1800


def test_memory_that_runs_out_ends_one_job_and_not_those_that_follow(monkeypatch):
    given, computed = iter([["large"], ["small"], None]), []
    processes = Processes(torch.device("cpu"))
    monkeypatch.setattr(Processes, "agree", lambda self, value: next(given))

    def work(jobs, on_progress, thresholds):
        computed.extend(jobs)
        if jobs == ["large"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return []

    follow(work, processes)
    assert computed == ["large", "small"]
