"""Meters that take maps a few at a time against the exact metrics of all maps at once."""

import tracemalloc
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_cases import MASKS, SCORES, Case, draw_case, feed, hold, measure_exactly, measure_stream
from properties import try_examples

from fuzzyclip.evaluation.metrics import PIXEL_METRICS, as_float32, as_floats, compute_pixel_metrics
from fuzzyclip.evaluation.pixel_meters import (
    ROUNDING,
    ExactMeter,
    MapFile,
    PixelResult,
    StreamingMeter,
)
from fuzzyclip.evaluation.score_histogram import OPEN_BITS, find_keys, find_scores

cases = st.builds(Case, st.sampled_from(SCORES), st.sampled_from(MASKS), st.integers(0, 10_000))
splits = st.lists(st.integers(0, 3), max_size=3)


@pytest.fixture
def open_file(tmp_path):
    """A size and a type of floats to an empty file of maps."""
    return lambda size, kind=np.float32: closing(MapFile(tmp_path / "x.maps", size, kind))


@try_examples(150)
@given(cases, splits)
def test_the_exact_meter_is_exact_to_the_bit(case, cuts):
    maps, masks = draw_case(case)
    result = measure_exactly(maps, masks, cuts)
    assert result.values == result.low == result.high == compute_pixel_metrics(maps, masks)


@try_examples(500)
@given(cases)
def test_the_bounds_hold_the_exact_metrics(case):
    maps, masks = draw_case(case)
    exact, result = compute_pixel_metrics(maps, masks), measure_stream(maps, masks)
    hold(result, exact)
    for name in exact:
        error = abs(result.values[name] - min(exact[name], 1.0))
        assert error <= result.high[name] - result.low[name], name


@try_examples(100)
@given(
    st.sampled_from(["tied", "binary", "constant", "zeros"]),
    st.sampled_from(MASKS),
    st.integers(0, 10_000),
)
def test_bins_of_equal_scores_are_exact(scores, mask, seed):
    maps, masks = draw_case(Case(scores, mask, seed))
    if scores == "zeros":
        maps = np.round(maps)  # both zeros, but no neighbours of theirs
    exact, result = compute_pixel_metrics(maps, masks), measure_stream(maps, masks)
    assert result.values == pytest.approx(exact, abs=ROUNDING)
    for name in exact:
        assert result.high[name] - result.low[name] <= 2.001 * ROUNDING


@try_examples(100)
@given(cases)
def test_estimates_are_the_metrics_of_scores_moved_within_their_bins(case):
    maps, masks = draw_case(case)
    moved = find_scores(find_keys(maps) >> OPEN_BITS << OPEN_BITS)
    exact, result = compute_pixel_metrics(moved, masks), measure_stream(maps, masks)
    for name in ("pixel_auroc", "pixel_f1_max", "pixel_aupro_std"):
        assert result.values.get(name) == pytest.approx(exact.get(name), abs=1e-9), name


@try_examples(100)
@given(cases)
def test_auroc_is_unsure_by_the_pairs_that_share_a_bin(case):
    maps, masks = draw_case(case)
    meter = StreamingMeter()
    result = feed(meter, maps, masks, [])
    cells = meter.histogram.list_cells()
    shared = (cells.positives * cells.negatives)[~cells.single].sum()
    if result.values:
        share = shared / (masks.sum() * (~masks).sum())
        width = result.high["pixel_auroc"] - result.low["pixel_auroc"]
        assert share - 1e-12 <= width <= share + 2.001 * ROUNDING


@try_examples(100)
@given(cases, splits, st.permutations(range(3)))
def test_neither_order_nor_split_matters(case, cuts, order):
    maps, masks = draw_case(case)
    assert feed(StreamingMeter(), maps[order], masks[order], cuts) == measure_stream(maps, masks)


@try_examples(60)
@given(st.integers(0, 10_000), st.integers(1, 199), st.floats(0.25, 0.35))
def test_steps_inside_a_crowded_bin_near_the_limit(seed, step, share):
    """Many negatives lie about one step, so that the rate passes the limit between its floats."""
    rng = np.random.default_rng(seed)
    maps = rng.uniform(0, step / 200, (2, 24, 24))
    masks = np.zeros(maps.shape, dtype=bool)
    masks[0, 3:9, 3:9] = masks[1, 12:14, :5] = True
    crowd = rng.random(maps.shape) < share
    floats = rng.integers(-60, 61, maps.shape) * 2.0**-24 * (step / 200)
    maps[crowd] = (step / 200 + floats)[crowd]
    maps[masks] += rng.uniform(0, 1 - step / 200, masks.sum())
    maps[0, 0, :2] = 0, 1
    maps = maps.clip(0, 1).astype(np.float32)
    exact, result = compute_pixel_metrics(maps, masks), measure_stream(maps, masks)
    if "pixel_aupro" in exact:
        value = min(exact["pixel_aupro"], 1.0)
        assert result.low["pixel_aupro"] <= value <= result.high["pixel_aupro"]


def test_many_pixels_are_known_well():
    maps, masks = draw_case(Case("smooth", "blobs", 0), images=30, side=100)
    exact, result = compute_pixel_metrics(maps, masks), measure_stream(maps, masks)
    for name in PIXEL_METRICS:
        assert result.high[name] - result.low[name] < 0.002, name
        assert result.values[name] == pytest.approx(exact[name], abs=2e-4), name


def test_memory_does_not_grow_with_the_images():
    maps, masks = draw_case(Case("smooth", "blobs", 1), images=8)
    meter = StreamingMeter()
    meter.add(maps, masks)
    pages = meter.histogram.pages
    for _ in range(20):
        meter.add(np.roll(maps, 1, axis=2), masks)
    assert meter.histogram.pages == pages
    tracemalloc.start()
    try:
        for _ in range(50):
            meter.add(maps, masks)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 50_000  # bytes, after 400 images


def test_the_exact_meter_holds_one_copy_of_the_maps(open_file):
    maps, masks = draw_case(Case("smooth", "one pixel", 0), images=16, side=256)
    with open_file(256) as file:
        meter = ExactMeter(file)
        feed(meter, maps, masks, list(range(1, 16)))
        tracemalloc.start()
        try:
            meter.compute()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 1.05 * maps.nbytes


def test_the_file_of_an_exact_meter_is_the_callers_and_its_alone(open_file):
    maps, masks = draw_case(Case("smooth", "blobs", 0))
    with open_file(10) as file:
        meter = ExactMeter(file)
        expected = feed(meter, maps, masks, [1])
        assert (file.view_all() == maps).all()  # still open
        assert meter.compute() == expected
        with pytest.raises(ValueError, match="holds 3 maps already"):
            ExactMeter(file)
        file.append(maps)
        with pytest.raises(ValueError, match="holds 6 maps, not 3"):
            meter.compute()


@pytest.fixture(params=["exact", "streaming"])
def meter(request, open_file):
    """A meter of maps of 10 pixels a side."""
    if request.param == "streaming":
        yield StreamingMeter()
        return
    with open_file(10) as file:
        yield ExactMeter(file)


def test_nothing_and_one_class_have_no_metric(meter):
    zeros, ones = np.zeros((1, 10, 10), np.float32), np.ones((1, 10, 10), np.float32)
    assert meter.compute() == PixelResult()
    for maps, masks in ((zeros[:0], zeros[:0]), (zeros, ones)):
        meter.add(maps, masks)
        assert meter.compute() == PixelResult()
    meter.add(ones, zeros)
    assert meter.compute().values["pixel_auroc"] == 0.0


def test_broken_input_is_refused_and_not_counted(meter):
    maps, masks = draw_case(Case("smooth", "blobs", 0))
    meter.add(maps, masks)
    before = meter.compute()
    refused = [
        ("alike", maps, masks[:, :-1]),
        ("alike", maps[0], masks[0]),
        ("rounded", maps.astype(np.int64), masks),
    ]
    for value in (np.nan, np.inf, -np.inf):
        broken = maps.copy()
        broken[-1, -1, -1] = value
        refused.append(("not finite", broken, masks))
    if isinstance(meter, ExactMeter):
        refused.append(("are not", maps[:, :4, :4], masks[:, :4, :4]))
    for message, given_, truth in refused:
        with pytest.raises(ValueError, match=message):
            meter.add(given_, truth)
        assert meter.compute() == before


@pytest.mark.parametrize("dtype", [np.float16, np.int8])
def test_types_that_fit_into_float32(dtype):
    maps, masks = draw_case(Case("smooth", "blobs", 3))
    maps = (10 * maps).astype(dtype)
    exact = compute_pixel_metrics(maps.astype(np.float64), masks)
    assert measure_exactly(maps, masks).values == pytest.approx(exact)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@given(batches=st.lists(st.integers(0, 3), max_size=5), size=st.integers(1, 4))
def test_maps_come_back_bit_for_bit(tmp_path_factory, kind, batches, size):
    maps = np.random.default_rng(0).normal(size=(sum(batches), size, size)).astype(kind)
    with closing(MapFile(tmp_path_factory.mktemp("maps") / "x.maps", size, kind)) as file:
        first = 0
        for count in batches:
            file.append(maps[first : first + count])
            first += count
            assert file.view_all().tobytes() == maps[:first].tobytes()  # reads do not disturb
        assert len(file) == len(maps)
        assert file.read_all().tobytes() == maps.tobytes()
        assert [kept.tobytes() for kept in file] == [given_.tobytes() for given_ in maps]
        if len(maps):
            assert isinstance(file.view_all(), np.memmap)
            assert not file.view_all().flags.writeable


def test_a_file_of_maps_begins_empty_and_is_gone_after_use(open_file, tmp_path):
    path = tmp_path / "x.maps"
    path.write_bytes(b"leftover of a killed run")
    with open_file(2) as file:
        assert len(file.read_all()) == 0
        file.append(np.zeros((3, 2, 2), np.float32))
        assert path.stat().st_size == 3 * 2 * 2 * 4
    assert not path.exists()
    file.close()  # again
    for use in (file.view_all, file.read_all, lambda: file.append(np.zeros((1, 2, 2), np.float32))):
        with pytest.raises(ValueError, match="closed"):
            use()
    with pytest.raises(ValueError, match="size 0"):
        open_file(0)
    assert not path.exists()


@pytest.mark.parametrize(
    ("kind", "maps", "message"),
    [
        (np.float32, np.full((1, 2, 2), np.nan, np.float32), "not finite"),
        (np.float32, np.full((1, 2, 2), -np.inf, np.float32), "not finite"),
        (np.float32, np.zeros((1, 2, 3), np.float32), r"\(1, 2, 3\) are not \(B, 2, 2\)"),
        (np.float32, np.zeros((2, 2), np.float32), "are not"),
        (np.float32, np.zeros((1, 2, 2)), "float64 would be rounded"),
        (np.float32, np.zeros((1, 2, 2), np.int32), "int32 would be rounded"),
        (np.float64, np.full((1, 2, 2), np.nan), "not finite"),
        (np.float64, np.full((1, 2, 2), np.inf), "not finite"),
        (np.float64, np.zeros((1, 2, 2), np.complex128), "complex128 would be rounded"),
    ],
)
def test_broken_and_finer_maps_are_refused_coarser_ones_welcome(open_file, kind, maps, message):
    whole = np.full((1, 2, 2), 1 / 3, kind)
    coarser = whole.astype(np.float16 if kind is np.float32 else np.float32)
    with open_file(2, kind) as file:
        file.append(whole)
        with pytest.raises(ValueError, match=message):
            file.append(maps)
        file.append(coarser)
        expected = np.concatenate([whole, coarser.astype(kind)])
        assert file.read_all().tobytes() == expected.tobytes()


def test_a_write_that_stops_half_way_leaves_the_maps_of_before(open_file, monkeypatch):
    class FullDisk:
        """Takes a few bytes a call, then none."""

        def __init__(self, file):
            self.file, self.room = file, 10

        def write(self, rest):
            if not self.room:
                raise OSError(28, "No space left on device")
            count = self.file.write(rest[: min(self.room, 7)])
            self.room -= count
            return count

        def __getattr__(self, name):
            return getattr(self.file, name)

    whole = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    with open_file(2) as file:
        file.append(whole)
        with monkeypatch.context() as patch:
            patch.setattr(file, "_file", FullDisk(file._file))
            with pytest.raises(OSError, match="No space left"):
                file.append(whole + 9)
        assert len(file) == 1
        file.append(whole + 1)
        assert (file.read_all() == np.concatenate([whole, whole + 1])).all()


def test_the_type_is_kept_where_it_fits():
    maps = np.ones((2, 2), dtype=np.float32)
    assert as_float32(maps) is maps
    assert as_float32(np.ones(2, dtype=np.uint8)).dtype == np.float32
    fine = np.ones((2, 2))
    assert as_floats(fine) is fine
    assert as_floats(maps) is maps
    assert as_floats(np.ones(2, dtype=np.uint8)).dtype == np.float32
