import pytest
import torch
from tests.oracles.mlstm import mlstm as oracle
from torch import nn

from archlab.errors import ArchlabError
from archlab.layers import layer
from archlab.layers.mlstm import _running_maximum
from archlab.testing.comparison import compare, outputs_and_gradients, relative_error, step_through


def test_costs_of_the_reference_sizes():
    config = layer("mlstm")
    assert config.num_params(128, 128) == 4 * 128**2 + 2 * 128 * 4 + 2 * 4 + 128
    assert config.state_size(128, 128) == 2048 + 64 + 4


@pytest.mark.parametrize(("input_gate", "forget_gate"), [(0.0, 3.0), (40.0, 40.0), (-40.0, -40.0), (40.0, -40.0), (-40.0, 40.0)])
def test_gates_at_their_caps_are_exact(input_gate, forget_gate):
    """At its start the layer reads next to nothing; here tokens write, and gates vary over their whole range."""
    torch.manual_seed(0)
    module = layer("mlstm", heads=2).build(16, 70)
    with torch.no_grad():
        module.gate_bias.copy_(torch.tensor([input_gate, input_gate, forget_gate, forget_gate]))
        module.gate_proj.weight.normal_(std=3.0)
    x_bld = torch.randn(2, 70, 16)
    narrow = {form: outputs_and_gradients(module, form, x_bld) for form in (nn.Module.__call__, step_through)}
    exact = outputs_and_gradients(module.double(), oracle, x_bld.double())
    for form, found in narrow.items():
        assert relative_error(found["output"], exact["output"]) <= 1e-4
        assert all(torch.isfinite(tensor).all() for tensor in found.values())
        compare(outputs_and_gradients(module, form, x_bld.double()), exact, 1e-9, form.__name__)


def test_running_maximum_equals_its_recurrence():
    log_i, log_f = 5 * torch.randn(2, 50, 3), -torch.rand(2, 50, 3)
    m = torch.zeros(2, 3)
    expected = [m := torch.maximum(log_f[:, t] + m, log_i[:, t]) for t in range(50)]
    found, change = _running_maximum(log_i, log_f)
    torch.testing.assert_close(found, torch.stack(expected, 1))
    torch.testing.assert_close(change.cumsum(1), found)


def test_heads_without_whole_keys_are_refused():
    with pytest.raises(ArchlabError, match=r"^mlstm\(heads=4\): width 12 does not split into 4 heads of even width.*heads=3$"):
        layer("mlstm").build(12, 8)
