"""Frozen CLIPs for tests."""

from safetensors.torch import save_file

from fuzzyclip.clip.backbone import load_backbone
from fuzzyclip.clip.weights import SAMPLE_CONFIG, SAMPLE_WEIGHTS
from fuzzyclip.utils.files import compute_sha256
from fuzzyclip.utils.settings import BackboneSettings


def load_clip(model, weights="random", *, device="cpu", **arguments):
    """`load_backbone` on the CPU, of settings and its own arguments by name."""
    settings = {"image_size": 32, "blocks": (1,)} | arguments
    names = settings.keys() & {"allow_unverified", "compiled", "seed"}
    own = {name: settings.pop(name) for name in names}
    chosen = BackboneSettings(model=str(model), weights=str(weights), **settings)
    return load_backbone(chosen, device=device, **own)


def save_weights(backbone, path):
    """Write a backbone's weights as safetensors; gives their digest."""
    save_file({name: t.contiguous() for name, t in backbone.model.state_dict().items()}, path)
    return compute_sha256(path)


def load_sample():
    """The repository's own CLIP."""
    own = {"image_size": 144, "blocks": (2, 4, 6, 8), "allow_unverified": True}
    return load_clip(SAMPLE_CONFIG, SAMPLE_WEIGHTS, **own)
