"""Random architectures from every registered layer."""

from dataclasses import fields

from hypothesis import strategies as st

from archlab.architectures import Architecture
from archlab.errors import ArchlabError
from archlab.layers import LayerConfig, layer, registry
from archlab.layers.ops.feature_map import FEATURE_MAPS
from archlab.layers.registry import composites

_VALUES = {
    int: st.integers(1, 64),
    float: st.floats(0.25, 8.0),
    bool: st.booleans(),
    str: st.sampled_from(sorted(FEATURE_MAPS)),
}


_NUM_PARTS = {"parallel": (2, 3), "experts": (1, 1)}


@st.composite
def layer_configs(draw: st.DrawFn, depth: int = 2) -> LayerConfig:
    """A layer, now and then one made of others, with some of its knobs changed to values that it takes."""
    known = {**registry(), **(composites() if depth else {})}
    name = draw(st.sampled_from(sorted(known)))
    parts = []
    if name in composites():
        least, most = _NUM_PARTS[name]
        parts = draw(st.lists(layer_configs(depth - 1), min_size=least, max_size=most))
    knobs = {}
    for knob in fields(known[name]):
        if knob.name != "layers" and draw(st.booleans()):
            value = draw(_VALUES[type(knob.default)])
            try:
                layer(name, *parts, **knobs, **{knob.name: value})
            except ArchlabError:
                continue
            knobs[knob.name] = value
    return layer(name, *parts, **knobs)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """A stack of up to six layers, sometimes periodic."""
    unit = draw(st.lists(layer_configs(), min_size=1, max_size=3))
    return Architecture(tuple(unit * draw(st.integers(1, 2))))
