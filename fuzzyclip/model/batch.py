"""The images of a batch judged by one another: no text, no training, no good parts, no labels.

`study_batch` looks at some of them and gives what judges all, one after the other: what it holds
does not grow with their number. `fuzzyclip.baselines.mutual.scoring` says how.

Shapes: B images of a call, P patches, S image size.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from fuzzyclip.baselines.mutual.scoring import (
    NOTE,
    BatchScale,
    MutualSettings,
    References,
    draw_maps,
    find_peaks,
    place_on_scale,
    study,
)
from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import encode_images, preprocess
from fuzzyclip.method.interface import order_images
from fuzzyclip.method.scorer import NotFiniteError
from fuzzyclip.model.card import NATURAL_PIXEL, Threshold
from fuzzyclip.model.inference import ImageLike, Opener, digest_image, is_image
from fuzzyclip.utils.json_text import format_json
from fuzzyclip.utils.prefetch import prefetch

#: What the values of a batch's maps are, in words.
VALUES = "anomalous in this batch"


@dataclass(frozen=True, repr=False)
class BatchModel:
    """What judges the images of a studied batch; `detect` takes it as its `batch`.

    Attributes:
        backbone: the frozen CLIP that it was studied with.
        references: images that all are compared with.
        scale: what is usual in the batch.
        digest: SHA-256 of all that decides its results: settings, seed, content of the images that
            were studied.
        known: values of patches (P,) of those images, by the digest of their pixels: an image goes
            through the tower once.
    """

    backbone: Backbone
    references: References
    scale: BatchScale
    digest: str
    known: Mapping[bytes, Tensor]

    def __repr__(self) -> str:
        """One line: what was studied."""
        return (
            f"<BatchModel of {self.scale.images} studied images, {len(self.references)} of them "
            "references>"
        )

    def __call__(self, pixels: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Maps (B, S, S) in [0, 1] and scores (B,) of pixels (B, 3, S, S), as log-odds.

        Raises:
            NotFiniteError: there is no finite answer to an image.
        """
        keys = [_digest_pixels(image) for image in pixels]
        new = [row for row, key in enumerate(keys) if key not in self.known]
        patches = {}
        if new:
            tokens = encode_images(self.backbone, pixels[new])[1]
            values = self.references.judge(tokens, self.scale)
            patches = dict(zip(new, values.cpu(), strict=True))
        rows = [patches[row] if row in patches else self.known[key] for row, key in enumerate(keys)]
        maps = draw_maps(torch.stack(rows), self.backbone.grid, self.backbone.image_size)
        placed = place_on_scale(maps, self.scale, self.references.settings)  # (B, S, S)
        scores = find_peaks(placed).numpy()
        if not (finite := np.isfinite(scores)).all():
            raise NotFiniteError("the batch", np.flatnonzero(~finite).tolist())
        return expit(placed.numpy()), scores

    def choose_thresholds(self, given: float | None = None) -> tuple[Threshold, Threshold]:
        """Thresholds of image scores, the batch's own or a given one, and of pixels."""
        if given is not None:
            return Threshold(value=given, method="given", note=NOTE), NATURAL_PIXEL
        cut = f"{self.references.settings.cut:g} deviations above what is usual"
        own = f"{NOTE}: {cut} among {self.scale.images} of its images"
        image = Threshold(value=0.0, method="batch", note=own)
        return image, Threshold(value=0.5, method="batch", counted="pixels", note=own)


def study_batch(
    images: Sequence[ImageLike],
    backbone: Backbone,
    *,
    settings: MutualSettings | None = None,
    seed: int = 0,
    opener: Opener | None = None,
    batch_size: int = 8,
    workers: int = 1,
) -> BatchModel:
    """Look at some images of a batch, so that all of them can be judged.

    Every image is read once for its content, which decides with the seed what is looked at: neither
    order nor names do. An image that can not be read is passed over.

    Args:
        images: all of the batch.
        backbone: the frozen CLIP.
        settings: how it is compared; None for the defaults.
        seed: another one studies other images.
        opener: limits of what is opened.
        batch_size: images in a pass of the tower.
        workers: threads that read and decode.

    Raises:
        BatchError: fewer images than `FEWEST` can be read and differ.
        ValueError: `images` is one image, or one of them is none of `ImageLike`.
    """
    if is_image(images):
        raise ValueError("a batch is several images: give a list of them")
    chosen, open_image = settings or MutualSettings(), opener or Opener()
    digests = list(prefetch(digest_image, images, ahead=2 * workers, workers=workers))
    readable = [place for place, digest in enumerate(digests) if digest]
    order = order_images([digests[place] for place in readable], seed)

    def load(place: int) -> tuple[str, Tensor] | None:
        try:
            return digests[place], preprocess(open_image(images[place]).picture, backbone)
        except OSError:  # whoever judges all images tells of it
            return None

    keys: list[bytes] = []
    far: list[Tensor] = []
    rare: list[Tensor] = []
    members: list[str] = []
    ordered = [readable[position] for position in order]
    with closing(prefetch(load, ordered, ahead=batch_size, workers=workers)) as loaded:
        opened = (image for image in loaded if image is not None)
        first = [*_pass(islice(opened, chosen.references), backbone, batch_size)]
        tokens = torch.cat([part.tokens for part in first]) if first else torch.empty(0)
        references = References.take(tokens, backbone.grid, chosen)
        rest = _pass(islice(opened, chosen.studied - len(tokens)), backbone, batch_size)
        for part in chain(first, rest):
            keys += part.keys
            far.append(references.compare(part.tokens).cpu())
            rare.append(references.looks.measure(part.tokens).cpu())
            members += part.members
    distances, rarity = torch.cat(far), torch.cat(rare)  # (n, P) and (n, E, P)
    scale = study(references, distances, rarity, backbone.image_size)
    made = format_json([seed, asdict(chosen), str(open_image), members])
    return BatchModel(
        backbone=backbone,
        references=references,
        scale=scale,
        digest=hashlib.sha256(made.encode()).hexdigest(),
        known=dict(zip(keys, scale.join(distances, rarity), strict=True)),
    )


class _Pass(NamedTuple):
    """Images that went through the tower: content, digests of their pixels, patch tokens."""

    members: list[str]
    keys: list[bytes]
    tokens: Tensor


def _pass(
    images: Iterator[tuple[str, Tensor]], backbone: Backbone, batch_size: int
) -> Iterator[_Pass]:
    """The images' tokens, (B, L, P, W) a pass; without those whose tokens are not finite."""
    while part := [*islice(images, batch_size)]:
        pixels = torch.stack([each for _, each in part])  # (B, 3, S, S)
        tokens = encode_images(backbone, pixels)[1]
        rows = tokens.flatten(1).isfinite().all(dim=1).nonzero().flatten().tolist()
        keys = [_digest_pixels(pixels[row]) for row in rows]
        yield _Pass([part[row][0] for row in rows], keys, tokens[rows])


def _digest_pixels(pixels: Tensor) -> bytes:
    return hashlib.sha256(pixels.contiguous().numpy().data).digest()


def check_batch_alone(tiling: object, references: Sequence[ImageLike], score: str | None) -> None:
    """Refuse what has no meaning beside a batch.

    Raises:
        ValueError: names it.
    """
    for given, name, reason in (
        (tiling, "tiles", "whole images are compared with one another"),
        (references, "references", "the batch's own images are what is compared with"),
        (score, "score", "an image's score is the highest value of its map"),
    ):
        if given:
            raise ValueError(f"batch goes without {name}: {reason}")
