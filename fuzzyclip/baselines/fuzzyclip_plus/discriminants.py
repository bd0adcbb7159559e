"""Linear discriminants: what tells defects from the rest of an auxiliary set, in closed form.

Text, layers or learned pairs all end in a direction that a token is compared with. Here it is the
one that separates the means of two groups best, measured in deviations (Fisher, 1936): one for the
tokens of each taken block, and one for the class feature. Nothing is drawn and no rate is chosen; a
set is read once, whatever its size. The covariance is drawn towards that of a ball, since an
auxiliary set has few kinds of defects, and others are to be found.

Shapes: B images, L blocks, P patches, W vision width, D width of the class feature, S image size,
G groups of features, n features of a group, F their width.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class Moments:
    """Sums over features of which a share is anomalous, in float64: all that a discriminant needs.

    Attributes:
        count, anomalous: number of features of each group, and the sum of their shares, (G,).
        total, defect: sums of features, and of features times their share, (G, F).
        squares: sums of outer products, (G, F, F).
    """

    groups: int
    width: int
    count: Tensor = field(init=False)
    anomalous: Tensor = field(init=False)
    total: Tensor = field(init=False)
    defect: Tensor = field(init=False)
    squares: Tensor = field(init=False)

    def __post_init__(self) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(self.groups, *shape, dtype=torch.float64)

        self.count, self.anomalous = zeros(), zeros()
        self.total, self.defect = zeros(self.width), zeros(self.width)
        self.squares = zeros(self.width, self.width)

    def add(self, features: Tensor, shares: Tensor) -> None:
        """Take features (G, n, F), and how much of each is anomalous, (n,) in [0, 1]."""
        weights = shares.to(features)
        self.count += len(weights)
        self.anomalous += weights.double().sum().cpu()
        self.total += features.double().sum(dim=1).cpu()
        self.defect += (features * weights[:, None]).double().sum(dim=1).cpu()
        self.squares += (features.transpose(1, 2) @ features).cpu().double()

    def solve(self, shrinkage: float) -> Tensor:
        """The direction of each group, (G, F) float32.

        Its projections differ by the squared distance of the means in deviations, and the
        directions of several groups can be summed as they are.

        Args:
            shrinkage: 0 takes the covariance as it is, 1 a ball of the same total variance, with
                which the direction is the difference of the means.

        Raises:
            ValueError: nothing is anomalous, or everything.
        """
        normal = self.count - self.anomalous
        if not bool((self.anomalous > 0).all() and (normal > 0).all()):
            raise ValueError("a discriminant needs normal and anomalous features")
        centre = self.total / self.count[:, None]
        apart = self.defect / self.anomalous[:, None] - (self.total - self.defect) / normal[:, None]
        spread = self.squares / self.count[:, None, None]
        spread = spread - centre[:, :, None] * centre[:, None, :]  # (G, F, F)
        mean = spread.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[:, None, None]
        ball = mean * torch.eye(self.width, dtype=torch.float64)
        solved = torch.linalg.solve((1 - shrinkage) * spread + shrinkage * ball, apart[..., None])
        directions: Tensor = solved[..., 0].float().contiguous()
        return directions


def measure_shares(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """How much of each patch is anomalous by the masks (B, S, S): (B, P) in [0, 1]."""
    return F.adaptive_avg_pool2d(masks[:, None].float(), grid).flatten(1)
