"""Pictures of architectures."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import vl_convert

from archlab.architectures import architecture
from archlab.architectures.catalogue import CATALOGUE
from archlab.errors import ArchlabError
from archlab.layers import registry
from archlab.reports.stack_drawing import ATTENTION, CHANNEL, draw_stack, draw_strip, layer_colours, write_stack

NAMESPACE = "{http://www.w3.org/2000/svg}"
NESTED = "3*[mamba swiglu] parallel(mh-attention, parallel(mamba, mlp), gate=true) experts(parallel(mlp, hyena), num=4)"


def texts(picture: str) -> list[str]:
    return [str(one.text) for one in ElementTree.fromstring(picture).iter(f"{NAMESPACE}text")]


@pytest.mark.parametrize("spec", [*CATALOGUE, NESTED, "1*mamba"])
def test_a_picture_is_svg_within_its_frame_and_names_the_spec(spec: str):
    value = architecture(spec)
    for picture in (draw_stack(value, dim=128, length=128), draw_stack(value), draw_strip(value)):
        root = ElementTree.fromstring(picture)
        assert root.find(f"{NAMESPACE}title").text == str(value)
        width, height = float(root.get("width")), float(root.get("height"))
        for box in root.iter(f"{NAMESPACE}rect"):
            assert float(box.get("x")) >= 0
            assert float(box.get("x")) + float(box.get("width")) <= width
            assert float(box.get("y")) >= 0
            assert float(box.get("y")) + float(box.get("height")) <= height


def test_layers_stand_in_order_and_repetitions_once():
    long = texts(draw_stack(architecture("3*[mamba swiglu] mh-attention swiglu")))
    assert long == ["embedding", "norm, unembedding", "mamba", "swiglu", "× 3", "mh-attention", "swiglu"]
    assert texts(draw_stack(architecture("3*[mamba swiglu]"))).count("mamba") == 3, "short ones in full"
    assert "× 12" in texts(draw_stack(architecture("12*[mamba swiglu]")))


def test_costs_and_knobs_are_written_where_they_belong():
    found = texts(draw_stack(architecture("mh-attention(heads=4) swiglu"), dim=128, length=128))
    assert found[2:] == ["mh-attention", "heads=4", "66k parameters", "32.8k state", "swiglu", "135k parameters"]


def test_a_layer_has_one_colour_in_all_pictures_and_kinds_differ():
    values = [architecture(NESTED), architecture("hyena swiglu mh-attention")]
    colours = layer_colours(values)
    assert colours["mh-attention"] == ATTENTION
    assert colours["swiglu"] == colours["mlp"] == CHANNEL
    assert len({colours[name] for name in ("mamba", "hyena", "mh-attention", "mlp")}) == 4
    assert set(colours) <= set(registry())
    assert set(re.findall(r'fill="(#\w+)"', draw_strip(values[1], colours))) <= set(colours.values())


def test_the_file_is_drawn_on_white(tmp_path: Path):
    write_stack(architecture(NESTED), tmp_path / "stack.svg", dim=128, length=128)
    drawn = vl_convert.svg_to_png((tmp_path / "stack.svg").read_text())
    assert drawn.startswith(b"\x89PNG")
    with pytest.raises(ArchlabError, match=r"picture missing/stack\.svg: there is no directory missing"):
        write_stack(architecture("mlp"), "missing/stack.svg", dim=128, length=128)
