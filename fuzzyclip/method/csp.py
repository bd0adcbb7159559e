"""CSP, clustering-driven stacked prompts: which category names share one stacked prompt.

One text feature per auxiliary category is clustered; the number of clusters k* minimises the
within-cluster sum of squares plus a penalty that grows with k (paper, section 2.2, eq. 4). The
names of a cluster, side by side, are its stacked prompt (eq. 3). The paper clusters by K-means;
here each k has the best of all partitions where they can be searched (`partitions.py`).

Shapes: N categories, D width of what is clustered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.partitions import find_partitions, measure_spread
from fuzzyclip.utils.settings import CspSettings

Clusters = tuple[tuple[str, ...], ...]

#: The partitions the paper reports (section 3.3.2), for auxiliary sets with exactly these members.
PAPER_PCB = ("pcb1", "pcb2", "pcb3", "pcb4")


@dataclass(frozen=True)
class Scored:
    """A candidate number of clusters k, and its partition of the least spread.

    Attributes:
        spread: see `measure_spread`.
        penalty: lambda(k).
    """

    k: int
    spread: float
    penalty: float
    clusters: Clusters

    @property
    def score(self) -> float:
        """Eq. 4: what k* minimises."""
        return self.spread + self.penalty


def compute_points(
    encode: NameEncoder,
    names: Sequence[str],
    points: str,
    load_images: Callable[[], tuple[Tensor, Sequence[str]]],
) -> Tensor:
    """A unit vector for each category, which is clustered: (N, D), or (N, 2D) for `both`.

    Args:
        encode: names to text features.
        names: of the categories.
        points: see `CspSettings.points`.
        load_images: class features (n, D) of the auxiliary images, and the name of each one's
            category; asked for where means of images are clustered.
    """
    if points == "bare":
        return normalise(encode.encode([f"a photo of a {name}." for name in names])).cpu()
    if points == "image":
        image_embed, owners = load_images()
        embeds, owned = normalise(image_embed), np.asarray(owners)
        means = [embeds[torch.from_numpy(owned == name)].mean(dim=0) for name in names]
        return normalise(torch.stack(means))
    sides = torch.stack([encode([name]) for name in names])  # (N, D, 2)
    if points == "both":
        return normalise(sides.transpose(1, 2).flatten(1)).cpu()
    return sides[:, :, 0].cpu()


def compute_penalty(k: int, penalty: float = 0.1) -> float:
    """lambda(k) = penalty * e^k; the paper's factor is 0.1. n in eq. 4 is read as k."""
    return float(penalty * np.exp(k))


def order_clusters(categories: Sequence[str], assignment: NDArray[np.integer]) -> Clusters:
    """Clusters of names, ordered by their first member: their numbers are arbitrary."""
    groups: dict[int, list[str]] = {}
    for category, cluster in zip(categories, assignment, strict=True):
        groups.setdefault(int(cluster), []).append(category)
    return tuple(tuple(group) for group in groups.values())


def score_partitions(
    categories: Sequence[str],
    points: NDArray[np.floating],
    settings: CspSettings,
    seed: int = 0,
) -> list[Scored]:
    """Every k from 1 to min(N, `settings.max_clusters`), scored.

    Points (N, D) have a row for each category; unit rows give the penalty its meaning. The seed
    decides nothing where `fuzzyclip.method.partitions.is_exact` of N.
    """
    if len(categories) != len(points):
        raise ValueError(f"{len(categories)} categories but {len(points)} points")
    distinct = len(np.unique(points.round(6), axis=0))
    top = min(distinct, settings.max_clusters)
    return [
        Scored(
            k=k,
            spread=measure_spread(points, assignment, settings.form),
            penalty=compute_penalty(k, settings.penalty),
            clusters=order_clusters(categories, assignment),
        )
        for k, assignment in enumerate(find_partitions(points, top, settings.form, seed), start=1)
    ]


def choose_partition(scored: Sequence[Scored], partition: str | int = "auto") -> Scored:
    """The candidate to use: `auto` the lowest score (k*), a number that k, `paper` the paper's.

    Raises:
        ValueError: that k was not scored.
    """
    if partition == "auto":
        return min(scored, key=lambda candidate: candidate.score)
    if partition == "paper":
        clusters = partition_as_paper([name for group in scored[0].clusters for name in group])
        return Scored(k=len(clusters), spread=0.0, penalty=0.0, clusters=clusters)
    for candidate in scored:
        if candidate.k == partition:
            return candidate
    raise ValueError(f"partition {partition!r}: k runs from 1 to {scored[-1].k} for this set")


def partition_as_paper(categories: Sequence[str]) -> Clusters:
    """The paper's split of VisA, {pcb1..pcb4} against the rest; one cluster without such names.

    Section 3.3.2 and Figure 4 report VisA and MVTec-AD; nothing is reported of merged sets, where
    the boards are set apart from everything else.
    """
    boards = tuple(name for name in categories if name in PAPER_PCB)
    rest = tuple(name for name in categories if name not in PAPER_PCB)
    groups = [group for group in (boards, rest) if group]
    return tuple(sorted(groups, key=lambda group: list(categories).index(group[0])))


def project_points(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points (N, D) on their two main axes, (N, 2), for a picture (Figure 4).

    The axes' signs are chosen so that the same points give the same picture on every machine.
    """
    centred = points.astype(np.float64) - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    flat: NDArray[np.float64] = np.zeros((len(points), 2))
    for column, axis in enumerate(axes[:2]):
        flat[:, column] = centred @ axis * np.sign(axis[np.abs(axis).argmax()])
    return flat
