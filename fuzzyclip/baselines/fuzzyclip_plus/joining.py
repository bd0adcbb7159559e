"""Several pieces of evidence as one: each in deviations of its own, summed, and told as log-odds.

Evidence of different kinds has different units: log-odds of layers, distances of tokens. In
deviations over the auxiliary set they can be summed, all with one weight. A line through the sums,
fitted to the auxiliary set's labels (logistic regression), makes log-odds of them: it changes no
order.

Shapes: E pieces of evidence, n values of each; B images, S image size.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

#: A deviation is not taken for less.
LEAST_SPREAD = 1e-6
#: Values from which a line is fitted; more make no difference that can be seen.
FITTED = 200_000


@dataclass(frozen=True)
class Joint:
    """How evidence becomes log-odds.

    Attributes:
        middle, spread: of each piece of evidence over the auxiliary set, (E,).
        slope, offset: of the line from sums to log-odds.
    """

    middle: Tensor
    spread: Tensor
    slope: float
    offset: float

    def join(self, evidence: Tensor) -> Tensor:
        """Evidence (E, ...) as log-odds (...)."""
        shape = (-1, *[1] * (evidence.dim() - 1))
        middle, spread = (each.to(evidence).view(shape) for each in (self.middle, self.spread))
        joined: Tensor = self.slope * ((evidence - middle) / spread).sum(dim=0) + self.offset
        return joined

    def pack(self) -> Tensor:
        """As one float32 tensor, (E + 1, 2): middle and spread of each, then slope and offset."""
        rows = torch.stack([self.middle, self.spread], dim=1)
        return torch.cat([rows, rows.new_tensor([[self.slope, self.offset]])]).float()

    @classmethod
    def unpack(cls, packed: Tensor, pieces: int) -> "Joint":
        """From `pack`.

        Raises:
            ValueError: it is of another number of pieces, or not finite.
        """
        if packed.shape != (pieces + 1, 2) or not bool(torch.isfinite(packed).all()):
            raise ValueError(f"what joins {pieces} pieces of evidence has shape {packed.shape}")
        fine = packed.double().cpu()
        return cls(fine[:-1, 0], fine[:-1, 1], *fine[-1].tolist())


def fit_joint(evidence: Tensor, shares: Tensor, seed: int) -> Joint:
    """Deviations and line from evidence (E, n) and how much of each is anomalous, (n,) in [0, 1].

    Raises:
        ValueError: nothing is anomalous, or everything.
    """
    fine = evidence.double().cpu()
    middle, spread = fine.mean(dim=1), fine.std(dim=1).clamp_min(LEAST_SPREAD)
    sums = ((fine - middle[:, None]) / spread[:, None]).sum(dim=0).numpy()
    slope, offset = fit_line(sums, shares.double().cpu().numpy(), seed)
    return Joint(middle, spread, slope, offset)


def fit_line(
    sums: NDArray[np.float64], shares: NDArray[np.float64], seed: int
) -> tuple[float, float]:
    """Slope and offset that make log-odds of sums (n,), of which shares (n,) are anomalous.

    Raises:
        ValueError: nothing is anomalous, or everything.
    """
    if not 0 < shares.mean() < 1:
        raise ValueError("a line needs normal and anomalous values")
    chosen = np.arange(len(sums))
    if len(sums) > FITTED:
        chosen = np.random.default_rng(seed).choice(len(sums), FITTED, replace=False)
    values, weights = sums[chosen, None], shares[chosen]
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(
        np.concatenate([values, values]),
        np.repeat([1, 0], len(values)),
        np.concatenate([weights, 1 - weights]),
    )
    return max(float(fitted.coef_[0, 0]), LEAST_SPREAD), float(fitted.intercept_[0])


def average_top(maps: Tensor, share: float) -> Tensor:
    """Mean of the highest values of each map (B, S, S), a share of them: (B,)."""
    values = maps.flatten(1)
    count = max(1, int(share * values.shape[1]))
    return values.topk(count, dim=1).values.mean(dim=1)
