"""What open_clip knows of a model before it is built: its configuration and its input channels."""

import difflib
import json
from pathlib import Path
from typing import Any

import open_clip
from open_clip import pretrained

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def read_model_config(model: str) -> dict[str, Any]:
    """open_clip's configuration of a model: by name, or from a JSON file of one's own.

    Raises:
        ValueError: no such name or file; close names are listed.
    """
    if model.endswith(".json"):
        path = Path(model).expanduser()
        if not path.is_file():
            raise ValueError(f"model configuration {path}: no such file")
        content: dict[str, Any] = json.loads(path.read_text())
        config: dict[str, Any] = content.get("model_cfg", content)
        return config
    named = open_clip.get_model_config(model)
    if named is None:
        close = difflib.get_close_matches(model, open_clip.list_models(), n=5)
        raise ValueError(f"open_clip has no model {model!r}; close names: {', '.join(close)}")
    return dict(named)


def read_channels(model: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Input mean and standard deviation that belong to a model's weights; OpenAI's if none do.

    Read from open_clip's entry of a pretrained tag, or from a configuration file's
    `preprocess_cfg`. A weights file of a named model gets what all tags of that model agree on:
    all of SigLIP's say 0.5, say.
    """
    if model.endswith(".json"):
        entries = [json.loads(Path(model).expanduser().read_text()).get("preprocess_cfg", {})]
    else:
        chosen = pretrained.get_pretrained_cfg(model, weights)
        tags = pretrained.list_pretrained_tags_by_model(model)
        entries = [chosen] if chosen else [pretrained.get_pretrained_cfg(model, t) for t in tags]
    known = {
        (tuple(entry.get("mean", OPENAI_MEAN)), tuple(entry.get("std", OPENAI_STD)))
        for entry in entries
    }
    return known.pop() if len(known) == 1 else (OPENAI_MEAN, OPENAI_STD)
