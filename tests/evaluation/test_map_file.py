"""The file of maps gives back what was appended, and goes away."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzyclip.evaluation.map_file import MapFile, as_float32, as_floats


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@given(batches=st.lists(st.integers(0, 3), max_size=5), size=st.integers(1, 4))
def test_maps_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    kind: type[np.float32 | np.float64],
    batches: list[int],
    size: int,
) -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(sum(batches), size, size)).astype(kind)
    with MapFile(tmp_path_factory.mktemp("maps") / "x.maps", size, kind) as file:
        first = 0
        for count in batches:
            file.append(maps[first : first + count])
            first += count
            assert file.view_all().tobytes() == maps[:first].tobytes()  # reads do not disturb
        assert len(file) == len(maps)
        assert file.read_all().tobytes() == maps.tobytes()
        assert [one.tobytes() for one in file] == [one.tobytes() for one in maps]
        if len(maps):
            assert (file[-1] == maps[-1]).all()
            assert isinstance(file.view_all(), np.memmap)
            assert not file.view_all().flags.writeable
        for index in (len(maps), -len(maps) - 1):
            with pytest.raises(IndexError, match=f"map {index} of {len(maps)}"):
                file[index]


def test_the_file_is_gone_after_use_or_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "x.maps"
    with MapFile(path, 2) as file:
        file.append(np.zeros((3, 2, 2)).astype(np.float32))
        assert path.stat().st_size == 3 * 2 * 2 * 4
    assert not path.exists()
    file.close()  # again
    for use in (file.view_all, file.read_all, lambda: file.append(np.zeros((1, 2, 2), np.float32))):
        with pytest.raises(ValueError, match="closed"):
            use()
    with pytest.raises(KeyError), MapFile(path, 2):
        raise KeyError
    assert not path.exists()


def test_an_older_file_does_not_leak_in(tmp_path: Path) -> None:
    (tmp_path / "x.maps").write_bytes(b"leftover of a killed run")
    with MapFile(tmp_path / "x.maps", 1) as file:
        assert len(file.read_all()) == 0


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (np.full((1, 2, 2), np.nan, np.float32), "not finite"),
        (np.full((1, 2, 2), -np.inf, np.float32), "not finite"),
        (np.zeros((1, 2, 3), np.float32), r"\(1, 2, 3\) are not \(B, 2, 2\)"),
        (np.zeros((2, 2), np.float32), "are not"),
        (np.zeros((1, 2, 2)), "float64 would be rounded"),
        (np.zeros((1, 2, 2), np.int32), "int32 would be rounded"),
    ],
)
def test_bad_maps_are_refused_and_change_nothing(
    tmp_path: Path, maps: np.ndarray, message: str
) -> None:
    good = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    with MapFile(tmp_path / "x.maps", 2) as file:
        file.append(good)
        with pytest.raises(ValueError, match=message):
            file.append(maps)
        file.append(good.astype(np.float16))  # what float32 holds is welcome
        assert (file.read_all() == np.concatenate([good, good])).all()


def test_a_file_of_float64_takes_coarser_maps_and_nothing_finer(tmp_path: Path) -> None:
    good = np.full((1, 2, 2), 1 / 3)
    with MapFile(tmp_path / "x.maps", 2, np.float64) as file:
        file.append(good)
        file.append(good.astype(np.float32))
        for bad in (np.full_like(good, np.nan), np.full_like(good, np.inf)):
            with pytest.raises(ValueError, match="not finite"):
                file.append(bad)
        with pytest.raises(ValueError, match="complex128 would be rounded"):
            file.append(good.astype(np.complex128))
        expected = np.concatenate([good, good.astype(np.float32).astype(np.float64)])
        assert file.read_all().tobytes() == file.view_all().tobytes() == expected.tobytes()
        assert (tmp_path / "x.maps").stat().st_size == 2 * 4 * 8


def test_a_size_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size 0"):
        MapFile(tmp_path / "x.maps", 0)
    assert not (tmp_path / "x.maps").exists()


def test_a_write_that_stops_half_way_leaves_the_maps_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk:
        """Takes a few bytes a call, then none."""

        def __init__(self, file) -> None:  # type: ignore[no-untyped-def]
            self.file, self.room = file, 10

        def write(self, rest: memoryview) -> int:
            if not self.room:
                raise OSError(28, "No space left on device")
            count = self.file.write(rest[: min(self.room, 7)])
            self.room -= count
            return int(count)

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    good = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    with MapFile(tmp_path / "x.maps", 2) as file:
        file.append(good)
        with monkeypatch.context() as patch:
            patch.setattr(file, "_file", FullDisk(file._file))
            with pytest.raises(OSError, match="No space left"):
                file.append(good + 9)
        assert len(file) == 1
        file.append(good + 1)
        assert (file.read_all() == np.concatenate([good, good + 1])).all()


def test_the_type_is_kept_where_it_fits() -> None:
    maps = np.ones((2, 2), dtype=np.float32)
    assert as_float32(maps) is maps
    assert as_float32(np.ones(2, dtype=np.uint8)).dtype == np.float32
    fine = np.ones((2, 2))
    assert as_floats(fine) is fine
    assert as_floats(maps) is maps
    assert as_floats(np.ones(2, dtype=np.uint8)).dtype == np.float32
