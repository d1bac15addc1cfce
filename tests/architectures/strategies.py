"""Random architectures from every registered layer."""

from dataclasses import fields

from hypothesis import strategies as st

from archlab.architectures import Architecture
from archlab.errors import ArchlabError
from archlab.layers import LayerConfig, layer, registry
from archlab.layers.ops.feature_map import FEATURE_MAPS

_VALUES = {
    int: st.integers(1, 64),
    float: st.floats(0.25, 8.0),
    bool: st.booleans(),
    str: st.sampled_from(sorted(FEATURE_MAPS)),
}


@st.composite
def layer_configs(draw: st.DrawFn) -> LayerConfig:
    """A layer with some of its knobs changed to values that it takes."""
    name = draw(st.sampled_from(sorted(registry())))
    knobs = {}
    for knob in fields(registry()[name]):
        if draw(st.booleans()):
            value = draw(_VALUES[type(knob.default)])
            try:
                layer(name, **knobs, **{knob.name: value})
            except ArchlabError:
                continue
            knobs[knob.name] = value
    return layer(name, **knobs)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """A stack of up to six layers, sometimes periodic."""
    unit = draw(st.lists(layer_configs(), min_size=1, max_size=3))
    return Architecture(tuple(unit * draw(st.integers(1, 2))))
