"""CSP: invariants of the partition, eq. 4 by hand, and the partitions that the paper reports."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from sklearn.metrics import adjusted_rand_score

from fuzzyclip.datasets import get_dataset
from fuzzyclip.method import csp
from fuzzyclip.utils.settings import CspSettings

NAMES = [f"name{number}" for number in range(30)]


def draw_points(seed, count, width=6):
    """Random unit rows."""
    points = np.random.default_rng(seed).normal(size=(count, width))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def draw_blobs(per_blob=4, blobs=3, noise=0.01):
    """Points around far corners, interleaved, and the blob of each."""
    owner = np.tile(np.arange(blobs), per_blob)
    noise_of = np.random.default_rng(0).normal(scale=noise, size=(len(owner), blobs))
    return np.eye(blobs)[owner] + noise_of, owner


def slow_spread(points, clusters, names, form):
    """Eq. 4's first term, cluster by cluster and point by point."""
    total = 0.0
    for cluster in clusters:
        rows = [points[names.index(name)] for name in cluster]
        center = sum(rows) / len(rows)
        distances = [sum((a - b) ** 2 for a, b in zip(row, center, strict=True)) for row in rows]
        total += sum(distances) if form == "sum" else sum(distances) / len(distances)
    return total


@try_examples(10)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from(["sum", "mean"]))
def test_every_partition_covers_each_name_once(seed, count, form):
    names, points = NAMES[:count], draw_points(seed, count)
    scored = csp.score_partitions(names, points, CspSettings(form=form, max_clusters=4), seed)
    assert [candidate.k for candidate in scored] == list(range(1, min(count, 4) + 1))
    for candidate in scored:
        clusters = candidate.clusters
        assert len(clusters) == candidate.k
        assert sorted(name for group in clusters for name in group) == sorted(names)
        firsts = [group[0] for group in clusters]
        assert firsts == sorted(firsts, key=names.index)
        assert all(list(group) == sorted(group, key=names.index) for group in clusters)
        assert candidate.spread == pytest.approx(slow_spread(points, clusters, names, form))
        assert candidate.penalty == pytest.approx(0.1 * math.e**candidate.k)
        assert candidate.score == candidate.spread + candidate.penalty


def test_the_sum_falls_with_k_and_the_penalty_decides():
    points = draw_points(2, 10)
    free = csp.score_partitions(NAMES[:10], points, CspSettings(penalty=0.0))
    spreads = [candidate.spread for candidate in free]
    assert spreads == sorted(spreads, reverse=True)
    assert csp.choose_partition(free).k == CspSettings().max_clusters
    dear = csp.score_partitions(NAMES[:10], points, CspSettings(penalty=1000.0))
    assert csp.choose_partition(dear).k == 1


def test_a_split_must_pay_for_its_penalty():
    """k = 2 costs 0.467 more than k = 1: two antipodal pairs at that distance tip the scale."""
    step = csp.compute_penalty(2) - csp.compute_penalty(1)
    for gain, expected in ((0.99 * step, 1), (1.01 * step, 2)):
        half = math.sqrt(gain / 4)  # four points at distance `half` from the common centre
        points = np.array([[half], [half], [-half], [-half]])
        scored = csp.score_partitions(NAMES[:4], points, CspSettings(max_clusters=2))
        assert scored[0].spread - scored[1].spread == pytest.approx(gain)
        assert csp.choose_partition(scored).k == expected


def test_well_separated_blobs_are_found():
    points, owner = draw_blobs()
    names = NAMES[: len(points)]
    chosen = csp.choose_partition(csp.score_partitions(names, points, CspSettings()))
    assert chosen.k == 3
    cluster = {name: i for i, group in enumerate(chosen.clusters) for name in group}
    numbers = [cluster[name] for name in names]
    assert adjusted_rand_score(owner, numbers) == 1.0
    assert numbers[:3] == [0, 1, 2]  # clusters stand in the order of their first names


def test_a_seed_gives_one_partition():
    points = draw_points(3, 12)
    first, again = (csp.score_partitions(NAMES[:12], points, CspSettings(), 7) for _ in range(2))
    assert first == again


def test_a_fixed_k_is_taken_whatever_the_score():
    points, _ = draw_blobs()
    scored = csp.score_partitions(NAMES[: len(points)], points, CspSettings())
    for k in (1, 2, 5):
        assert csp.choose_partition(scored, k).k == k
    with pytest.raises(ValueError, match="k runs from 1 to 6"):
        csp.choose_partition(scored, 7)


def test_k_never_exceeds_the_distinct_points():
    points = draw_points(4, 2)[[0, 1, 0, 1, 1]]
    scored = csp.score_partitions(NAMES[:5], points, CspSettings(penalty=0.0))
    assert [candidate.k for candidate in scored] == [1, 2]
    assert scored[1].clusters == (("name0", "name2"), ("name1", "name3", "name4"))
    with pytest.raises(ValueError, match="k runs from 1 to 2"):
        csp.choose_partition(scored, 3)
    alone = csp.score_partitions(["pill"], draw_points(5, 1), CspSettings())
    assert csp.choose_partition(alone).clusters == (("pill",),)


def test_names_and_points_must_match():
    with pytest.raises(ValueError, match="3 categories but 2 points"):
        csp.score_partitions(NAMES[:3], draw_points(0, 2), CspSettings())


def test_the_papers_own_partitions():
    visa, mvtec = (list(get_dataset(name).categories) for name in ("visa", "mvtec"))
    scored = csp.score_partitions(visa, draw_points(6, 12), CspSettings())
    chosen = csp.choose_partition(scored, "paper")
    assert chosen.k == 2
    rest = "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pipe_fryum"
    assert chosen.clusters == (tuple(rest.split()), ("pcb1", "pcb2", "pcb3", "pcb4"))
    assert csp.partition_as_paper(mvtec) == (tuple(mvtec),)


def test_the_picture_keeps_distances_along_the_two_main_axes():
    points = draw_points(3, 12)
    flat = csp.project_points(points)
    assert flat.shape == (12, 2)
    centred = points - points.mean(axis=0)
    values = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    assert (flat**2).sum(axis=0) == pytest.approx(values[:2])  # all the variance two axes can hold
    assert flat.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)
    turned = csp.project_points(-points)  # signs are fixed by the axes, not by the solver's whim
    assert np.abs(turned) == pytest.approx(np.abs(flat))
    assert csp.project_points(points[:1]) == pytest.approx(np.zeros((1, 2)))
