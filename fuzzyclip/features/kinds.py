"""Ways to look at an image, each of which is computed once and kept.

Shapes: B images, D embedding width, S image size; L x P x W is what a kind keeps of an image
besides its class feature.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import encode_images

#: Pixels (B, 3, S, S), as `clip.encoding.preprocess` gives them, to class features (B, D), not
#: normalised, and what else is kept, (B, L, P, W); both float32.
Encode = Callable[[Backbone, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class FeatureKind:
    """One way to look at an image, which several methods may share.

    Attributes:
        name: of the kind; goes into paths.
        encode: see `Encode`.
        version: raised with every change of the numbers that `encode` gives.
        stored: whether it is worth keeping: False where `encode` computes next to nothing.
        classes: class features that it keeps of an image, side by side: (B, classes * D).
    """

    name: str
    encode: Encode
    version: int = 1
    stored: bool = True
    classes: int = 1


#: One plain pass of the image tower: class features, and the patch tokens of the taken blocks.
TOKENS = FeatureKind("tokens", encode_images)
