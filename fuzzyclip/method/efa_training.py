"""Training linear layers on patch tokens and masks: EFA's, and those of the peers that have them.

Of a softmax over two channels only one number is free: the anomalous probability is the sigmoid of
the logits' difference, and differences can be taken before upsampling, which is linear. Focal and
dice then are functions of one plane a block. Written in separate operations they would travel
through memory some thirty times, which takes longer than the layers' own products; here each
image's planes stay in the processor's cache while value and slope are computed together.

Shapes: N images, B of a batch, L levels of tokens or taken blocks, P patches, W vision width,
D embedding width, S image size.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.efa import Heads, compute_margins, upsample
from fuzzyclip.method.interface import TrainingSet
from fuzzyclip.method.training import CurveRow, MakeOptimizer, make_adam, train
from fuzzyclip.method.training_set import MosaicPlan, plan_mosaics, select_mosaics
from fuzzyclip.utils.files import BrokenFileError
from fuzzyclip.utils.prefetch import send
from fuzzyclip.utils.settings import EfaTraining
from fuzzyclip.utils.tensor_files import read_tensors, write_tensors

log = logging.getLogger(__name__)

#: Focusing exponent of the focal loss (eq. 7).
GAMMA = 2
#: Smoothing of the labels, and guard of the logarithm, as APRIL-GAN trains.
FOCAL_SMOOTH = 1e-5
#: Added to numerator and denominator of dice (eq. 8).
DICE_SMOOTH = 1.0
#: Steps below which a cluster has too few images for its training: a quarter of the 102 that the
#: smallest cluster of the paper, VisA's four boards, makes in two epochs of batches of 16. Adam
#: moves an entry by about its learning rate a step, so such layers stay near their start.
FEW_STEPS = 25
#: Shares of the first epoch after which layers are kept too, where all are kept: the paper says
#: that fuzzy prompts converge "within less than one epoch" (Figure 1).
FIRST_EPOCH = (0.25, 0.5, 0.75)


def train_heads(
    backbone: Backbone,
    images: TrainingSet,
    text_embed: Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    levels: int | None = None,
    mosaics: MosaicPlan | None = None,
    make_optimizer: MakeOptimizer = make_adam,
    shuffled: bool = True,
    checkpoint: Path | None = None,
    after_epoch: Callable[[float, Heads], None] | None = None,
    shares: Sequence[float] = (),
    description: str = "EFA",
) -> tuple[Heads, list[CurveRow]]:
    """Train one layer for each level of tokens, by focal and dice over their maps.

    Args:
        backbone: the frozen CLIP.
        images: what is trained on, N rows; their tokens are what the layers read, (B, L, P, W).
        text_embed: (D, 2), one prompt for all (a stack, "object"), or (N, D, 2), one for each image
            (the precise prompts of Table 4).
        epochs, batch_size, learning_rate, make_optimizer, shuffled, checkpoint, description: see
            `train`.
        seed: of the layers at the start and of the order of images.
        levels: L; None has one layer for each of the backbone's taken blocks.
        mosaics: images that a mosaic replaces, by epoch; None has no mosaics.
        after_epoch: called with the epoch, from 1, and the layers as they are then.
        shares: of the first epoch after which it is called too, see `train`.

    Returns:
        The trained layers, and the curve with `loss`, `focal` and `dice` of each step.

    Raises:
        TrainingError: a loss, a parameter or the optimizer's state is not finite.
    """
    torch.manual_seed(seed)
    count = len(backbone.blocks) if levels is None else levels
    heads = Heads(count, backbone.vision_width, backbone.embed_dim).to(backbone.device)
    text, plan = text_embed.to(backbone.device), mosaics or {}

    def load(rows: Sequence[int], epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        tokens, masks, order = read_batch(images, plan, rows, epoch)
        prompt = text if text.dim() == 2 else text[order]  # (D, 2) or (B, D, 2)
        return tokens, send(masks, backbone.device).float(), prompt

    def compute_losses(batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        return compute_alignment_losses(heads, *batch, backbone.grid)

    curve = train(
        heads,
        load,
        compute_losses,
        count=len(images),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        make_optimizer=make_optimizer,
        shuffled=shuffled,
        checkpoint=checkpoint,
        after_epoch=None if after_epoch is None else lambda epoch: after_epoch(epoch, heads),
        shares=shares,
        description=description,
    )
    return heads, curve


def read_batch(
    images: TrainingSet, mosaics: MosaicPlan, rows: Sequence[int], epoch: int
) -> tuple[Tensor, Tensor, list[int]]:
    """Tokens (B, L, P, W) and masks (B, S, S), bool, of one step, and the order of its rows.

    Plain images come first, then mosaics, each in the place of its row; a loss is a mean over the
    batch, so that the order does not matter.
    """
    plain = [row for row in rows if (epoch, row) not in mosaics]
    mixed = [row for row in rows if (epoch, row) in mosaics]
    parts = [(images.load_tokens(plain), images.load_masks(plain))] if plain else []
    if mixed:
        parts.append(images.load_mosaics([mosaics[epoch, row] for row in mixed]))
    tokens, masks = zip(*parts, strict=True)
    return torch.cat(tokens), torch.cat(masks), plain + mixed


def train_clusters(
    encode: NameEncoder,
    images: TrainingSet,
    clusters: Sequence[Sequence[str]],
    settings: EfaTraining,
    seed: int,
    *,
    checkpoints: Sequence[Path] | None = None,
    description: str = "EFA",
) -> tuple[dict[str, Tensor], list[CurveRow]]:
    """EFA: one set of layers for each cluster of names, trained on that cluster's images.

    With `settings.keep` `all` the layers as they were within the first epoch (`FIRST_EPOCH`) and
    after each earlier epoch come along. They are written beside the checkpoint at once: a training
    that goes on after a kill has passed some already. Where one of those is broken or gone by then,
    the training begins anew.

    Args:
        encode: names to text features.
        images: of all clusters.
        clusters: names of each cluster, of `images.names`.
        settings: of the training.
        seed: of mosaics, layers at the start and the order of images.
        checkpoints: a file for each cluster that a killed training goes on from; the caller removes
            them and what `list_kept` names.
        description: of the progress bar, and in errors.

    Returns:
        Layers as `cluster0.*`, earlier ones as `epoch0.25.cluster0.*` and `epoch1.cluster0.*`; and
        the curve of all clusters, each step with its `cluster`.
    """
    for short in find_short_clusters(images.names, clusters, settings):
        log.warning(
            "%s: the cluster {%s} has too few images for its training: %d steps, fewer than %d; "
            "raise efa.train.epochs, or set csp.partition to fewer clusters",
            description, ", ".join(short["names"]), short["steps"], FEW_STEPS,
        )  # fmt: skip
    plan = plan_mosaics(images.members, settings.epochs, settings.mosaic, seed)
    tensors: dict[str, Tensor] = {}
    curve: list[CurveRow] = []
    for number, names in enumerate(clusters):
        rows = [row for row, name in enumerate(images.names) if name in names]
        own = images.select(rows)
        members = ", ".join(names)
        log.info("%s, cluster %d: %d images of %s", description, number, len(rows), members)
        epochs, steps = _train_cluster(
            encode.backbone,
            own,
            encode_targets(encode, settings.prompt, names, own),
            settings,
            seed,
            select_mosaics(plan, rows),
            checkpoints[number] if checkpoints else None,
            f"{description}/{number}",
        )
        tensors |= {
            f"{epoch}cluster{number}.{name}": value
            for epoch, layers in epochs.items()
            for name, value in layers.items()
        }
        curve += [{"cluster": number} | step for step in steps]
    return tensors, curve


def find_short_clusters(
    owners: Sequence[str], clusters: Sequence[Sequence[str]], settings: EfaTraining
) -> list[dict[str, Any]]:
    """Clusters whose training makes fewer than `FEW_STEPS` steps: `names` and `steps` of each.

    Args:
        owners: each training image's category, by its name in prompts.
        clusters: names of each cluster.
        settings: of the training.
    """
    counts = [sum(owner in names for owner in owners) for names in clusters]
    steps = [settings.epochs * math.ceil(count / settings.batch_size) for count in counts]
    return [
        {"names": list(names), "steps": made}
        for names, made in zip(clusters, steps, strict=True)
        if made < FEW_STEPS
    ]


def encode_targets(
    encode: NameEncoder, prompt: str, names: Sequence[str], images: TrainingSet
) -> Tensor:
    """Features that a cluster's layers are trained against: (D, 2), or each image's (N, D, 2)."""
    if prompt == "precise":
        own = {name: encode([name]) for name in names}
        return torch.stack([own[name] for name in images.names])
    return encode(["object"] if prompt == "object" else names)


def list_moments(settings: EfaTraining) -> list[float]:
    """Earlier moments of which layers are kept, in epochs, ascending; none unless all are kept."""
    return [*FIRST_EPOCH, *range(1, settings.epochs)] if settings.keep == "all" else []


def list_kept(checkpoint: Path, settings: EfaTraining) -> dict[float, Path]:
    """Files of the layers of each earlier moment."""
    return {
        moment: checkpoint.with_name(f"{checkpoint.stem}-epoch{moment:g}.safetensors")
        for moment in list_moments(settings)
    }


def _train_cluster(
    backbone: Backbone,
    images: TrainingSet,
    text_embed: Tensor,
    settings: EfaTraining,
    seed: int,
    mosaics: MosaicPlan,
    checkpoint: Path | None,
    description: str,
) -> tuple[dict[str, Mapping[str, Tensor]], list[CurveRow]]:
    """Layers by the prefix of their moment, the last one's without, and the curve."""
    moments = list_moments(settings)
    files = {} if checkpoint is None else list_kept(checkpoint, settings)
    held: dict[float, Mapping[str, Tensor]] = {}

    def keep(moment: float, heads: Heads) -> None:
        if moment in files:
            write_tensors(files[moment], dict(heads.state_dict()), {})
        elif moment in moments:
            held[moment] = {name: value.clone() for name, value in heads.state_dict().items()}

    def fit() -> tuple[Heads, list[CurveRow]]:
        return train_heads(
            backbone,
            images,
            text_embed,
            mosaics=mosaics,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=seed,
            checkpoint=checkpoint,
            after_epoch=keep,
            shares=[moment for moment in moments if moment < 1],
            description=description,
        )

    heads, curve = fit()
    try:
        held |= {moment: read_tensors(path)[0] for moment, path in files.items()}
    except (BrokenFileError, FileNotFoundError) as error:
        log.warning("%s; the training of %s begins anew", error, description)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        heads, curve = fit()
        held |= {moment: read_tensors(path)[0] for moment, path in files.items()}
    return {"": heads.state_dict()} | {f"epoch{n:g}.": held[n] for n in sorted(held)}, curve


def compute_alignment_losses(
    heads: Heads,
    patch_tokens: Tensor,
    masks: Tensor,
    text_embed: Tensor,
    grid: tuple[int, int],
) -> dict[str, Tensor]:
    """Focal plus dice, summed over the blocks without weights (eqs. 7 and 8).

    Printed with alpha = 1, eq. 7 has no term for normal pixels (its factor is 1 - alpha). This is
    the form in which both classes carry the same weight, as APRIL-GAN trains: the mean over pixels
    of -(1 - p)^2 log p with the probability p of the true class. Dice is that of the anomalous
    channel, by image, then the mean over the batch.

    Args:
        heads: one cluster's layers.
        patch_tokens: (B, L, P, W).
        masks: (B, S, S) in {0, 1}.
        text_embed: (D, 2), the cluster's prompt, or (B, D, 2), each image's own.
        grid: patches down and across.

    Returns:
        As `compute_map_losses` gives them.
    """
    margins = [
        compute_margins(layer(patch_tokens[:, block]), text_embed)
        for block, layer in enumerate(heads.layers)
    ]
    return compute_map_losses(torch.stack(margins, dim=1), masks, grid)


def compute_map_losses(margins: Tensor, masks: Tensor, grid: tuple[int, int]) -> dict[str, Tensor]:
    """Focal plus dice of margins of patches, (B, L, P), as `compute_alignment_losses` says.

    Args:
        margins: anomalous minus normal logits.
        masks: (B, S, S) in {0, 1}.
        grid: patches down and across.

    Returns:
        `loss`, which has a gradient, and its parts `focal` and `dice`, which have none.
    """
    size = (masks.shape[-2], masks.shape[-1])
    planes = upsample(margins, grid, size)  # (B, L, S, S)
    loss, focal, dice = _FocalDice.apply(planes, masks)
    return {"loss": loss, "focal": focal, "dice": dice}


class _FocalDice(torch.autograd.Function):
    """Planes of logit differences (B, L, S, S) and masks (B, S, S) to loss, focal and dice."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slopes = torch.empty_like(planes)
        focal, dice = planes.new_zeros(()), planes.new_zeros(())
        for plane, mask, slope in zip(planes, masks, slopes, strict=True):
            part, whole = _measure_image(plane, mask, slope)
            focal += part
            dice += whole
        for summed in (focal, dice, slopes):  # over images; the losses are means
            summed /= len(planes)
        ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(focal, dice)
        return focal + dice, focal, dice

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * gradients[0], None


def _measure_image(plane: Tensor, mask: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Focal and dice of one image, summed over its blocks; their derivative goes into `slope`.

    Shapes: `plane`, logit differences, and `slope` (L, S, S); `mask` (S, S) in {0, 1}.
    """
    keep = 1 - 2 * FOCAL_SMOOTH
    sign = 2 * mask - 1
    true = (plane * sign).sigmoid_()  # (L, S, S), probability of the true class
    bent = true * (1 - true)  # d(true) / d(plane * sign)
    prob = (true - 0.5).mul_(sign).add_(0.5)  # of the anomalous class
    true.mul_(keep).add_(2 * FOCAL_SMOOTH)
    log, rest = true.log(), 1 - true
    focal = -(rest.square() * log).mean(dim=(-2, -1)).sum()
    # d/dt of -(1 - t)^2 log t is (1 - t) (2 log t - (1 - t) / t)
    torch.mul(rest, log.mul_(GAMMA).sub_(rest / true), out=slope)
    slope.mul_(sign * (keep / mask.numel()))

    overlap = (prob * mask).sum(dim=(-2, -1))  # (L,)
    total = prob.sum(dim=(-2, -1)) + mask.sum() + DICE_SMOOTH
    covered = (2 * overlap + DICE_SMOOTH) / total
    dice = (1 - covered).sum()
    slope += (covered / total)[:, None, None]
    slope.addcmul_(mask, (-2 / total)[:, None, None])
    slope.mul_(bent)
    return focal, dice
