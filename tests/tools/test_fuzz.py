"""The campaign itself: what it counts, and that it sees crashes, waits, bends and hidden names."""

import random
import time

import pytest

from fuzzyclip.utils.tree import DatasetError
from tools.fuzz import campaign
from tools.fuzz.kind import Kind, deep, find_bend, find_repeated
from tools.fuzz.mutate import mutate_bytes, mutate_lines, mutate_tree


class Toy(Kind):
    """A file with a number; `work` reads it."""

    def __init__(self, work):
        self.work = work

    def prepare(self, folder):
        pass

    def mutate(self, rng, place):
        (place / "x.txt").write_text(str(rng.randrange(10)))

    def read(self, place):
        return self.work(place / "x.txt")

    def find_fault(self, place, content):
        return "" if content == (place / "x.txt").read_text() else "another number"


def refuse(path):
    raise DatasetError(f"{path}: too small")


def hide(path):
    raise DatasetError("too small")


def wait(path):
    time.sleep(5)


def starve(path):
    raise MemoryError


@pytest.mark.parametrize(
    ("work", "outcome", "words"),
    [
        (lambda path: path.read_text(), "accepted", ""),
        (refuse, "refused", "too small"),
        (hide, "finding", "names no file"),
        (lambda path: "x", "finding", "accepted: another number"),
        (lambda path: {}[path], "finding", "bug: KeyError"),
        (wait, "finding", "no answer"),
        (starve, "finding", "memory"),
    ],
)
def test_an_input_is_refused_accepted_or_a_finding(tmp_path, monkeypatch, work, outcome, words):
    monkeypatch.setattr(campaign, "SECONDS", 0.05)
    campaign.signal.signal(campaign.signal.SIGALRM, campaign._ring)
    verdict = campaign.try_input(Toy(work), 7, random.Random(0), tmp_path / "input")
    assert (verdict.number, verdict.outcome) == (7, outcome)
    assert words in verdict.words


def test_a_number_gives_the_same_input_again():
    tree = {"a": [1, 2.5, "x"], "b": {"c": None}}
    for number in range(200):
        first, second = random.Random(number), random.Random(number)
        assert mutate_bytes(first, b"abc" * 9) == mutate_bytes(second, b"abc" * 9)
        assert mutate_lines(first, b"a: 1\nb: 2\n") == mutate_lines(second, b"a: 1\nb: 2\n")
        with deep():
            assert repr(mutate_tree(first, tree)) == repr(mutate_tree(second, tree))
    assert tree == {"a": [1, 2.5, "x"], "b": {"c": None}}


@pytest.mark.parametrize(
    ("read", "plain", "bent"),
    [
        ({"a": 1.0}, {"a": "1e0"}, False),
        ({"a": (1, 2)}, {"a": [1, 2]}, False),
        ({"a": 1}, {"a": 2}, True),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 0.0}, {"a": False}, True),
        ({"a": True}, {"a": "no"}, True),
        ({"a": "NA"}, {"a": None}, True),
        ([1], [1, 2], True),
        ({"01": 1}, {"1": 1}, True),
    ],
)
def test_a_bent_value_is_seen(read, plain, bent):
    assert bool(find_bend(read, plain)) == bent


def test_a_key_that_is_there_twice_is_seen():
    assert find_repeated('{"a": [{"b": 1, "b": 1}]}') == "the key 'b' is there twice"
    assert not find_repeated('{"a": {"a": [{"b": 1}, {"b": 2}]}}')
