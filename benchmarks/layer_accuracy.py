"""Float32 error of every layer against its float64 oracle: outputs, gradients and the step form.

    python -m benchmarks.layer_accuracy

Width 128, length 127, default knobs, every parameter moved off its initial value. An error is the largest deviation of a
tensor relative to its largest entry; for gradients (of the input and of every parameter) it is the worst one.
"""

import torch
from tests.oracles import ORACLES
from torch import nn

from archlab.layers import layer, registry
from archlab.testing import LayerContract
from archlab.testing.comparison import outputs_and_gradients, relative_error, step_through

LENGTH = 127


def errors(name: str) -> list[float | None]:
    """Errors of the output, of the worst gradient, and of the step form's output (None for channel mixers)."""

    class Contract(LayerContract):
        config = layer(name)
        oracle = staticmethod(ORACLES[name])

    contract = Contract()
    exact = contract._reference(LENGTH)
    module, x_bld = contract._module(), contract._input(LENGTH)
    found = outputs_and_gradients(module, nn.Module.__call__, x_bld)
    gradients = {key: tensor for key, tensor in exact.items() if key != "output"}
    floor = 1e-3 * max(float(tensor.abs().max()) for tensor in gradients.values())
    worst = max(relative_error(found[key], tensor, floor) for key, tensor in gradients.items())
    output = relative_error(found["output"], exact["output"])
    if contract.config.kind == "channel":
        return [output, worst, None]
    with torch.no_grad():
        return [output, worst, relative_error(step_through(module, x_bld), exact["output"])]


if __name__ == "__main__":
    print("| layer | output | worst gradient | step form |\n|---|---|---|---|")
    for name in sorted(registry()):
        print(f"| {name} | " + " | ".join("-" if error is None else f"{error:.0e}" for error in errors(name)) + " |")
