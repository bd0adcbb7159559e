"""Frozen CLIPs for tests."""

from fuzzyclip.clip.backbone import load_backbone
from fuzzyclip.clip.sparse_weights import SAMPLE_CONFIG, SAMPLE_WEIGHTS
from fuzzyclip.utils.settings import BackboneSettings

#: What `load_backbone` takes besides the settings.
LOADING = {"allow_unverified", "compiled", "seed"}


def load_clip(model, weights="random", *, device="cpu", **arguments):
    """`load_backbone` on the CPU, of settings and its own arguments by name."""
    settings = {"image_size": 32, "blocks": (1,)} | arguments
    own = {name: settings.pop(name) for name in LOADING & settings.keys()}
    chosen = BackboneSettings(model=str(model), weights=str(weights), **settings)
    return load_backbone(chosen, device=device, **own)


def load_sample():
    """The repository's own CLIP."""
    own = {"image_size": 144, "blocks": (2, 4, 6, 8), "allow_unverified": True}
    return load_clip(SAMPLE_CONFIG, SAMPLE_WEIGHTS, **own)
