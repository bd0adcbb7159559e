"""Zero-shot scores of the sample CLIP on the categories that pretraining never sees."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fuzzyclip.clip.prompts import encode_name
from fuzzyclip.evaluation.metrics import compute_image_metrics
from tools.pretrain_sample.objectives import patch_targets
from tools.pretrain_sample.pictures import Picture, count_cells
from tools.pretrain_sample.towers import GRID, DenseHeads, encode_captions, encode_images
from tools.pretrain_sample.vocabulary import Vocabulary

BATCH = 80


def _encode_all(
    clip: nn.Module, heads: DenseHeads, pictures: Picture
) -> tuple[NDArray[np.float64], Tensor]:
    """Image features (N, D) and the last read-out's patch logits (N, P)."""
    features, patches = [], []
    for start in range(0, len(pictures), BATCH):
        batch = torch.from_numpy(pictures[start : start + BATCH])
        positions = torch.arange(GRID * GRID).expand(len(batch), -1)
        image, tokens = encode_images(clip.visual, batch, positions)
        features.append(image)
        patches.append(heads(tokens)[-1, :, :, 0])
    return torch.cat(features).double().numpy(), torch.cat(patches)


def _auroc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    return compute_image_metrics(scores, labels)["image_auroc"]


@torch.inference_mode()
def score_held_out(
    clip: nn.Module,
    heads: DenseHeads,
    vocabulary: Vocabulary,
    held_out: Mapping[str, tuple[Picture, NDArray[np.bool_]]],
) -> dict[str, float]:
    """The held-out columns of the log, with the method's prompts.

    These are the mean and the lowest image AUROC of prompts with the category's raw name, the mean
    with the name "object", the AUROC of the last dense read-out over all patches, the mean cosine
    between the normal features of two categories' names, and each category's image AUROC.

    Args:
        clip: the sample CLIP.
        heads: its dense read-outs.
        vocabulary: turns prompts into token numbers.
        held_out: category to images and masks, from `draw_held_out`.
    """

    def encode_name_string(name: str) -> NDArray[np.float64]:
        def encode(prompts: list[str] | tuple[str, ...]) -> Tensor:
            return encode_captions(clip, vocabulary.encode(prompts))

        return encode_name(name, encode).double().numpy()  # type: ignore[arg-type]

    clip.eval()
    names = {recipe: encode_name_string(recipe.split("/")[1]) for recipe in held_out}
    anything = encode_name_string("object")
    precise: dict[str, float] = {}
    abstract: dict[str, float] = {}
    scores, truths = [], []
    for recipe, (pictures, masks) in held_out.items():
        labels = np.asarray(masks.any(axis=(1, 2)))
        features, patches = _encode_all(clip, heads, pictures)
        for table, text in ((precise, names[recipe]), (abstract, anything)):
            table[recipe] = _auroc(features @ (text[:, 1] - text[:, 0]), labels)
        cells = torch.from_numpy(np.stack([count_cells(mask) for mask in masks]))
        scores.append(patches.flatten().double().numpy())
        truths.append(patch_targets(cells)[..., 0].flatten().numpy() > 0)
    normal = np.stack([text[:, 0] for text in names.values()])
    cosines = (normal @ normal.T)[np.triu_indices(len(normal), 1)]
    clip.train()
    patch_auroc = _auroc(np.concatenate(scores), np.concatenate(truths))
    return {
        "held_out_precise": float(np.mean([*precise.values()])),
        "held_out_object": float(np.mean([*abstract.values()])),
        "held_out_lowest": min(precise.values()),
        "held_out_patches": patch_auroc,
        "name_cosine": float(cosines.mean()),
        **precise,
    }
