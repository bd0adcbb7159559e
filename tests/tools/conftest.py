"""The sample CLIP as it comes with the package."""

import open_clip
import pytest

from fuzzyclip.clip.weights import load_sample_config, load_sample_state_dict


@pytest.fixture(scope="session")
def sample_clip() -> open_clip.CLIP:
    config = load_sample_config()
    clip = open_clip.CLIP(
        embed_dim=config["embed_dim"],
        vision_cfg=config["vision_cfg"],
        text_cfg=config["text_cfg"],
    )
    clip.load_state_dict(load_sample_state_dict(), strict=True)
    return clip.eval()
