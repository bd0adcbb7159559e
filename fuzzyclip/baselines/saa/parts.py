"""Steps of SAA+ between its models: which boxes stay, saliency, and the map from masks.

Shapes: n boxes or masks (n, S, S) of bool, S image size; features (C, h, w), unit along C.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Rows of a cosine matrix at a time; with the 256 x 256 positions of an image of 1024 pixels this
#: is 134 MB.
ROWS = 512
#: The channels of ImageNet's images, as its networks were trained.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Boxes:
    """Boxes of one caption.

    Attributes:
        places: (n, 4), left, top, right, bottom as shares of the image.
        scores: (n,), 0 to 1.
        phrases: the words of the caption that each box answers to.
    """

    places: Tensor
    scores: Tensor
    phrases: Sequence[str]


def measure_boxes(places: Tensor) -> Tensor:
    """Areas (n,) of boxes (n, 4), as shares of the image."""
    width, height = (places[:, 2:] - places[:, :2]).unbind(dim=1)
    return width * height


def select_boxes(boxes: Boxes, limit: float, name: str) -> tuple[Tensor, Tensor]:
    """Boxes smaller than `limit` whose phrase does not hold `name`; places (m, 4), scores (m,).

    A phrase with the object's name means the object itself. An empty name drops none.
    """
    areas = measure_boxes(boxes.places)
    named = [bool(name) and name in phrase for phrase in boxes.phrases]  # "nut" also in "nuts"
    keep = (areas > 0) & (areas < limit) & ~torch.tensor(named, dtype=torch.bool).to(areas.device)
    return boxes.places[keep], boxes.scores[keep]


@torch.no_grad()
def compute_features(network: nn.Module, image: Tensor, side: int) -> Tensor:
    """Unit features at each position of the finest stage, (C, h, w).

    Coarser stages are repeated (nearest) up to the finest one, all are joined, then brought to unit
    length together, so that a stage of large values counts more.

    Args:
        network: normalised pixels (1, 3, side, side) to the maps of its stages, the finest first.
        image: (3, S, S), 0 to 1.
        side: pixels that the image is resized to, bilinear and without a filter against aliasing,
            as published.
    """
    mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    resized = F.interpolate(image[None], size=(side, side), mode="bilinear")
    stages = network((resized - mean) / std)
    size = tuple(stages[0].shape[-2:])
    joined = torch.cat([F.interpolate(stage, size=size) for stage in stages], dim=1)
    return F.normalize(joined, dim=1)[0]


def compute_self_saliency(features: Tensor, largest: int) -> Tensor:
    """Distance of each position from the rest of the image, (h, w), 0 to 1.

    Half of 1 - cosine of its unit feature to every other's, the mean of the `largest` of them; of
    all, where there are fewer positions.
    """
    rows = features.flatten(1).T.contiguous()  # (h * w, C)
    count = min(largest, len(rows))
    means = [
        ((1 - part @ rows.T) / 2).topk(count, dim=1).values.mean(dim=1)
        for part in torch.split(rows, ROWS)
    ]
    return torch.cat(means).view(features.shape[1:])


def compute_group_saliency(features: Tensor, masks: Tensor) -> Tensor:
    """Unlikeness of each object's positions to the other objects, (h, w), 0 to 1; 0 outside.

    Half of 1 - the largest cosine to a position of another object that is none of its own; where
    there is no such position, or none of cosine above 0, one half. Where objects, whose masks are
    bool (n, h, w), overlap, the larger value stays.
    """
    saliency = features.new_zeros(features.shape[1:])
    anywhere = masks.any(dim=0)
    for own in masks:
        others = features[:, anywhere & ~own]  # (C, others)
        nearest = [
            F.pad(part @ others, (1, 0)).amax(dim=1)  # the 0 padded on is the least that counts
            for part in torch.split(features[:, own].T, ROWS)
        ]
        if nearest:
            saliency[own] = torch.maximum(saliency[own], (1 - torch.cat(nearest)) / 2)
    return saliency


def rescore(masks: Tensor, scores: Tensor, saliency: Tensor, strength: float) -> Tensor:
    """Scores (n,) times exp(strength * mean saliency in the mask); of an empty mask as they are."""
    inside = masks.flatten(1).to(saliency.dtype)  # (n, S * S)
    means = inside @ saliency.flatten() / inside.sum(dim=1).clamp(min=1)
    return scores * (strength * means).exp()


def combine_masks(masks: Tensor, scores: Tensor) -> Tensor:
    """Map (S, S): at each pixel the sum of its masks' scores, divided by 1 + how many they are.

    The published code starts its count at 1: a lone mask gives half its score.
    """
    inside = masks.to(scores.dtype)
    return torch.einsum("n,nij->ij", scores, inside) / (1 + inside.sum(dim=0))
