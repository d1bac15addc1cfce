"""The objective of a language model: compiled through what is computed again, in chunks of tokens, shared by processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from archlab import architecture
from archlab.scaling import objective as module
from archlab.scaling.objective import make_objective
from archlab.scaling.processes import Processes
from archlab.scaling.recipe import LMRecipe

ROOT = Path(__file__).parents[2]
SHAPE = {"vocab_size": 32, "length": 16, "dim": 16, "seed": 0}


def made(spec: str = "mh-attention(heads=2) swiglu", **recipe):
    alone = Processes(torch.device("cpu"))
    return make_objective(architecture(spec), **SHAPE, recipe=LMRecipe(**recipe), processes=alone)


def gradients(objective, tokens):
    objective.zero_grad()
    loss = objective(tokens)
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in objective.parameters())]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recompute", [False, True])
def test_layers_are_compiled_also_if_they_are_computed_again(monkeypatch, recompute):
    frames = []

    def backend(graph, inputs):
        frames.append(graph)
        return graph.forward

    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled(self, backend=backend, **options))
    torch._dynamo.reset()
    gradients(made(compiled=True, recompute=recompute), torch.zeros(2, 17, dtype=torch.int64))
    assert len(frames) == 2


@pytest.mark.parametrize("backbone", ["language-model", "tied-language-model"])
def test_logits_of_some_tokens_at_a_time_give_the_same_loss(monkeypatch, backbone):
    alone, tokens = Processes(torch.device("cpu")), torch.randint(32, (3, 17))
    objective = make_objective(architecture("hyena swiglu"), **SHAPE, recipe=LMRecipe(), processes=alone, backbone=backbone)
    whole = gradients(objective, tokens)
    monkeypatch.setattr(module, "_tokens_at_once", lambda mixed_nd, vocab_size: 7)
    for one, other in zip(whole, gradients(objective, tokens), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_gpu_holds_so_many_logits_and_a_cpu_all():
    meta = torch.empty(10_000, 8, device="meta")
    assert module._tokens_at_once(meta, 50_000) == 5000
    assert module._tokens_at_once(meta, 100) == 10_000
    assert module._tokens_at_once(torch.empty(10_000, 8), 50_000_000) == 10_000


SCRIPT = """
import collections, json, sys
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from tests.scaling.test_objective import SHAPE, gradients
from archlab import architecture
from archlab.scaling.objective import make_objective
from archlab.scaling.processes import Processes
from archlab.scaling.recipe import LMRecipe

torch.set_num_threads(1)

class Talk(TorchDispatchMode):
    counts, elements = collections.Counter(), collections.Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if "c10d" in operation.namespace:
            name = operation._schema.name.removeprefix("c10d::").strip("_")
            self.counts[name] += 1
            self.elements[name] += sum(x.numel() for x in torch.utils._pytree.tree_leaves(args[0]))
        return operation(*args, **(kwargs or {}))

with Processes.join("cpu", int(sys.argv[1])) as processes:
    spec = architecture("hyena mamba swiglu")
    both = processes, Processes(processes.device)
    shared, alone = (make_objective(spec, **SHAPE, recipe=LMRecipe(), processes=one) for one in both)
    own, whole = shared.state_dict(), alone.state_dict()
    equal = all(torch.equal(own[name].full_tensor(), whole[name]) for name in whole)
    equal &= all(torch.equal(*pair) for pair in zip(shared.buffers(), alone.buffers(), strict=True))
    exempt = [[getattr(p, "_no_weight_decay", False) for p in each.parameters()] for each in (shared, alone)]
    tokens = torch.arange(17)[None].expand(2, -1) % 32
    with Talk() as talk:
        for number in range(4):
            processes.accumulate(shared, is_last=number == 3)
            (shared(tokens) / 4).backward()
    found = [parameter.grad.full_tensor() for parameter in shared.parameters()]
    close = all(torch.allclose(*pair, atol=1e-6) for pair in zip(found, gradients(alone, tokens)[1:], strict=True))
    params = sum(parameter.numel() for parameter in alone.parameters())
    if processes.is_first:
        facts = {"equal": equal, "exempt": exempt[0] == exempt[1], "close": close}
        print(json.dumps(facts | {"talk": talk.counts, "elements": talk.elements, "params": params}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("size", "replicas"), [(2, 1), (2, 2), (4, 2)])
def test_processes_start_with_one_models_weights_and_exchange_gradients_once_a_step(tmp_path, size, replicas):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    command = [*torchrun, str(script), str(replicas)]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    talk, elements, params = found.pop("talk"), found.pop("elements"), found.pop("params")
    assert found == {"equal": True, "exempt": True, "close": True}
    shards, groups, pieces = size // replicas, 4, 4  # three layers and the rest
    gathered = {"allgather_base": pieces * (2 * groups - 1), "reduce_scatter_base": groups} if shards > 1 else {}
    assert talk == gathered | ({"allreduce": groups} if replicas > 1 else {})  # gradients behind the last piece only
    for name in talk.keys() - {"allgather_base"}:
        assert elements[name] == pytest.approx(params / shards, rel=0.01)
    assert elements.get("allgather_base", 0) <= 2 * pieces * params
