"""What is meant by a tower's name: timm's or open_clip's, with the tag of its weights."""

import difflib
from typing import NamedTuple

import open_clip
import timm
from open_clip import pretrained

from fuzzyclip.clip.model_configs import TIMM, describe_timm
from fuzzyclip.towers.folder import TowerError

OPENAI = "openai"


class Meant(NamedTuple):
    """A name that was understood.

    Attributes:
        name: the same for all ways to write it: `timm/NAME`, with `.TAG` where it is not timm's
            first; `MODEL:TAG` of open_clip.
        model: as `fuzzyclip.clip.model_configs.read_model_config` takes it.
        tag: of the weights; empty where nobody publishes any.
    """

    name: str
    model: str
    tag: str

    @property
    def is_timm(self) -> bool:
        """An image tower of timm's alone; else a CLIP."""
        return self.model.startswith(TIMM)


def read_name(name: str) -> Meant:
    """What a person means: `timm/NAME[.TAG]`, timm's bare NAME[.TAG], or `MODEL[:TAG]`.

    Raises:
        ValueError: neither library has it; says what is near.
    """
    bare, _, tag = name.removeprefix(TIMM).partition(".")
    if name.startswith(TIMM) or (":" not in name and timm.is_model(bare)):
        return _read_timm(bare, tag)
    model, _, tag = name.partition(":")
    models = open_clip.list_models()
    if model not in models:
        close = difflib.get_close_matches(model, [*models, *timm.list_models("*vit*")], n=5)
        near = f"close names: {', '.join(close)}; " if close else ""
        raise TowerError(
            f"neither timm nor open_clip has a model {model!r}; {near}fuzzyclip fetch --list "
            "shows some"
        )
    tags = pretrained.list_pretrained_tags_by_model(model)
    if not tag:
        tag = OPENAI if OPENAI in tags else tags[0] if len(tags) == 1 else ""
    if tag not in tags:
        named = f"no weights {tag!r}" if tag else "several weights, or none"
        raise TowerError(
            f"model {model} of open_clip has {named}; name one of its tags, as {model}:TAG "
            f"({', '.join(tags) or 'there is none'})"
        )
    return Meant(f"{model}:{tag}", model, tag)


def _read_timm(bare: str, tag: str) -> Meant:
    describe_timm(bare)  # refuses what timm does not have, and what is no plain ViT
    model = f"{TIMM}{bare}"
    first = timm.get_pretrained_cfg(bare)
    own = (first.tag or "") if first else ""
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{bare}.*")]
    if tag and tag not in (own, *tags):
        raise TowerError(
            f"timm has no weights {tag!r} of {bare}; tags: {', '.join(tags) or 'none'}"
        )
    return Meant(model if tag in ("", own) else f"{model}.{tag}", model, tag or own)
