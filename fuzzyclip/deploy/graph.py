"""The exported graph: one module from resized pixels to the anomaly map and the image score.

Shapes: B images, S image size, D embedding width, L taken blocks, P patches, W vision width.
"""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn

from fuzzyclip.clip.encoding import normalise
from fuzzyclip.features.kinds import TOKENS
from fuzzyclip.method import Scale
from fuzzyclip.method.efa import divide_odds
from fuzzyclip.method.scorer import join_memory
from fuzzyclip.model.inference import CategoryModel
from fuzzyclip.model.score_kinds import judge


class DetectorGraph(nn.Module):
    """A detector as a function of the bytes of its images; text features are constants in it.

    It calls the detector's own tower and scorer, so that there is one formula for both. Only what
    the detector does in NumPy is written here a second time.
    """

    mean: Tensor
    std: Tensor
    smoothing: Tensor | None

    def __init__(self, category_model: CategoryModel) -> None:
        """Take a detector apart.

        Raises:
            ValueError: its towers compute in less than float32, or its method is none that a graph
                can repeat; says why.
        """
        super().__init__()
        backbone = category_model.backbone
        if reason := _find_obstacle(category_model):
            raise ValueError(f"this method can not become a file: {reason}")
        if (precision := backbone.settings.precision) != "float32":
            raise ValueError(
                f"the backbone computes in {precision}, which a file can not repeat: load it with "
                "precision float32 to export"
            )
        if backbone.settings.merge:
            raise ValueError(
                "the backbone merges tokens, and which ones hangs on last digits, which a file can "
                "not repeat: load it with merge 0 to export"
            )
        self.visual = backbone.model.visual  # so that its weights are the module's
        self.tower = backbone.image_tower
        self.scorer = category_model.scorer
        self.blocks, self.image_size = backbone.blocks, backbone.image_size
        self.score = category_model.score
        for name, values in (("mean", backbone.mean), ("std", backbone.std)):
            self.register_buffer(name, torch.tensor(values, device=backbone.device).view(3, 1, 1))
        matrix = None
        if category_model.sigma:
            matrix = build_smoothing(backbone.image_size, category_model.sigma).to(backbone.device)
        self.register_buffer("smoothing", matrix)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 pixels (B, S, S, 3), RGB, to maps (B, S, S) in [0, 1] and scores (B,), log-odds."""
        pixels = (image.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std  # (B, 3, S, S)
        image_embed, patch_tokens = self.tower.encode(pixels, self.blocks)
        unit = normalise(image_embed)
        anomaly_map = self.scorer.compute_map(patch_tokens, unit)
        image_score = self.scorer.compute_score(unit, anomaly_map)
        if self.scorer.memory is not None:
            far = self.scorer.memory.compute_map(patch_tokens)
            anomaly_map, image_score = join_memory(anomaly_map, image_score, far)
        shown = self._smooth(anomaly_map.sigmoid())
        if self.score != "class":
            odds = anomaly_map
            if self.smoothing is not None:  # both ends of a probability, each precise near 0
                odds = divide_odds(shown.clone(), self._smooth(anomaly_map.neg().sigmoid()))
            image_score = judge(self.score, image_score, odds.amax(dim=(1, 2)))
        return shown, image_score

    def _smooth(self, maps: Tensor) -> Tensor:
        return maps if self.smoothing is None else self.smoothing @ maps @ self.smoothing.T


def _find_obstacle(category_model: CategoryModel) -> str:
    """Why a detector can not be a graph of tokens, in words; empty where it can."""
    scorer, kind = category_model.scorer, category_model.kind
    if kind.name != TOKENS.name:
        return f"it reads features of its own ({kind.name}), not the tower's tokens alone"
    if scorer.scale is not Scale.LOG_ODDS:
        return "its maps are no probabilities"
    return "it judges an image by its smoothed map" if scorer.join is not None else ""


def build_smoothing(size: int, sigma: float) -> Tensor:
    """Gaussian smoothing of one axis as a matrix (S, S): `matrix @ map @ matrix.T` smooths both.

    The filter of `fuzzyclip.method.efa.smooth` is linear, and its answers to single pixels are the
    matrix's columns. This holds at the borders too, however wide the filter is; a convolution
    would need the borders' mirror images around the map, more than once for a wide one.
    """
    return torch.from_numpy(gaussian_filter1d(np.eye(size), sigma, axis=0).astype(np.float32))
