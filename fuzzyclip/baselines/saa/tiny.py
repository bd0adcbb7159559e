"""Tiny random stand-ins for SAA+'s three models: they find nothing, and show that everything runs.

They are GroundingDINO, SAM and a ResNet of the real classes with a few narrow layers, made in
memory. The weights are drawn as where training starts. That alone gives boxes of one size on a
grid, which all score next to 1, and masks that hardly follow the image; so that scores differ and
something comes out, this is changed:

- GroundingDINO compares boxes with words by products, which are shrunk by `SHRINK`. Boxes then
  score from about 0.7 to 1, so that the default threshold of `Saa` drops none, and more than half
  of their phrases leave out the object's name. Now and then no box stays, and the map is all 0.
- What moves and sizes its boxes is drawn (`BOX_SPREAD`) in place of 0.
- Its weights and those of SAM's image tower are drawn larger (`SPREAD`).
- Words are spelled by letters, so that the name of any category reads differently.
- The ResNet leaves out the finest stage, on which saliency would take most of an image's time.

Shapes: S image size.
"""

from functools import lru_cache
from string import ascii_lowercase, digits, punctuation
from typing import Any

import timm
import torch
from torch import nn

from fuzzyclip.baselines.saa.models import BoxDetector, Models, Segmenter, import_transformers

#: Boxes a caption.
QUERIES = 8
#: Factor on what the detector's boxes are compared with words by.
SHRINK = 0.5
#: Deviation of weights, 0.02 where training starts; and of those that move and size boxes.
SPREAD, BOX_SPREAD = 0.1, 0.5
#: Pixels that the detector and SAM see, whatever S.
DETECTOR_SIDE, SEGMENTER_SIDE = 96, 64
#: Tokens of BERT, at the rows where GroundingDINO looks for them.
SPECIAL = {
    "[PAD]": 0,
    "[UNK]": 100,
    "[CLS]": 101,
    "[SEP]": 102,
    "[MASK]": 103,
    ".": 1012,
    "?": 1029,
}
#: Row of the first letter.
FIRST = 1100


@lru_cache(maxsize=1)
def build_tiny_models(seed: int, device: torch.device) -> Models:
    """All three, the same for the same seed, as they are drawn on the CPU.

    Torch's global generator is left as it was.

    Raises:
        SaaModelError: `transformers` is not installed.
    """
    transformers = import_transformers()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # that of the CPU alone
        detector = _build_detector(transformers)
        segmenter = _build_segmenter(transformers)
        network = _build_network()
    for model in (detector.model, segmenter.model, network):
        model.eval().requires_grad_(False).to(device)
    return Models(detector, segmenter, network)


def _build_detector(transformers: Any) -> BoxDetector:
    vocabulary = _spell()
    swin = {"image_size": DETECTOR_SIDE, "patch_size": 4, "embed_dim": 12, "depths": [1] * 4}
    swin |= {"num_heads": [1, 1, 2, 2], "window_size": 4, "out_indices": [2, 3, 4]}
    bert = {"vocab_size": max(vocabulary.values()) + 1, "hidden_size": 16, "num_hidden_layers": 1}
    bert |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 256}
    sides = ("encoder", "decoder")
    config = transformers.GroundingDinoConfig(
        backbone_config={"model_type": "swin", **swin},
        text_config={"model_type": "bert", **bert},
        **{f"{side}_ffn_dim": 32 for side in sides},
        **{f"{side}_attention_heads": 2 for side in sides},
        encoder_layers=1,
        decoder_layers=2,  # one alone can not be built
        d_model=32,
        num_queries=QUERIES,
        max_text_len=256,
        init_std=SPREAD,
    )
    model = transformers.GroundingDinoForObjectDetection(config)
    for head in (model.model.encoder_output_bbox_embed, *model.bbox_embed):
        nn.init.normal_(head.layers[-1].weight, std=BOX_SPREAD)
    nn.init.constant_(model.model.decoder.layer_norm.weight, SHRINK)
    edges = {"shortest_edge": DETECTOR_SIDE, "longest_edge": DETECTOR_SIDE}
    processor = transformers.GroundingDinoProcessor(
        transformers.GroundingDinoImageProcessor(size=edges),
        transformers.BertTokenizer(vocab=vocabulary),
    )
    return BoxDetector(model, processor)


def _build_segmenter(transformers: Any) -> Segmenter:
    width = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 16}
    patches = {"image_size": SEGMENTER_SIDE, "patch_size": 8}
    tower = {"output_channels": 16, "window_size": 4, "num_pos_feats": 8}
    config = transformers.SamConfig(
        vision_config={
            **(width | patches | tower),
            "global_attn_indexes": [1],
            "initializer_range": SPREAD,
        },
        prompt_encoder_config={**patches, "hidden_size": 16, "mask_input_channels": 4},
        mask_decoder_config={**width, "iou_head_hidden_dim": 16},
    )
    processor = transformers.SamProcessor(
        transformers.SamImageProcessor(
            size={"longest_edge": SEGMENTER_SIDE},
            pad_size={"height": SEGMENTER_SIDE, "width": SEGMENTER_SIDE},
        )
    )
    return Segmenter(transformers.SamModel(config), processor)


def _build_network() -> nn.Module:
    network: nn.Module = timm.create_model(
        "wide_resnet50_2",
        pretrained=False,
        features_only=True,
        out_indices=(2, 3),
        layers=(1, 1, 1, 1),
        channels=(8, 16, 32, 64),
        stem_width=16,
    )
    return network


def _spell() -> dict[str, int]:
    """A vocabulary of letters, digits and signs, first and within a word; the rest is [UNK]."""
    signs = [sign for sign in ascii_lowercase + digits + punctuation if sign not in SPECIAL]
    pieces = [*signs, *(f"##{sign}" for sign in ascii_lowercase + digits)]
    return SPECIAL | {piece: FIRST + row for row, piece in enumerate(pieces)}
