"""Keys against the order of floats, cells against counting by hand."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from pixel_cases import MASKS, SCORES, Case, draw_case
from properties import try_examples

from fuzzyclip.evaluation.metrics import weigh_mask
from fuzzyclip.evaluation.score_histogram import (
    OPEN_BITS,
    ScoreHistogram,
    find_keys,
    find_scores,
    raise_score,
)

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
cases = st.builds(Case, st.sampled_from(SCORES), st.sampled_from(MASKS), st.integers(0, 10_000))


@given(finite, finite)
def test_keys_keep_the_order_and_come_back(first: float, second: float) -> None:
    pair = np.array([first, second], dtype=np.float32)
    keys = find_keys(pair)
    assert (keys[0] < keys[1]) == (first < second)
    assert (keys[0] == keys[1]) == (first == second)
    assert (find_scores(keys) == pair).all()
    assert (find_scores(keys + 1) == raise_score(pair)).all()


@given(finite)
@example(-3.40272002609631e38)  # its bin ended at minus infinity
@example(3.4028234663852886e38)
@example(-1.401298464324817e-45)
@example(-0.0)
def test_scores_of_a_bin_differ_by_little(score: float) -> None:
    start = find_keys(np.float32(score)) >> OPEN_BITS << OPEN_BITS
    low, high = find_scores(np.array([start, start + (1 << OPEN_BITS) - 1])).astype(np.float64)
    assert low <= score <= high
    smaller = min(abs(low), abs(high))
    assert high - low < (2.0**-14 * smaller if smaller >= 2.0**-126 else 2.0**-140)


def fill(case: Case) -> tuple[ScoreHistogram, np.ndarray, np.ndarray]:
    maps, masks = draw_case(case)
    histogram = ScoreHistogram()
    for score, mask in zip(maps, masks, strict=True):
        histogram.add(score.ravel(), score[mask], *weigh_mask(mask))
    return histogram, maps, masks


@try_examples(150)
@given(cases)
def test_cells_count_what_lies_in_them(case: Case) -> None:
    histogram, maps, masks = fill(case)
    cells = histogram.list_cells()
    low, high = find_scores(cells.lowest), find_scores(cells.highest)
    assert (low <= high).all()
    assert (high[:-1] < low[1:]).all()
    weights = np.zeros(maps.shape)
    for mask, weight in zip(masks, weights, strict=True):
        weight[mask] = weigh_mask(mask)[0]
    for index in range(len(low)):
        inside = (maps >= low[index]) & (maps <= high[index])
        assert cells.negatives[index] == (inside & ~masks).sum()
        assert cells.positives[index] == (inside & masks).sum()
        assert abs(cells.coverage[index] - weights[inside].sum()) < 1e-10
        assert cells.single[index] == (len(np.unique(maps[inside])) == 1)
    assert cells.negatives.sum() + cells.positives.sum() == maps.size
    assert cells.coverage.sum() == histogram.regions
    assert histogram.ends == (maps.min(), maps.max())


@try_examples(50)
@given(cases)
def test_a_page_holds_one_octave(case: Case) -> None:
    histogram, maps, _ = fill(case)
    assert histogram.pages == len(np.unique(find_keys(maps) >> 23))


def test_a_cell_of_small_negative_scores_ends_before_zero() -> None:
    histogram = ScoreHistogram()
    scores = np.array([-3e-45, -1.5e-45, -0.0, 0.0], dtype=np.float32)
    histogram.add(scores, np.empty(0, np.float32), np.empty(0), 0)
    cells = histogram.list_cells()
    assert find_scores(cells.lowest).tolist() == [scores[0], 0]
    assert find_scores(cells.highest).tolist() == [scores[1], 0]
    assert cells.negatives.tolist() == [2, 2]


def test_all_finite_scores_need_510_pages() -> None:
    exponents = np.arange(-140, 128)
    powers = np.exp2(exponents.astype(float)).astype(np.float32)
    histogram = ScoreHistogram()
    top = np.finfo(np.float32).max
    histogram.add(np.concatenate([-1.5 * powers[:-1], [-top, top], 1.5 * powers[:-1]]).astype(
        np.float32), np.empty(0, np.float32), np.empty(0), 0)  # fmt: skip
    assert histogram.pages == 510
    assert histogram.ends == (-top, top)
