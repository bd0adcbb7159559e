"""SDP+: linear layers on the original path beside CLIP-AD's staged V-V streams (`shared.clip_ad`).

Shapes: B images, T stages, P patches, N = 1 + P tokens, W vision width, D embedding width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from fuzzyclip.baselines.shared.clip_ad import ClipAd, encode_representatives
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.efa_training import train_heads
from fuzzyclip.method.interface import Learned, Trained, TrainingSet, check_training
from fuzzyclip.method.scorer import Scorer


@dataclass(frozen=True)
class SdpPlus(Trained, ClipAd):
    """SDP+ with its settings: those of `ClipAd` and its training's, the published ones.

    The published form trains in the order of the files, so that a batch shows one category and
    mostly one side of it; the mended one draws an order for each epoch.

    Attributes:
        train_density: of the auxiliary set's prompts, like `test_density`; as published for VisA.
        learning_rate: of Adam, with PyTorch's own betas as published.
    """

    train_density: str | tuple[float, int] = "wide"
    epochs: int = 5
    batch_size: int = 8
    learning_rate: float = 1e-4

    name: ClassVar[str] = "sdp_plus"
    title: ClassVar[str] = "SDP+"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_training(self.name, self)
        self.read_density("train_density")

    def fit(
        self, encode: NameEncoder, images: TrainingSet, seed: int, checkpoint: Path | None = None
    ) -> Learned:
        """A linear layer for each stage, and the curve with `loss`, `focal` and `dice`."""
        density = self.read_density("train_density")
        own = {
            name: encode_representatives(encode, name, density)  # (D, 2)
            for name in dict.fromkeys(images.names)
        }

        def load_originals(rows: Sequence[int]) -> Tensor:
            originals = images.load_tokens(rows).chunk(2, dim=1)[1]  # (B, T, N, W)
            return originals[:, :, 1:]  # (B, T, P, W)

        heads, curve = train_heads(
            encode.backbone,
            replace(images, load_tokens=load_originals),
            torch.stack([own[name] for name in images.names]),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            make_optimizer=make_adam,
            shuffled=not self.published,
            levels=self.count_stages(encode.backbone),
            checkpoint=checkpoint,
            description=self.title,
        )
        layers = {name: value.cpu() for name, value in heads.state_dict().items()}
        return Learned(layers, curve=curve)

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """The scorer of one category, with the maps of the trained layers added.

        Raises:
            ValueError: there are no tensors of its layers, or they are those of another model.
        """
        backbone = encode.backbone
        heads = Heads(self.count_stages(backbone), backbone.vision_width, backbone.embed_dim)
        try:
            heads.load_state_dict(dict(learned.tensors))
        except RuntimeError as error:
            raise ValueError(
                f"SDP+ has no trained layers for this model and these settings ({error}): train it "
                "with them"
            ) from error
        return self.build_scorer(encode, category, heads.to(backbone.device))


def make_adam(parameters: Iterator[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Adam with betas 0.9 and 0.999; `fuzzyclip.method.training.make_adam` has 0.5 and 0.999."""
    return torch.optim.Adam(parameters, lr=learning_rate)


METHOD = SdpPlus
