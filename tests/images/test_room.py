"""Threads that decode share the memory of one large image, and none waits forever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from properties import try_examples

from fuzzyclip.images import decode
from fuzzyclip.images.decode import examine_image, load_mask
from fuzzyclip.images.room import Room


@given(st.lists(st.integers(0, 150), max_size=40), st.integers(1, 8))
@try_examples(40)
def test_no_more_is_taken_than_there_is_and_all_get_their_turn(sizes, workers):
    room, lock, taken, most = Room(100), threading.Lock(), 0, 0

    def work(size):
        nonlocal taken, most
        with room.take(size):
            with lock:
                taken += min(size, 100)
                most = max(most, taken)
            threading.Event().wait(0.0002)
            with lock:
                taken -= min(size, 100)
        return size

    with ThreadPoolExecutor(workers) as pool:
        assert list(pool.map(work, sizes, timeout=30)) == sizes
    assert most <= 100
    assert not taken


def test_a_large_one_is_not_passed_by_small_ones():
    room, order, started = Room(10), [], threading.Event()

    def work(name, size):
        with room.take(size):
            order.append(name)

    with room.take(1):
        large = threading.Thread(target=work, args=("large", 50))
        large.start()
        while len(room._waiting) < 1:
            started.wait(0.001)
        small = threading.Thread(target=work, args=("small", 1))
        small.start()
        while len(room._waiting) < 2:
            started.wait(0.001)
        assert order == []
    large.join(10)
    small.join(10)
    assert order == ["large", "small"]


def test_room_is_given_back_where_a_block_fails():
    room = Room(10)
    with pytest.raises(ZeroDivisionError), room.take(20):
        raise ZeroDivisionError
    with room.take(10):
        pass


def test_images_and_masks_are_decoded_within_the_room(tmp_path, monkeypatch):
    taken = []

    class Noting(Room):
        def take(self, pixels):
            taken.append(pixels)
            return super().take(pixels)

    monkeypatch.setattr(decode, "ROOM", Noting())
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:50])
    examine_image(tmp_path / "a.png")
    load_mask(tmp_path / "a.png")
    with pytest.raises(OSError, match=r"broken\.png"):
        examine_image(tmp_path / "broken.png")
    assert taken == [600, 600, 600]
    assert not decode.ROOM._taken
