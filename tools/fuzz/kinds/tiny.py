"""A packaged model of a tiny CLIP with random layers, made in a second."""

import json
from pathlib import Path

import torch

from fuzzyclip.clip.backbone import Backbone, load_backbone
from fuzzyclip.method.efa import Heads
from fuzzyclip.model.directory import EFA, RPL, write_model
from fuzzyclip.utils.settings import BackboneSettings, EfaTest, TextSettings
from fuzzyclip.utils.tensor_files import write_tensors

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
CLUSTERS = (("nut", "bolt"), ("cable",))


def load_tiny(folder: Path) -> Backbone:
    """A CLIP with random weights."""
    config = folder / "tiny.json"
    config.write_text(json.dumps(CONFIG))
    settings = BackboneSettings(model=str(config), weights="random", image_size=32, blocks=(1, 2))
    return load_backbone(settings, device="cpu")


def make_model(folder: Path) -> Path:
    """The directory of a model with two clusters; its weights are those of a seed, and no file."""
    backbone = load_tiny(folder)
    tensors: dict[str, torch.Tensor] = {}
    for number in range(len(CLUSTERS)):
        heads = Heads(len(backbone.blocks), backbone.vision_width, backbone.embed_dim)
        tensors |= {f"cluster{number}.{name}": t for name, t in heads.state_dict().items()}
    learned = torch.nn.functional.normalize(torch.randn(2, backbone.embed_dim), dim=-1)
    header = {"auxiliary": "drawn", "datasets": ["drawn"], "backbone": backbone.fingerprint}
    groups = [{"names": list(names), "stack": " ".join(names)} for names in CLUSTERS]
    write_tensors(
        folder / EFA, tensors, header | {"kind": "efa", "settings": {}, "clusters": groups}
    )
    settings = {"epochs": 1, "temperature": 14.285714}
    rpl = header | {"kind": "rpl", "settings": settings, "stack": "x"}
    write_tensors(folder / RPL, {"text_embed": learned}, rpl)
    write_model(
        folder / "tiny",
        name="tiny",
        backbone=backbone,
        copy=False,
        efa=folder / EFA,
        rpl=folder / RPL,
        text=TextSettings(ensemble="single"),
        test=EfaTest(),
        licences={"drawn": "none"},
        sources={"drawn": "sample"},
    )
    return folder / "tiny"
