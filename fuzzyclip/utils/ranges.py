"""Ranges of numbers that a setting may have, wherever it comes from: an argument, a file, a card.

The ranges are wide. They keep out what nobody means and what would pass as a result: YAML's `.inf`
and `.nan`, 1e308, and a slip of the hand that fills the memory or never comes to an end.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, both of them included."""

    least: float
    most: float

    def check(self, owner: str, **values: float) -> None:
        """Refuse an owner's values outside, each under its own name.

        Raises:
            ValueError: names the first that is outside. NaN is in no range.
        """
        for name, value in values.items():
            if not self.least <= value <= self.most:
                raise ValueError(
                    f"{owner}: {name} must be from {self.least:,} to {self.most:,}, but is {value}"
                )


#: Any number, of either sign: thresholds, means.
NUMBER = Range(-1_000_000, 1_000_000)
#: What multiplies and is divided by: learning rates, temperatures, deviations.
POSITIVE = Range(1e-9, 1_000_000)
#: What may also be switched off: penalties, weights of a loss.
FACTOR = Range(0, 1_000_000)
SHARE = Range(0, 1)
#: Gaussian smoothing in pixels; its kernel is eight times as long.
SIGMA = Range(0, 1000)
#: Side of a square of pixels that goes through a tower.
SIDE = Range(1, 8192)
#: How many, where many are meant: epochs, images in a batch.
COUNT = Range(1, 100_000)
COUNT_OR_ZERO = Range(0, COUNT.most)
#: How many, where each costs: threads, layers, clusters (e to that power is still a number).
FEW = Range(1, 500)
FEW_OR_ZERO = Range(0, FEW.most)
#: What NumPy, PyTorch and scikit-learn all take as a seed.
SEED = Range(0, 2**32 - 1)
