from hypothesis import example, given
from hypothesis import strategies as st

from archlab.layers.knobs import knob_text, knob_value


@given(st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
@example("inf")
@example("-Infinity")
@example("NaN")
@example("true")
@example('say "it\'s"')
@example('"')
@example("")
def test_what_is_written_of_a_knob_reads_back(value):
    read = knob_value(knob_text(value))
    assert (type(read), read) == (type(value), value)
