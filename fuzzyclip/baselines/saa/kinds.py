"""The kind of features of methods that look at pixels with models of their own."""

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.features.kinds import FeatureKind
from fuzzyclip.utils.transfers import send


@torch.no_grad()
def keep_pixels(backbone: Backbone, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The image itself, for methods that look at it with models of their own.

    Nothing is computed, so the kind is not stored: images are read anew instead.

    Args:
        backbone: says how the pixels were normalised; its towers are not run.
        pixels: (B, 3, S, S), from `preprocess`.

    Returns:
        Class features (B, D) of zeros, as there is none (zeros stay zeros when normalised), and one
        level of three rows, red, green and blue, of all pixels row by row, (B, 1, 3, S * S), from 0
        to 1. Both float32, on the backbone's device.
    """
    sent = send(pixels, backbone.device).float()
    mean, std = (sent.new_tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    image = (sent * std + mean).clamp(0, 1)  # rounding leaves 0..1 by a last digit
    return sent.new_zeros(len(sent), backbone.embed_dim), image.flatten(2)[:, None]


#: No pass at all, see `keep_pixels`.
PIXELS = FeatureKind("pixels", keep_pixels, stored=False)
