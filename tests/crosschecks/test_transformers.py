"""Layers beside the modules of transformers that compute the same: from equal weights, equal outputs and gradients.

They run where transformers is installed; CONTRIBUTING.md says how. The layers and their oracles share one reading of the
papers; a published implementation that reads them otherwise shows here. Its code computes much in float32 whatever the input.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from tests.crosschecks import counterparts
from tests.crosschecks.counterparts import DIM, Counterpart
from torch import nn

from archlab.layers import layer, registry
from archlab.testing.comparison import compare, outputs_and_gradients

pytest.importorskip("transformers")
if find_spec("fla"):
    pytest.skip("where flash-linear-attention is installed, transformers calls its GPU kernels", allow_module_level=True)

LENGTH, TOLERANCE = 127, 2e-5

CASES: list[tuple[str, dict[str, Any], Callable[[nn.Module], Counterpart]]] = [
    ("attention", {"heads": 2}, counterparts.attention),
    ("mh-attention", {}, counterparts.attention),
    ("gqa", {}, counterparts.attention),
    ("mla", {}, counterparts.mla),
    ("gated-deltanet", {}, counterparts.gated_deltanet),
    ("gated-deltanet", {"expand_v": 2, "heads": 4}, counterparts.gated_deltanet),
    ("kda", {}, counterparts.kda),
    ("liv", {}, counterparts.liv),
    ("mamba", {}, counterparts.mamba),
    ("mamba-2", {}, counterparts.mamba2),
    ("mlstm", {}, counterparts.mlstm),
    ("rg-lru", {}, counterparts.rg_lru),
]


@pytest.mark.parametrize(("name", "knobs", "counterpart"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_equals_the_published_implementation(
    name: str, knobs: dict[str, Any], counterpart: Callable[[nn.Module], Counterpart]
) -> None:
    if name not in registry():
        pytest.skip(f"there is no layer {name}")
    torch.manual_seed(0)
    ours = layer(name, **knobs).build(DIM, LENGTH)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    theirs, run, renamed = counterpart(ours)
    theirs.load_state_dict(renamed({key: p.detach() for key, p in ours.named_parameters()}))

    x_bld = torch.randn(2, LENGTH, DIM)
    found = outputs_and_gradients(ours, nn.Module.__call__, x_bld)
    gradients = renamed({key: found.pop(f"gradient of {key}") for key, _ in ours.named_parameters()})
    found.update({f"gradient of {key}": gradient for key, gradient in gradients.items()})
    compare(found, outputs_and_gradients(theirs, run, x_bld), TOLERANCE, str(layer(name, **knobs)))
