"""Fixtures that several tests of methods take."""

import pytest

from fuzzyclip.clip.encoding import encode_text
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.utils.settings import TextSettings


@pytest.fixture(scope="session")
def encode(tiny):
    """Names to text features of the tiny CLIP."""
    settings = TextSettings(ensemble="single")
    return NameEncoder(tiny, lambda prompts: encode_text(tiny, prompts), settings)
