"""The sample CLIP tells damage on categories that it has not seen."""

import numpy as np
import open_clip
import torch

from fuzzyclip.sample.evaluation_recipes import EVALUATION
from tools.pretrain_sample.pictures import draw_held_out
from tools.pretrain_sample.towers import GRID, encode_images

WHOLE = torch.arange(GRID * GRID)


def test_zero_shot_on_held_out_categories(sample_clip: open_clip.CLIP) -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    held_out = draw_held_out(per_class=12, seed=5)
    sentences = ["a photo of a flawless object.", "a photo of a damaged object."]
    with torch.no_grad():
        normal, damaged = sample_clip.encode_text(tokenizer(sentences), normalize=True)
        areas = {}
        for recipe in EVALUATION:
            pictures, masks = held_out[recipe]
            batch = torch.from_numpy(pictures)
            image, _ = encode_images(sample_clip.visual, batch, WHOLE.expand(len(batch), -1))
            scores = (image @ (damaged - normal)).numpy()
            labels = masks.any(axis=(1, 2))
            areas[recipe] = (scores[labels][:, None] > scores[~labels]).mean()
    assert np.mean(list(areas.values())) > 0.85
