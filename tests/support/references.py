"""Maps and losses as their formulas stand: two softmax channels, plain operations.

Shapes: B images, L blocks, P = h * w patches, D embedding width, H x W pixels.
"""

from collections.abc import Mapping

import torch
from open_clip import SimpleTokenizer
from torch import Tensor
from torch.nn import functional as F

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.method.efa import LOGIT_SCALE

TOKENIZER = SimpleTokenizer()
#: Label smoothing and logarithm guard of the focal loss.
FOCAL_SMOOTH = 1e-5


def compute_focal(probs: Tensor, mask: Tensor, gamma: float = 2.0, alpha: float = 1.0) -> Tensor:
    """Two-class focal loss on softmax maps (eq. 7), mean over all pixels.

    Printed with alpha = 1, eq. 7 has no term for normal pixels (its factor is 1 - alpha). This is
    the form in which both classes carry the weight `alpha`, as APRIL-GAN trains. `probs` are
    (B, 2, H, W), channel 1 anomalous, `mask` (B, H, W) in {0, 1}.
    """
    onehot = torch.stack((1 - mask, mask), dim=1)  # (B, 2, H, W)
    onehot = onehot.clamp(FOCAL_SMOOTH, 1 - FOCAL_SMOOTH)
    p_true = (onehot * probs).sum(dim=1) + FOCAL_SMOOTH  # (B, H, W)
    return (-alpha * (1 - p_true) ** gamma * p_true.log()).mean()


def compute_dice(prob: Tensor, mask: Tensor, epsilon: float = 1.0) -> Tensor:
    """Dice loss (eq. 8) of anomalous probabilities and truth (B, H, W), mean over the images."""
    overlap = (prob * mask).flatten(1).sum(dim=1)  # (B,)
    total = prob.flatten(1).sum(dim=1) + mask.flatten(1).sum(dim=1)  # (B,)
    return (1 - (2 * overlap + epsilon) / (total + epsilon)).mean()


def compute_logits(mapped: Tensor, text_embed: Tensor) -> Tensor:
    """Scaled cosines (B, L, P, 2) of mapped tokens (B, L, P, D) with both text features.

    These are (D, 2) or (B, D, 2), unit columns; tokens have any length.
    """
    if text_embed.dim() == 3:
        text_embed = text_embed.unsqueeze(1)  # (B, 1, D, 2)
    return LOGIT_SCALE * (F.normalize(mapped, dim=-1) @ text_embed)


def upsample_logits(logits: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Patch logits to pixels, (B, L, P, 2) to (B, L, 2, H, W_px), bilinear, corners aligned.

    Logits are upsampled and the softmax follows, as in the code the paper builds on.
    """
    batch, levels = logits.shape[:2]
    planes = logits.permute(0, 1, 3, 2).reshape(batch * levels, 2, *grid)  # (B*L, 2, h, w)
    pixels = F.interpolate(planes, size=size, mode="bilinear", align_corners=True)
    return pixels.view(batch, levels, 2, *size)


def compute_maps(
    mapped: Tensor, text_embed: Tensor, grid: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Softmax maps of every block (eq. 6), (B, L, 2, H, W_px); channel 1 is anomalous."""
    return upsample_logits(compute_logits(mapped, text_embed), grid, size).softmax(dim=2)


def sum_maps(maps: Tensor) -> Tensor:
    """Anomaly map of one cluster: the anomalous channel summed over blocks, (B, H, W_px)."""
    return maps[:, :, 1].sum(dim=1)


def join_margins(margins: Tensor, weights: Tensor | None = None) -> Tensor:
    """Log-odds of the weighted mean of M maps' sigmoids, (M, ...) to (...), float64."""
    fine = margins.double()
    share = fine.new_ones(len(fine)) if weights is None else weights.double()
    above, below = (torch.einsum("m,m...->...", share, side.sigmoid()) for side in (fine, -fine))
    return above.log() - below.log()


def encode_words(
    backbone: Backbone, words: Tensor, rest: str, deep: Mapping[int, Tensor] | None = None
) -> Tensor:
    """Unit text feature (D,) of words (E, V) and what follows, through open_clip's own blocks.

    The prompt is padded to the whole context; `deep` has tokens that replace those after the start
    token, by the number of the block, from 1.
    """
    clip, count = backbone.model, len(words)
    ids = TOKENIZER([" ".join(["x"] * count) + f" {rest}"])
    x = clip.token_embedding(ids)[0].clone()
    x[1 : 1 + count] = words
    x = x + clip.positional_embedding
    mask = torch.full((len(x), len(x)), -torch.inf).triu(1)
    for number, block in enumerate(clip.transformer.resblocks, 1):
        if deep and number in deep:
            x = torch.cat((x[:1], deep[number], x[1 + len(deep[number]) :]))
        x = block(x[None], attn_mask=mask)[0]
    return F.normalize(clip.ln_final(x)[int(ids.argmax())] @ clip.text_projection, dim=0)


def encode_sides(backbone: Backbone, words: Tensor, name: str) -> Tensor:
    """`encode_words` of a name's two prompts of CoOp, (2, D)."""
    rests = (f"good {name}.", f"damaged {name}.")
    return torch.stack([encode_words(backbone, words, rest) for rest in rests])
