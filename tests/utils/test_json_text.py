"""JSON is read as the standard library reads it, but for keys that would get lost."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzyclip.utils.json_text import RepeatedKeyError, format_json, parse_json


def plain(numbers):
    """Anything that JSON can hold, with these numbers in it."""
    return st.recursive(
        st.none() | st.booleans() | st.integers() | numbers | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )


#: Python reads and writes infinity as well, which is no JSON.
ANY = plain(st.floats(allow_nan=False))
FINITE = plain(st.floats(allow_nan=False, allow_infinity=False))


@given(ANY)
def test_what_is_there_once_is_read_as_it_was_written(data):
    assert parse_json(json.dumps(data)) == data
    assert parse_json(json.dumps(data).encode()) == data


@given(FINITE)
def test_what_is_written_is_one_line_for_every_reader_and_reads_back(data):
    text = format_json(data)
    assert json.loads(text) == data
    assert len(f"{text}|".splitlines()) == 1
    assert json.loads(format_json(data, indent=2)) == data


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_of_json_is_refused_where_it_may_not_be(constant):
    assert str(parse_json(f"[{constant}]")[0]) in ("nan", "inf", "-inf")
    with pytest.raises(ValueError, match=f"^{constant} is no number of JSON"):
        parse_json(f"[{constant}]", finite=True)


def test_letters_stay_and_what_commands_a_terminal_is_escaped():
    name = "ü日😀 \x7f\x85\x9b\u2028\u2029\u202e\udcff"
    text = format_json([name])
    assert text == '["ü日😀 \\u007f\\u0085\\u009b\\u2028\\u2029\\u202e\\udcff"]'
    assert json.loads(text) == [name]


def test_the_last_of_very_many_keys_is_compared_at_once():
    keys = ", ".join(f'"{number}": 0' for number in range(200_000))
    with pytest.raises(RepeatedKeyError, match="'199999'"):
        parse_json(f'{{{keys}, "199999": 1}}')


def test_what_an_encoding_has_no_code_for_is_an_escape_of_json():
    assert format_json("ü", encoding="cp1252") == '"ü"'
    assert format_json("ü😀", encoding="cp1252") == '"\\u00fc\\ud83d\\ude00"'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_json_has_no_word_for_is_refused(number):
    with pytest.raises(ValueError, match="JSON"):
        format_json(number)
    with pytest.raises(ValueError, match="JSON"):
        format_json({"scores": [0.5, number]}, indent=2)


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 1}', '[{"b": {"x": 1, "a": 2, "a": 3}}]', '{"a": 1, "\\u0061": 2}']
)
def test_a_key_that_is_there_twice_is_refused(text):
    with pytest.raises(RepeatedKeyError, match="the key 'a' is there twice"):
        parse_json(text)
