"""A packaged model of a tiny CLIP with random layers, as the stage `package` would make one."""

import json
from dataclasses import replace

import torch
from backbones import load_clip
from families import TEXT
from safetensors.torch import load_file, save_file

from fuzzyclip.method.efa import Heads
from fuzzyclip.method.fuzzyclip import TrainedParts
from fuzzyclip.model.directory import write_model
from fuzzyclip.utils.files import compute_sha256
from fuzzyclip.utils.settings import EfaTest, TextSettings
from fuzzyclip.utils.tensor_files import write_tensors

#: A CLIP small enough for unit tests: every tower of the real kind.
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 64, "head_width": 16, "patch_size": 8},
    "text_cfg": TEXT | {"layers": 12},
}
CLUSTERS = (["nut", "bolt"], ["cable"])
#: Factor on the cosines that RPL is trained with.
TEMPERATURE = 14.285714


def save_weights(path, config):
    """Random weights of a configuration as a file, and the arguments that load them."""
    settings = {"blocks": (1, 2, 4)}
    weights = load_clip(config, **settings).model.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    return settings | {"allow_unverified": True}


def write_parts(folder, backbone, trained_with=None):
    """Files of EFA and RPL with random layers."""
    torch.manual_seed(0)
    tensors = {}
    for number in range(len(CLUSTERS)):
        heads = Heads(len(backbone.blocks), backbone.vision_width, backbone.embed_dim)
        tensors |= {f"cluster{number}.{name}": t for name, t in heads.state_dict().items()}
    learned = torch.nn.functional.normalize(torch.randn(2, backbone.embed_dim), dim=-1)
    fingerprint = trained_with or backbone.fingerprint
    header = {"auxiliary": "drawn", "datasets": ["drawn"], "backbone": fingerprint}
    groups = [{"names": list(names), "stack": " ".join(names)} for names in CLUSTERS]
    efa = header | {"kind": "efa", "settings": {"epochs": 0}, "clusters": groups}
    write_tensors(folder / "efa.safetensors", tensors, efa)
    settings = {"epochs": 0, "temperature": TEMPERATURE}
    rpl = header | {"kind": "rpl", "settings": settings, "stack": "x"}
    write_tensors(folder / "rpl.safetensors", {"text_embed": learned}, rpl)


def make_model(folder, config, *, copy=True, trained_with=None):
    """A model's directory `folder / "model"`, and the backbone it was made with."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.safetensors"
    backbone = load_clip(config, weights, **save_weights(weights, config))
    write_parts(folder, backbone, trained_with)
    write_model(
        folder / "model",
        name="drawn",
        backbone=backbone,
        copy=copy,
        efa=folder / "efa.safetensors",
        rpl=folder / "rpl.safetensors",
        text=TextSettings(ensemble="single"),
        test=EfaTest(),
        licences={"drawn": "none"},
        sources={"drawn": "sample"},
    )
    return folder / "model", backbone


def break_part(path, value):
    """One number of a model's part becomes another; its card knows the file, which is whole."""
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] = value
    save_file(tensors, path)
    card = json.loads((path.parent / "model.json").read_text())
    card["files"][path.name] = compute_sha256(path)
    (path.parent / "model.json").write_text(json.dumps(card))


def break_scorer(monkeypatch, part):
    """Models compute a map, or a score, that is no number."""
    build = TrainedParts.build_scorer

    def build_broken(self, *arguments):
        scorer = build(self, *arguments)
        compute = getattr(scorer, part)
        return replace(scorer, **{part: lambda *given: compute(*given) * torch.nan})

    monkeypatch.setattr(TrainedParts, "build_scorer", build_broken)
