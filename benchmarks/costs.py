"""Costs of the method, from shapes alone: operations, bytes, and seconds on a device.

A multiplication with its addition counts as two floating-point operations (FLOPs), as
`torch.utils.flop_counter` counts; only matrix products and convolutions are counted in the towers.
Norms, softmax and activations move memory more than they compute and are part of a device's
efficiency. docs/scale.md puts numbers in.

Shapes: S image size, N tokens, P patches, W vision width, D embedding width, L taken blocks,
K clusters, T tokens of a prompt, V text width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fuzzyclip.features.shards import count_bytes

#: Operations on one pixel of one cluster's and block's plane, an estimate that hardly matters:
#: bilinear 8, two sigmoids 8, two weighted sums 4.
PIXEL_OPERATIONS = 20
#: Values read and written in one block for each token and channel, when each operation reads its
#: inputs and writes its result once and attention keeps its table to itself: two norms 4, queries,
#: keys and values 4, attention 4, its projection 2, both sums 6, MLP 18 with its hidden layer.
BLOCK_TRAFFIC = 38


@dataclass(frozen=True)
class VisionShape:
    """A plain ViT image tower with one class token.

    Attributes:
        image_size: S, pixels.
        patch_size: side of a patch, pixels.
        width: W.
        depth: number of blocks.
        embed_dim: D.
        mlp_ratio: hidden width of a block's MLP over W.
    """

    image_size: int
    patch_size: int
    width: int
    depth: int
    embed_dim: int
    mlp_ratio: float = 4.0

    @property
    def patches(self) -> int:
        """P."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        """N: the patches and the class token."""
        return self.patches + 1


@dataclass(frozen=True)
class TextShape:
    """A text transformer: V, number of blocks, D."""

    width: int
    depth: int
    embed_dim: int
    mlp_ratio: float = 4.0


@dataclass(frozen=True)
class Device:
    """Bounds of a computation.

    Attributes:
        name: for tables.
        flops: peak FLOPs a second in the type that is computed in.
        bandwidth: bytes a second to and from its memory.
        efficiency: share of both that is reached, in (0, 1].
    """

    name: str
    flops: float
    bandwidth: float
    efficiency: float = 1.0


def count_block_flops(tokens: int, width: int, mlp_ratio: float = 4.0) -> int:
    """One transformer block on one sequence: 4 N W^2 + 2 N^2 W + 2 r N W^2 products, twice that.

    Causal attention costs the same: kernels that skip the masked half are not counted on.
    """
    projections = 4 * tokens * width**2
    attention = 2 * tokens**2 * width
    mlp = round(2 * mlp_ratio * tokens * width**2)
    return 2 * (projections + attention + mlp)


def count_image_flops(vision: VisionShape) -> int:
    """One image through the image tower, class feature and patch tokens."""
    embedding = 2 * vision.patches * 3 * vision.patch_size**2 * vision.width
    block = count_block_flops(vision.tokens, vision.width, vision.mlp_ratio)
    return embedding + vision.depth * block + 2 * vision.width * vision.embed_dim


def count_image_traffic(vision: VisionShape, itemsize: int = 2) -> int:
    """Bytes of activations that one image moves through memory, at least; see `BLOCK_TRAFFIC`.

    Weights are left out: a batch shares them.
    """
    return BLOCK_TRAFFIC * vision.depth * vision.tokens * vision.width * itemsize


def count_prompt_flops(text: TextShape, tokens: int) -> int:
    """One prompt of T tokens, start and end included, through the text tower."""
    block = count_block_flops(tokens, text.width, text.mlp_ratio)
    return text.depth * block + 2 * text.width * text.embed_dim


def count_layer_flops(vision: VisionShape, blocks: int, clusters: int) -> int:
    """EFA's linear layers on one image: L x K products of (P, W) with (W, D)."""
    return 2 * blocks * clusters * vision.patches * vision.width * vision.embed_dim


def count_map_flops(vision: VisionShape, blocks: int, clusters: int) -> int:
    """From one image's mapped tokens to its map: two products of length D a token, then pixels."""
    planes = blocks * clusters
    cosines = 4 * planes * vision.patches * vision.embed_dim
    return cosines + PIXEL_OPERATIONS * planes * vision.image_size**2


def count_step_flops(vision: VisionShape, blocks: int, batch_size: int) -> int:
    """EFA's layers in one training step of one cluster: forward, and the weights' gradient.

    Tokens come from a frozen tower, so that no gradient of the input is taken: twice the forward
    pass, not three times.
    """
    return 2 * batch_size * count_layer_flops(vision, blocks, clusters=1)


def count_feature_bytes(vision: VisionShape, blocks: int, dtype: str | None) -> int:
    """Bytes that the feature store keeps of one image.

    Args:
        vision: the image tower.
        blocks: L.
        dtype: of the patch tokens, see `shards.DTYPES`; None keeps class features alone.
    """
    embed = 4 * vision.embed_dim
    if dtype is None:
        return embed
    return embed + count_bytes(blocks * vision.patches, vision.width, dtype)


def count_store_bytes(
    vision: VisionShape, blocks: int, dtype: str, tokens: str, images: int, auxiliary: int
) -> int:
    """Bytes of a feature store.

    Args:
        vision: the image tower.
        blocks: L.
        dtype: of the patch tokens.
        tokens: of which images they are kept: `all`, `auxiliary` or `none`.
        images: all images.
        auxiliary: those among them that belong to auxiliary sets.

    Raises:
        ValueError: another word for `tokens`.
    """
    counts = {"all": images, "auxiliary": auxiliary, "none": 0}
    if tokens not in counts:
        raise ValueError(f"tokens must be one of {', '.join(counts)}, not {tokens!r}")
    kept = counts[tokens]
    full = count_feature_bytes(vision, blocks, dtype)
    return kept * full + (images - kept) * count_feature_bytes(vision, blocks, None)


def count_map_bytes(image_size: int, images: int = 1, itemsize: int = 4) -> int:
    """Bytes of anomaly maps S x S; float32 unless said otherwise."""
    return images * image_size**2 * itemsize


def estimate_seconds(flops: float, traffic: float, device: Device) -> float:
    """Seconds on a device: whichever is slower, computing or moving memory (the roofline model).

    Source: Williams, Waterman, Patterson, "Roofline", CACM 2009.
    """
    return max(flops / device.flops, traffic / device.bandwidth) / device.efficiency


def calibrate(
    name: str, flops: Sequence[float], seconds: Sequence[float], bandwidth: float
) -> Device:
    """A device whose speed was measured rather than promised; its efficiency is 1.

    Args:
        name: for tables.
        flops: operations of each measurement.
        seconds: how long each took.
        bandwidth: bytes a second; infinity leaves memory out.

    Raises:
        ValueError: nothing was measured.
    """
    if not seconds or not sum(seconds):
        raise ValueError(f"{name}: nothing was measured")
    return Device(name, sum(flops) / sum(seconds), bandwidth)
