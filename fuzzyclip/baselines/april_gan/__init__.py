"""APRIL-GAN: linear layers between patch tokens and text, trained against each image's own name.

"A Zero-/Few-Shot Anomaly Classification and Segmentation Method for CVPR 2023 VAND Workshop
Challenge Tracks 1&2", its zero-shot form, which FuzzyCLIP builds on: EFA's layers and losses with
one set of layers for all images, and the precise prompt in place of the stacked one. Image scores
are CLIP's own.

Shapes: N training images, D embedding width.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.method.efa_training import train_heads
from fuzzyclip.method.fuzzyclip import load_heads
from fuzzyclip.method.interface import Learned, Trained, TrainingSet, check_training
from fuzzyclip.method.scorer import Scorer, build_trained
from fuzzyclip.method.training_set import plan_mosaics
from fuzzyclip.utils.ranges import SHARE

#: What the stored tensors' names begin with.
PREFIX = "heads."


@dataclass(frozen=True)
class AprilGan(Trained):
    """APRIL-GAN's settings, with the defaults and their reasons.

    The text's settings (35 templates, names with their underscores) are the run's: their defaults
    are APRIL-GAN's own.

    Attributes:
        epochs: 15, as published for layers trained on VisA; for those trained on MVTec-AD it was 3.
        mosaic: share of the images that a mosaic of four of their category replaces, anew in each
            epoch; as published a fifth for MVTec-AD and none for VisA.
        learning_rate: Adam's; as published, like the images a step.
        sigma: Gaussian smoothing of its maps in pixels; APRIL-GAN has none.
    """

    epochs: int = 15
    mosaic: float = 0.0
    learning_rate: float = 1e-3
    batch_size: int = 8
    sigma: float = 0.0

    name: ClassVar[str] = "april_gan"
    title: ClassVar[str] = "APRIL-GAN"
    kind: ClassVar[FeatureKind] = TOKENS

    def __post_init__(self) -> None:
        check_training(self.name, self)
        SHARE.check(self.name, mosaic=self.mosaic)

    def fit(
        self, encode: NameEncoder, images: TrainingSet, seed: int, checkpoint: Path | None = None
    ) -> Learned:
        """The layers, named `heads.*`, and the curve with `loss`, `focal` and `dice` of each step.

        Raises:
            ValueError: no image shows a defect.
        """
        if not images.labels.any():
            raise ValueError(
                "april_gan learns from masks of defects, but no image of the auxiliary set is "
                "anomalous: choose another auxiliary set"
            )
        own = {name: encode([name]) for name in sorted(set(images.names))}  # (D, 2) each
        heads, curve = train_heads(
            encode.backbone,
            images,
            torch.stack([own[name] for name in images.names]),  # (N, D, 2)
            mosaics=plan_mosaics(images.members, self.epochs, self.mosaic, seed),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            checkpoint=checkpoint,
            description=self.title,
        )
        layers = {f"{PREFIX}{name}": value.cpu() for name, value in heads.state_dict().items()}
        return Learned(layers, curve=curve)

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category: its own name is what the layers are compared with.

        Raises:
            ValueError: the tensors are not layers of this backbone.
        """
        heads = load_heads(encode.backbone, learned.tensors, PREFIX)
        text_embed = encode([category])  # (D, 2)
        scorer = build_trained(
            encode.backbone,
            encode.stack([category]),
            [heads],
            text_embed[None],
            anchors=None,
            temperature=1.0,  # of weights between sets of layers; there is one
            learned_embed=text_embed.T,
        )
        return replace(scorer, compute_weights=None)


METHOD = AprilGan
