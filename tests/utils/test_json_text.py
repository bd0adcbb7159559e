"""JSON is read as the standard library reads it, but for keys that would get lost."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzyclip.utils.json_text import RepeatedKeyError, parse_json

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(PLAIN)
def test_what_is_there_once_is_read_as_it_was_written(data):
    assert parse_json(json.dumps(data)) == data
    assert parse_json(json.dumps(data).encode()) == data


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 1}', '[{"b": {"x": 1, "a": 2, "a": 3}}]', '{"a": 1, "\\u0061": 2}']
)
def test_a_key_that_is_there_twice_is_refused(text):
    with pytest.raises(RepeatedKeyError, match="the key 'a' is there twice"):
        parse_json(text)
