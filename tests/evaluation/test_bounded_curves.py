"""The bounds of the stepped AUPRO against every possible course of the curve."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples

from fuzzyclip.evaluation.bounded_curves import Span, bound_aupro_steps
from fuzzyclip.evaluation.metrics import FPR_LIMIT


def slow_aupro(fpr: np.ndarray, pro: np.ndarray) -> float | None:
    """The field's area of rates at its steps: those below the limit, stretched to [0, 1]."""
    pairs = [(x, y) for x, y in zip(fpr, pro, strict=True) if x < FPR_LIMIT]
    if len(pairs) < 2 or pairs[0][0] == pairs[-1][0]:
        return None
    area = sum((a[1] + b[1]) / 2 * (a[0] - b[0]) for a, b in pairwise(pairs))
    return area / (pairs[0][0] - pairs[-1][0])


def draw_span(rng: np.random.Generator, steps: int, top: float, grid: int) -> Span:
    """Rates on a grid, so that equal ones occur; some known, some not."""
    first, second = np.sort(rng.integers(0, grid + 1, (2, steps)) / grid * top, axis=1)[:, ::-1]
    known = rng.random() < 0.3
    return Span(np.minimum(first, second), np.minimum(first, second) if known else first)


def list_courses(span: Span, points: int) -> list[np.ndarray]:
    """Falling rates within a span, its corners among them."""
    choices = [np.linspace(low, high, points) for low, high in zip(*span, strict=True)]
    return [np.array(course) for course in product(*choices) if (np.diff(course) <= 0).all()]


@try_examples(150)
@given(st.integers(0, 10**6), st.sampled_from([0.29, 0.32, 0.5]), st.sampled_from([4, 9, 50]))
def test_no_possible_course_leaves_the_bounds(seed: int, top: float, grid: int) -> None:
    rng = np.random.default_rng(seed)
    fpr, pro = draw_span(rng, 5, top, grid), draw_span(rng, 5, 1.0, grid)
    bounds = bound_aupro_steps(fpr, pro)
    values = [
        value
        for x in list_courses(fpr, 3)
        for y in list_courses(pro, 2)
        if (value := slow_aupro(x, y)) is not None
    ]
    if bounds is None:
        assert not values
        return
    low, estimate, high = bounds
    assert low <= estimate <= high
    assert all(low - 1e-12 <= value <= high + 1e-12 for value in values)


@try_examples(100)
@given(st.integers(0, 10**6))
def test_the_bounds_are_reached_where_all_steps_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.choice(28, 8, replace=False))[::-1] / 100  # steps' spans do not overlap
    fpr = Span(cuts[1::2], cuts[::2])
    pro = draw_span(rng, 4, 1.0, 9)
    low, _, high = bound_aupro_steps(fpr, pro) or (0, 0, 0)
    values = [
        slow_aupro(x, y) for x, y in product(list_courses(fpr, 2), list_courses(pro, 2))
    ]  # corners only
    assert min(values) == pytest.approx(low, abs=1e-12)
    assert max(values) == pytest.approx(high, abs=1e-12)


def test_known_rates_give_the_value_itself() -> None:
    fpr, pro = np.linspace(0.6, 0, 200), np.linspace(1, 0.2, 200)
    expected = slow_aupro(fpr, pro)
    assert bound_aupro_steps(Span(fpr, fpr), Span(pro, pro)) == pytest.approx((expected,) * 3)


def test_certainly_undefined_is_none() -> None:
    rates = np.linspace(1, 0.4, 200)  # never below the limit
    assert bound_aupro_steps(Span(rates, rates), Span(rates, rates)) is None
    flat = np.full(200, 0.1)  # below it, but all alike
    assert bound_aupro_steps(Span(flat, flat), Span(rates, rates)) is None
