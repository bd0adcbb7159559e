"""Work done ahead in threads: order, bound, errors; memory that is given back."""

import sys
import threading
import time

import numpy as np
import pytest

from fuzzyclip.utils.prefetch import prefetch, release_memory


@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_results_come_in_order_and_no_more_than_the_bound_is_begun(ahead):
    begun = []

    def work(number):
        begun.append(number)
        time.sleep(0.002 * (number % 3))
        return number * number

    results = prefetch(work, range(20), ahead=ahead, workers=4)
    assert not begun  # nothing happens before the first result is asked for
    for used in range(1, 21):
        assert next(results) == (used - 1) ** 2
        assert len(begun) <= min(20, used + ahead)
    assert sorted(begun) == list(range(20))


def test_the_next_results_are_made_while_one_is_used():
    made = threading.Event()

    def work(number):
        if number == 1:
            made.set()
        return number

    results = prefetch(work, range(3), ahead=1)
    assert next(results) == 0
    assert made.wait(5)  # without anybody asking for it
    assert list(results) == [1, 2]


def test_an_error_comes_in_its_place_and_ends_the_work():
    begun = []

    def work(number):
        begun.append(number)
        if number == 2:
            raise OSError("broken.png")
        return number

    results = prefetch(work, range(1000), ahead=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="broken"):
        next(results)
    assert max(begun) < 10
    assert list(results) == []


def test_items_are_read_no_further_than_needed():
    items = iter(range(100))
    results = prefetch(str, items, ahead=4)
    assert next(results) == "0"
    results.close()
    assert next(items) <= 6


def read_resident():
    """Mebibytes of this process that hold anything of its own."""
    with open("/proc/self/status") as file:  # noqa: PTH123
        line = next(line for line in file if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own counters")
def test_freed_arrays_between_used_ones_go_back_to_the_system():
    arrays = [np.ones(12_000) for _ in range(2000)]  # 94 KiB each: below what is mapped apart
    kept = arrays[::20]
    full = read_resident()
    del arrays
    release_memory()
    assert full - read_resident() > 100
    assert all(array.sum() == 12_000 for array in kept)


def test_a_system_without_the_call_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    release_memory()
