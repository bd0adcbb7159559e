"""What open_clip knows of a model before it is built: its configuration and its input channels."""

import difflib
from pathlib import Path
from typing import Any, TypeVar

import open_clip
from open_clip import pretrained
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from fuzzyclip.clip.config_schema import ModelConfig, Preprocessing
from fuzzyclip.utils.schemas import say_first_fault

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
#: Bytes of a configuration file at most; open_clip's own have up to a thousand.
LARGEST_FILE = 1_000_000

Checked = TypeVar("Checked", bound=BaseModel)


def read_model_config(model: str) -> dict[str, Any]:
    """open_clip's configuration of a model: by name, or from a JSON file of one's own.

    Raises:
        ValueError: no such name or file, or one that says what `config_schema` does not know.
    """
    if model.endswith(".json"):
        content = _read_file(model)
        config = content.get("model_cfg", content)
    else:
        config = open_clip.get_model_config(model)
    if config is None:
        close = difflib.get_close_matches(model, open_clip.list_models(), n=5)
        raise ValueError(f"open_clip has no model {model!r}; close names: {', '.join(close)}")
    _check(ModelConfig, config, f"model {model}")
    return dict(config)


def read_channels(model: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Input mean and standard deviation that belong to a model's weights; OpenAI's if none do.

    Read from open_clip's entry of a pretrained tag, or from a configuration file's
    `preprocess_cfg`. A weights file of a named model gets what all tags of that model agree on:
    all of SigLIP's say 0.5, say.

    Raises:
        ValueError: see `read_model_config`.
    """
    if model.endswith(".json"):
        said = _check(Preprocessing, _read_file(model).get("preprocess_cfg", {}), f"model {model}")
        entries = [said.model_dump(exclude_none=True)]
    else:
        chosen = pretrained.get_pretrained_cfg(model, weights)
        tags = pretrained.list_pretrained_tags_by_model(model)
        entries = [chosen] if chosen else [pretrained.get_pretrained_cfg(model, t) for t in tags]
    known = {
        (tuple(entry.get("mean", OPENAI_MEAN)), tuple(entry.get("std", OPENAI_STD)))
        for entry in entries
    }
    return known.pop() if len(known) == 1 else (OPENAI_MEAN, OPENAI_STD)


def _read_file(model: str) -> dict[str, Any]:
    """A configuration file's content, with no more nesting than a parser bears.

    Raises:
        ValueError: there is none, or it is too large or not a table of JSON.
    """
    path = Path(model).expanduser()
    if not path.is_file():
        raise ValueError(f"model configuration {path}: no such file")
    with path.open("rb") as file:
        text = file.read(LARGEST_FILE + 1)
    if len(text) > LARGEST_FILE:
        raise ValueError(f"model configuration {path}: more than {LARGEST_FILE:,} bytes")
    try:
        content = from_json(text)
    except ValueError as error:
        raise ValueError(f"model configuration {path}: no JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"model configuration {path}: a table is needed, not {content!r:.50}")
    return content


def _check(schema: type[Checked], data: Any, owner: str) -> Checked:
    """Raise the first fault in words."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        said = say_first_fault(error)
        raise ValueError(f"{owner}: its configuration is refused: {said}") from error
