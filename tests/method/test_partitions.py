"""The partition of the least spread, against an enumeration of all partitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from sklearn.cluster import KMeans

from fuzzyclip.method import csp, partitions
from fuzzyclip.utils.settings import CspSettings

FORMS = ["sum", "mean"]
#: Ways into k clusters, Stirling numbers of the second kind; k from 1.
STIRLING = {8: [1, 127, 966, 1701, 1050, 266], 10: [1, 511, 9330, 34105, 42525, 22827]}


def draw_weak(seed, count, width=5):
    """Unit rows around one direction, as text features of names are: hardly any clusters."""
    points = np.random.default_rng(seed).normal(size=(count, width)) + 2 * np.eye(width)[0]
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def enumerate_partitions(count, top):
    """Every partition into at most `top` clusters, (M, count): each first member opens the next."""
    rows, largest = np.zeros((1, 1), dtype=int), np.zeros(1, dtype=int)
    for _ in range(count - 1):
        longer = [(rows[largest + 1 >= k], largest[largest + 1 >= k], k) for k in range(top)]
        rows = np.concatenate([np.column_stack([r, np.full(len(r), k)]) for r, _, k in longer])
        largest = np.concatenate([np.maximum(lead, k) for _, lead, k in longer])
    return rows


def measure_all(points, rows, form):
    """Spread of each partition (M, N), by its definition."""
    spread = np.zeros(len(rows))
    for k in range(rows.max() + 1):
        member = (rows == k)[:, :, None]  # (M, N, 1)
        size = member.sum(axis=1)  # (M, 1)
        centre = (member * points).sum(axis=1) / np.maximum(size, 1)
        squared = (((points - centre[:, None]) ** 2) * member).sum(axis=(1, 2))
        spread += squared if form == "sum" else squared / np.maximum(size[:, 0], 1)
    return spread


def find_least(points, top, form):
    """Least spread of all partitions into each number of clusters from 1 to `top`."""
    rows = enumerate_partitions(len(points), top)
    spread = measure_all(points, rows, form)
    return [spread[rows.max(axis=1) == k].min() for k in range(top)]


@pytest.mark.parametrize("count", [8, 10])
def test_the_enumeration_is_complete(count):
    rows = enumerate_partitions(count, 6)
    assert np.bincount(rows.max(axis=1)).tolist() == STIRLING[count]
    assert len(np.unique(rows, axis=0)) == len(rows)


@try_examples(20)
@given(st.integers(0, 10_000), st.integers(1, 8), st.sampled_from(FORMS))
def test_no_partition_spreads_less(seed, count, form):
    points, top = draw_weak(seed, count), min(count, 6)
    chosen = partitions.find_partitions(points, top, form)
    for k, assignment in enumerate(chosen, start=1):
        assert set(assignment) == set(range(k))  # no cluster is empty
    spreads = [partitions.measure_spread(points, assignment, form) for assignment in chosen]
    assert spreads == pytest.approx(find_least(points, top, form), abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [8, 9, 10])
def test_k_is_that_of_the_enumeration(count, form):
    """Penalties from where 6 clusters win to where one does."""
    names, winners = [f"name{number}" for number in range(count)], []
    for seed in range(3):
        points = draw_weak(seed, count)
        least = find_least(points, 6, form)
        for penalty in (0.0001, 0.001, 0.01, 0.1, 1.0):
            scores = [least[k - 1] + penalty * np.exp(k) for k in range(1, 7)]
            settings = CspSettings(form=form, penalty=penalty)
            chosen = csp.choose_partition(csp.score_partitions(names, points, settings))
            assert chosen.k == int(np.argmin(scores)) + 1
            assert chosen.score == pytest.approx(min(scores), abs=1e-12)
            winners.append(chosen.k)
    assert {1, 6} < set(winners)


def test_kmeans_never_finds_less():
    for seed in range(4):
        points = draw_weak(seed, 13, width=12)
        for k, assignment in enumerate(partitions.find_partitions(points, 6), start=1):
            spread = partitions.measure_spread(points, assignment, "sum")
            inertia = KMeans(n_clusters=k, n_init=50, random_state=0).fit(points).inertia_
            assert spread <= inertia + 1e-9


def test_neither_seed_nor_repetition_changes_an_exact_partition():
    points = draw_weak(1, 12)
    first, again, other = (partitions.find_partitions(points, 6, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert np.array_equal(first, other)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_of_several_partitions_is_taken_on_every_machine(form):
    """The corners of a square split into two pairs in two ways, but for rounding."""
    corners = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    chosen = partitions.find_partitions(corners, 2, form)[1]
    for seed in range(20):
        nudged = corners + np.random.default_rng(seed).normal(scale=1e-14, size=corners.shape)
        assert np.array_equal(partitions.find_partitions(nudged, 2, form)[1], chosen)


@pytest.mark.filterwarnings("error", "ignore:Number of distinct clusters")
@pytest.mark.parametrize("copies", [2, 10])
@pytest.mark.parametrize("form", FORMS)
def test_points_that_coincide_may_stand_apart(copies, form):
    """More clusters than distinct points: asked for, they are given, without spread."""
    points = np.repeat(draw_weak(0, 2), copies, axis=0)
    assert partitions.is_exact(len(points)) == (copies == 2)
    for k, assignment in enumerate(partitions.find_partitions(points, 4, form), start=1):
        assert set(assignment) == set(range(k))
        spread = partitions.measure_spread(points, assignment, "sum")
        assert (spread < 1e-15) == (k > 1)


@pytest.mark.parametrize("form", FORMS)
def test_too_many_points_are_searched_from_starts(form, monkeypatch):
    """The bound is crossed; there is an exact answer to compare with below it."""
    points = draw_weak(5, 11)
    exact = partitions.find_partitions(points, 6, form)
    monkeypatch.setattr(partitions, "EXACT_POINTS", 10)
    assert not partitions.is_exact(11)
    reached = partitions.find_partitions(points, 6, form, seed=7)
    assert np.array_equal(reached, partitions.find_partitions(points, 6, form, seed=7))
    rows = np.arange(len(points))
    for best, assignment in zip(exact, reached, strict=True):
        assert set(assignment) == set(best)
        least = partitions.measure_spread(points, best, form)
        spread = partitions.measure_spread(points, assignment, form)
        assert least - 1e-12 <= spread <= 1.05 * least + 1e-12
        for point in rows:  # no move of one point spreads less
            for cluster in set(assignment) - {assignment[point]}:
                moved = np.where(rows == point, cluster, assignment)
                if set(moved) == set(assignment):
                    assert partitions.measure_spread(points, moved, form) >= spread - 1e-12


def test_both_sides_of_the_bound():
    """16 and 17 points: none is left out, and more clusters spread less."""
    assert [partitions.is_exact(count) for count in (12, 15, 16, 17)] == [True, True, True, False]
    for count in (16, 17):
        points = draw_weak(2, count)
        chosen = partitions.find_partitions(points, 4)
        assert [len(set(assignment)) for assignment in chosen] == [1, 2, 3, 4]
        spreads = [partitions.measure_spread(points, assignment, "sum") for assignment in chosen]
        assert spreads == sorted(spreads, reverse=True)


@pytest.mark.parametrize("top", [0, 4])
def test_a_cluster_needs_a_point(top):
    with pytest.raises(ValueError, match=f"3 points can not be split into 1 to {top} clusters"):
        partitions.find_partitions(draw_weak(0, 3), top)
