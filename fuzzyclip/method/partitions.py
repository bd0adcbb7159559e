"""Partitions of a few points into k clusters of the least spread (the first term of eq. 4).

Up to `EXACT_POINTS` points it is the least of all, by dynamic programming over subsets; beyond that
the least that K-means and moves of single points reach from many starts.

The squared distances between all pairs of a cluster's n points, summed and divided by n, are the
squared distances to its centre, summed. So all here follows from distances between points, and
nothing is lost to cancellation.

Shapes: N points, D width, K clusters at most; a subset of points is a number with a bit a point.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: Cluster of each point, (N,), from 0.
Assignment = NDArray[np.int64]
Form = Literal["sum", "mean"]

#: Points up to which all partitions are searched: half a second on one core, and three times as
#: long for each further point. VisA has 12 categories, MVTec-AD 15.
EXACT_POINTS = 16
#: Starts of K-means beyond that.
STARTS = 50
#: What a partition must gain to count as better: more than rounding does. Of partitions that are
#: closer than this the first is taken, on every machine.
TIE = 1e-12


def measure_spread(points: NDArray[np.floating], assignment: Assignment, form: Form) -> float:
    """Squared distances of points (N, D) to the centres of their clusters.

    They are summed over all points (eq. 4), or, of form `mean`, averaged within each cluster first.
    """
    spread = 0.0
    for number in np.unique(assignment):
        members = points[assignment == number]
        squared = ((members - members.mean(axis=0)) ** 2).sum(axis=1)
        spread += float(squared.sum() if form == "sum" else squared.mean())
    return spread


def find_partitions(
    points: NDArray[np.floating], top: int, form: Form = "sum", seed: int = 0
) -> list[Assignment]:
    """The partition of points (N, D) of the least spread for each k from 1 to `top`.

    Of up to `EXACT_POINTS` points it is the best there is, whatever the seed; no cluster is empty.

    Raises:
        ValueError: there are fewer points than clusters.
    """
    if not 1 <= top <= len(points):
        raise ValueError(f"{len(points)} points can not be split into 1 to {top} clusters")
    wide = points.astype(np.float64)
    squared = ((wide[:, None] - wide[None]) ** 2).sum(axis=-1)  # (N, N)
    power = 1 if form == "sum" else 2
    if is_exact(len(points)):
        return search_all(squared, top, power)
    return search_from_starts(wide, squared, top, power, seed)


def search_all(squared: Floats, top: int, power: int) -> list[Assignment]:
    """The best partition for each k up to `top`, from squared distances (N, N).

    The best split of a subset into k clusters is a cluster that holds the subset's last point,
    beside the best split of the rest into k - 1 (Jensen, A dynamic programming algorithm for
    cluster analysis, 1969). That is 3^N steps, not the k^N / k! of an enumeration.

    Args:
        squared: squared distances between points.
        top: largest k, up to N.
        power: of a cluster's size, by which its pairs' squared distances are divided: 1 for the
            sum of squared distances to the centre, 2 for their mean.
    """
    count = len(squared)
    spread = _measure_subsets(squared, power)  # (2^N,), of each subset as one cluster
    half = 1 << (count - 1)  # subsets from here on hold the last point
    best = np.full((top, half), np.inf)  # of each subset without it, in k clusters
    best[0, 1:] = spread[1:half]
    for rest in range(half // 2):
        inside = _list_subsets(rest)
        left = best[:-1, inside[::-1]]  # (K - 1, n): what each subset leaves of the rest
        last = 1 << rest.bit_length()
        while last < half:
            best[1:, last + rest] = (left + spread[last + inside]).min(axis=1, initial=np.inf)
            last <<= 1
    return [_trace(spread, best, k) for k in range(1, top + 1)]


def _measure_subsets(squared: Floats, power: int) -> Floats:
    """Spread of each subset as one cluster, (2^N,); the empty one's is 0."""
    pairs, sizes = np.zeros(1), np.zeros(1)
    for row in squared:
        point = len(pairs).bit_length() - 1
        reach = np.zeros(1)  # of this point to each subset of those before it
        for distance in row[:point]:
            reach = np.concatenate([reach, reach + distance])
        pairs = np.concatenate([pairs, pairs + reach])
        sizes = np.concatenate([sizes, sizes + 1])
    return np.asarray(pairs / np.maximum(sizes, 1) ** power)


def _list_subsets(subset: int) -> NDArray[np.int64]:
    """All subsets of a subset, ascending; the complement of the i-th is the i-th from the end."""
    subsets = np.zeros(1, dtype=np.int64)
    while subset:
        lowest = subset & -subset
        subsets = np.concatenate([subsets, subsets + lowest])
        subset ^= lowest
    return subsets


def _trace(spread: Floats, best: Floats, k: int) -> Assignment:
    """The partition into k clusters that `search_all` found the spread of."""
    count = len(spread).bit_length() - 1
    assignment, left = np.zeros(count, dtype=np.int64), len(spread) - 1
    for clusters in range(k - 1, 0, -1):
        last = 1 << (left.bit_length() - 1)
        inside = _list_subsets(left ^ last)
        totals = spread[last + inside] + best[clusters - 1, inside[::-1]]
        chosen = last + int(inside[np.flatnonzero(totals <= totals.min() + TIE)[0]])
        assignment[[point for point in range(count) if chosen >> point & 1]] = clusters
        left ^= chosen
    return assignment


def search_from_starts(
    points: Floats, squared: Floats, top: int, power: int, seed: int
) -> list[Assignment]:
    """The best partition for each k up to `top` that moves of single points reach.

    They start from K-means, `STARTS` times, and from the partition into k - 1 clusters with any one
    point set apart. K-means knows the sum of squared distances alone; moves know what is asked for.
    For the other arguments see `search_all`.
    """
    from sklearn.cluster import KMeans  # takes a second, and few sets need it

    partitions = [np.zeros(len(points), dtype=np.int64)]
    for k in range(2, top + 1):
        starts = [
            KMeans(n_clusters=k, n_init=1, random_state=seed + start).fit_predict(points)
            for start in range(STARTS)
        ]
        # K-means leaves clusters empty where points coincide.
        starts = [start for start in starts if len(np.unique(start)) == k]
        starts += _set_apart(partitions[-1], k)
        moved = [_move_points(squared, start, k, power) for start in starts]
        least = min(spread for spread, _ in moved)
        partitions.append(next(reached for spread, reached in moved if spread <= least + TIE))
    return partitions


def _set_apart(assignment: Assignment, k: int) -> list[Assignment]:
    """Partitions into k clusters: one into k - 1, with each point of a larger cluster set apart."""
    sizes = np.bincount(assignment)
    points = np.arange(len(assignment))
    return [
        np.where(points == point, k - 1, assignment)
        for point in points
        if sizes[assignment[point]] > 1
    ]


def _move_points(
    squared: Floats, start: NDArray[np.integer], k: int, power: int
) -> tuple[float, Assignment]:
    """Move the point that gains most to another cluster until none gains: spread and partition."""
    assignment, rows = start.astype(np.int64), np.arange(len(start))
    while True:
        member = np.eye(k)[assignment]  # (N, k)
        reach = squared @ member  # (N, k), of each point to all of each cluster
        pairs, sizes = (member * reach).sum(axis=0) / 2, member.sum(axis=0)
        spread = pairs / sizes**power
        own = sizes[assignment]
        without = (pairs[assignment] - reach[rows, assignment]) / np.maximum(own - 1, 1) ** power
        joined = (pairs + reach) / (sizes + 1) ** power  # (N, k)
        gain = (spread[assignment] - without)[:, None] + spread - joined
        gain[rows, assignment] = gain[own == 1] = -np.inf  # no cluster is left empty
        point, cluster = np.unravel_index(gain.argmax(), gain.shape)
        if gain[point, cluster] <= TIE:
            return float(spread.sum()), assignment
        assignment[point] = cluster


def is_exact(count: int) -> bool:
    """True where `find_partitions` gives the best of all partitions of so many points."""
    return count <= EXACT_POINTS
