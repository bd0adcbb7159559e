"""Ranges of numbers, and the functions that refuse what is outside of theirs."""

from math import inf, nan

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fuzzyclip.method.csp import score_partitions
from fuzzyclip.method.efa import compute_weights, smooth
from fuzzyclip.method.training import train
from fuzzyclip.model.inference import CategoryModel
from fuzzyclip.utils import ranges
from fuzzyclip.utils.ranges import Range
from fuzzyclip.utils.settings import CspSettings

RANGES = {name: one for name, one in vars(ranges).items() if isinstance(one, Range)}
SENSELESS = (inf, -inf, nan, 1e308, -1e308)


def learn(**changes):
    """A training that would fail at its first argument, were its numbers not looked at before."""
    settings = {"count": 1, "epochs": 1, "batch_size": 1, "learning_rate": 0.1, "seed": 0}
    train(None, None, None, **settings | changes)


@pytest.mark.parametrize("name", RANGES)
def test_a_range_ends_where_it_says_and_nan_is_in_none(name):
    one = RANGES[name]
    one.check("x", low=one.least, high=one.most)
    for value in (*SENSELESS, np.nextafter(one.least, -inf), np.nextafter(one.most, inf)):
        with pytest.raises(ValueError, match=r"^csp: second must be from .* to .*, but is "):
            one.check("csp", first=one.most, second=value)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_what_a_range_takes_lies_inside(value):
    one = Range(-2, 3.5)
    try:
        one.check("x", value=value)
    except ValueError:
        assert not -2 <= value <= 3.5
    else:
        assert -2 <= value <= 3.5


USES = {
    "temperature": lambda value: compute_weights(torch.eye(2), torch.eye(2), value),
    "sigma": lambda value: smooth(np.zeros((1, 2, 2), np.float32), value),
    "learning_rate": lambda value: learn(learning_rate=value),
}


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("value", SENSELESS)
def test_functions_refuse_numbers_that_nobody_means(name, value):
    with pytest.raises(ValueError, match=rf": {name} must be from"):
        USES[name](value)


@pytest.mark.parametrize("value", SENSELESS)
def test_a_detector_refuses_such_a_sigma(value):
    with pytest.raises(ValueError, match="a detector: sigma must be from"):
        CategoryModel(None, None, value)


def test_the_largest_number_of_clusters_has_a_finite_score():
    assert np.isfinite(ranges.FACTOR.most * np.exp(ranges.FEW.most))
    dear = CspSettings(penalty=ranges.FACTOR.most)
    assert [one.k for one in score_partitions(["a", "b"], np.eye(2), dear)] == [1, 2]
