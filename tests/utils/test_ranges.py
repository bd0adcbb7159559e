"""Ranges of numbers, and the functions that refuse what is outside of theirs."""

from math import inf, nan

import numpy as np
import pytest
import torch

from fuzzyclip.method.csp import score_partitions
from fuzzyclip.method.efa import compute_weights, smooth
from fuzzyclip.method.training import train
from fuzzyclip.model.inference import CategoryModel
from fuzzyclip.utils import ranges
from fuzzyclip.utils.ranges import Range
from fuzzyclip.utils.settings import CspSettings

RANGES = {name: limits for name, limits in vars(ranges).items() if isinstance(limits, Range)}
SENSELESS = (inf, -inf, nan, 1e308, -1e308)


def learn(**changes):
    """A training that would fail at its first argument, were its numbers not looked at before."""
    settings = {"count": 1, "epochs": 1, "batch_size": 1, "learning_rate": 0.1, "seed": 0}
    train(None, None, None, **settings | changes)


@pytest.mark.parametrize("name", RANGES)
def test_a_range_ends_where_it_says_and_nan_is_in_none(name):
    limits = RANGES[name]
    limits.check("x", low=limits.least, high=limits.most)
    for value in (*SENSELESS, np.nextafter(limits.least, -inf), np.nextafter(limits.most, inf)):
        with pytest.raises(ValueError, match=r"^csp: second must be from .* to .*, but is "):
            limits.check("csp", first=limits.most, second=value)


USES = {
    "temperature": lambda value: compute_weights(torch.eye(2), torch.eye(2), value),
    "sigma": lambda value: smooth(np.zeros((1, 2, 2), np.float32), value),
    "learning_rate": lambda value: learn(learning_rate=value),
    "a detector: sigma": lambda value: CategoryModel(None, None, value),
}


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("value", SENSELESS)
def test_functions_refuse_numbers_that_nobody_means(name, value):
    with pytest.raises(ValueError, match=rf"\b{name} must be from"):
        USES[name](value)


def test_the_largest_number_of_clusters_has_a_finite_score():
    assert np.isfinite(ranges.FACTOR.most * np.exp(ranges.FEW.most))
    dear = CspSettings(penalty=ranges.FACTOR.most)
    assert [partition.k for partition in score_partitions(["a", "b"], np.eye(2), dear)] == [1, 2]
