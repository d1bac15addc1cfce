"""Every registered layer keeps the contract, at its defaults and at the knobs that its oracle's module asks for."""

import shutil
from unittest import SkipTest

import pytest
from tests.oracles import CAUSALITY_TOLERANCES, COMPOSITES, CONFIGS, ORACLES, SPECS, TOLERANCES, no_decay_of, oracle_of

from archlab.architectures import architecture
from archlab.layers import LayerConfig, layer, registry
from archlab.layers.registry import composites
from archlab.testing import LayerContract


def test_every_layer_has_an_oracle_and_every_oracle_a_layer():
    assert set(ORACLES) == set(registry())
    assert set(COMPOSITES) == set(composites())


def _contract(config: LayerConfig) -> type[LayerContract]:
    attributes = {
        "lengths": (1, 18, 67),  # chunks have up to 64 tokens
        "config": config,
        "oracle": staticmethod(oracle_of(config)),
        "tolerance": TOLERANCES.get(str(config), LayerContract.tolerance),
        "causality_tolerance": CAUSALITY_TOLERANCES.get(str(config), LayerContract.causality_tolerance),
        "no_decay": no_decay_of(config),
        "__module__": __name__,
    }
    return type(f"Test[{config}]", (LayerContract,), attributes)


@pytest.mark.slow
def _compiles(self: LayerContract) -> None:
    """Tracing takes as long as all other checks together: by default only of an attention, a scan and a delta rule."""
    LayerContract.test_compiles(self)


_FURTHER = [*(layer(n, **knobs) for n, knobs in CONFIGS), *(architecture(f"1*{spec}").layers[0] for spec in SPECS)]
_ALL = [*(layer(name) for name in sorted(set(registry()) & set(ORACLES))), *_FURTHER]
for _config in _ALL:
    globals()[f"Test[{_config}]"] = _contract(_config)
    if str(_config) not in ("mh-attention", "mamba", "gated-deltanet"):
        globals()[f"Test[{_config}]"].test_compiles = _compiles


@pytest.mark.slow
@pytest.mark.parametrize("config", _ALL, ids=str)
@pytest.mark.parametrize("check", [name for name in dir(LayerContract) if name.startswith("test_") and name != "test_compiles"])
def test_longer_sequences(config: LayerConfig, check: str) -> None:
    contract = _contract(config)
    contract.lengths = LayerContract.lengths
    try:
        getattr(contract(), check)()
    except SkipTest as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles C++")
@pytest.mark.parametrize("name", sorted(ORACLES))
def test_compiles_to_machine_code(name: str) -> None:
    contract = _contract(layer(name))
    contract.compile_backend = "inductor"
    contract().test_compiles()
