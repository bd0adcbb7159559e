"""Memory that is given back."""

import sys

import numpy as np
import pytest

from fuzzyclip.utils.memory import release_memory


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
    assert all(one.sum() == 12_000 for one in kept)


def test_a_system_without_the_call_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    release_memory()
