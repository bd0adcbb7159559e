"""What is said of scores: AUROC and chance as others compute them, a histogram that adds up."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from sklearn.metrics import roc_auc_score

from fuzzyclip.model.separation import (
    BAR,
    LINES,
    draw_histogram,
    measure_separation,
    to_percent,
)


@try_examples(100)
@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=20),
    st.lists(st.integers(-5, 5), min_size=1, max_size=20),
)
def test_auroc_is_scikit_learns(normal: list[int], anomalous: list[int]) -> None:
    labels = [0] * len(normal) + [1] * len(anomalous)
    separation = measure_separation([*normal, *anomalous], labels)
    assert separation.auroc == pytest.approx(roc_auc_score(labels, [*normal, *anomalous]))


def test_doubt_is_said_where_there_is_some() -> None:
    rng = np.random.default_rng(0)
    labels = [0] * 100 + [1] * 100
    noise = rng.normal(size=200)
    for shift, doubt in (
        (0.1, "hardly better than chance"),
        (2, ""),
        (-2, "no better than chance"),
    ):
        assert measure_separation(noise + shift * np.array(labels), labels).doubt == doubt
    few = measure_separation([0, 1, 2, 3], [0, 0, 1, 1])  # perfect, one order of six
    assert (few.auroc, few.by_chance) == (1, pytest.approx(1 / 6))
    assert few.doubt == "too few images to tell it from chance"
    alone = measure_separation([0.5, 1], [0, 0])
    assert (alone.auroc, alone.doubt) == (None, "")


@try_examples(200)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60),
    st.lists(st.floats(-1e4, 1e4, width=32), max_size=60),
    st.floats(-1e4, 1e4, width=32),
)
def test_the_histogram_has_every_image_on_its_side_of_the_threshold(
    normal: list[float], anomalous: list[float], threshold: float
) -> None:
    labels = [0] * len(normal) + [1] * len(anomalous)
    lines = draw_histogram(measure_separation([*normal, *anomalous], labels), threshold)
    assert len(lines) <= LINES + 4
    (cut,) = [number for number, line in enumerate(lines) if line.endswith("threshold")]
    start = lines[0].index("score  ") + len("score  ")
    labels = [line[:start] for number, line in enumerate(lines[1:], 1) if number != cut]
    assert len({*labels}) == len(labels)
    assert lines[cut].startswith(lines[cut + 1][:start])
    for column, scores in (
        (slice(start, start + BAR + 6), normal),
        (slice(start + 2 + BAR + 6, None), anomalous),
    ):
        bars = [re.fullmatch(r"(#+) (\d+)", line[column].strip()) for line in lines]
        counts = [int(bar[2]) if bar else 0 for bar in bars]
        assert sum(counts[:cut]) == sum(score < threshold for score in scores)
        assert sum(counts[cut:]) == sum(score >= threshold for score in scores)
        assert all(len(bar[1]) <= BAR for bar in bars if bar)


def test_bins_are_called_by_as_many_digits_as_tell_them_apart() -> None:
    near = draw_histogram(measure_separation([3.21, 3.2101, 3.2102, 3.2103], [0, 0, 1, 1]), 3.21015)
    assert [line[:9].strip() for line in near[7:10]] == ["+3.21015", "+3.21015", "+3.21018"]
    far = draw_histogram(measure_separation([0, 1, 2, 3], [0, 0, 1, 1]), 1.5)
    bins = [*range(-6, 1), *range(6)]  # the line of the threshold is called as the bin above it
    assert [line[:9] for line in far[1:]] == [f"{1.5 + number * 3 / 11:+9.2f}" for number in bins]
    alone = draw_histogram(measure_separation([0.5, 0.5], [0, 1]), 0.5)
    assert [line[:9].strip() for line in alone[1:]] == ["-0.50", "+0.50", "+0.50"]


def test_shares_are_read_as_they_are() -> None:
    for share, words in (
        (0, "0 %"), (1, "100 %"), (0.05, "5 %"), (0.0526, "5.3 %"), (0.25, "25 %"), (0.333, "33 %"),
        (0.0002, "under 0.1 %"), (0.002, "0.2 %"), (0.9999, "over 99.9 %"), (0.975, "97.5 %"),
    ):  # fmt: skip
        assert to_percent(share) == words
