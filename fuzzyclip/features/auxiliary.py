"""An auxiliary set: the test images of all its datasets, with their features.

Shapes: N images, n rows of them, D embedding width; L x P x W as in `fuzzyclip.features.kinds`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.store import CategoryFeatures, read_or_encode


@dataclass(frozen=True)
class AuxiliarySet:
    """The test images of an auxiliary set, all members, in manifest order.

    Attributes:
        names: distinct prompt names of its categories; the order in which they are stacked.
        rows: index rows with paths that can be opened as they are, and columns `member` (dataset
            and category), `name` (prompt name of the category), `place` (row within the category's
            features) and `mask_above`.
        features: stored features by `member`, in the order of the rows.
    """

    names: list[str]
    rows: pd.DataFrame
    features: Mapping[str, CategoryFeatures]

    @property
    def image_embed(self) -> Tensor:
        """Class features of all rows, (N, D), not normalised."""
        return torch.cat([stored.image_embed for stored in self.features.values()])

    def find_unmasked(self) -> list[str]:
        """Members that have anomalous images without masks."""
        without = self.rows[(self.rows["label"] == 1) & (self.rows["mask_path"] == "")]
        return sorted(set(without["member"]))

    def read_tokens(
        self,
        rows: Sequence[int],
        backbone: Backbone,
        kind: FeatureKind = TOKENS,
        workers: int = 1,
    ) -> Tensor:
        """Patch tokens of rows in any order, (n, L, P, W), see `read_or_encode`."""
        chosen = self.rows.iloc[list(rows)]
        images = [Path(path) for path in chosen["image_path"]]
        members = [self.features[member] for member in chosen["member"]]
        stored = list(zip(members, chosen["place"].tolist(), strict=True))
        return read_or_encode(images, stored, backbone, kind, workers)
