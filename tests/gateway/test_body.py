"""Two ways of reading JSON, a fast and a strict one, take the same bodies for the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.gateway import body

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc:"), inner, max_size=3),
    max_leaves=8,
)


def strictly(data: bytes) -> object:
    """What Python's own decoder reads, told of keys that come twice."""
    return json.loads(data.decode(), object_pairs_hook=body._object)


def outcome(read, data: bytes) -> object:
    try:
        return repr(read(data))
    except ValueError as error:
        return type(error), str(error)


@given(VALUES, st.sampled_from([(",", ":"), (", ", " : ")]), st.booleans())
def test_what_is_right_is_read_alike(value: object, separators: tuple[str, str], ascii_only: bool) -> None:
    data = json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert outcome(body._decoded, data) == outcome(strictly, data)


@given(st.lists(st.sampled_from([*'{}[]:,"', '"a"', '"b":', "1", "-0", "1e9", "1E999", "NaN", "\\ud800", "é", " "])))
def test_whatever_comes_is_taken_or_refused_alike(parts: list[str]) -> None:
    data = "".join(parts).encode()
    assert outcome(body._decoded, data) == outcome(strictly, data)


@pytest.mark.parametrize("data", ['{"a":1,"a":1}', '{"a":[{"b":1,"b":2}]}', '{"a:":1,"a:":2}', '{"a":{},"a":{"b":1}}'])
def test_a_key_that_comes_twice_is_seen(data: str) -> None:
    with pytest.raises(body._TwiceGiven):
        body._decoded(data.encode())
