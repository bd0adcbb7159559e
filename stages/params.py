"""The only reader of params.yaml: validated whole, and shown to a stage only as far as declared."""

import json
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from fuzzyclip.utils.faults import explain
from stages import paths
from stages.schema import Params
from stages.values import resolve
from stages.yaml_file import read_yaml

__all__ = [
    "ParamsError",
    "choose_settings",
    "flatten",
    "list_declared",
    "load_params",
    "read_params",
    "resolve",
]

#: Parameters that decide how work is done or what is permitted, never what comes out: every stage
#: may read them, none depends on them.
OPEN_TO_ALL = ("machine", "allow_unverified")


class ParamsError(ValueError):
    """params.yaml does not say what the pipeline understands."""


S = TypeVar("S", bound=BaseModel)


def choose_settings(settings: type[S], params: Params, key: str, auxiliary: str) -> S:
    """A section's settings, such as efa.train's, for an auxiliary set and the run's source of data.

    The stage declares the section and `data.source`.
    """
    block = attrgetter(key)(params)
    return settings.model_validate(resolve(block, auxiliary, params.data.source, key))


def flatten(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """A tree of settings as dotted keys and text, the values as JSON has them."""
    plain = tree.model_dump(mode="json") if isinstance(tree, BaseModel) else tree
    if isinstance(plain, Mapping) and plain:
        for name, inner in plain.items():
            yield from flatten(inner, f"{key}.{name}".removeprefix("."))
    else:
        yield key, plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


class _Declared:
    """A view of params that raises on what the stage did not declare to DVC."""

    def __init__(self, value: Any, declared: Sequence[str], where: str = "") -> None:
        self._value, self._declared, self._where = value, declared, where

    def _get(self, value: Any, name: str) -> Any:
        where = f"{self._where}.{name}".removeprefix(".")
        if any(where == path or where.startswith(path + ".") for path in self._declared):
            return value
        if any(path.startswith(where + ".") for path in self._declared):
            return _Declared(value, self._declared, where)
        raise ParamsError(
            f"this stage reads the parameter {where!r} but does not declare it; add it to its "
            "params in dvc.yaml"
        )

    def __getattr__(self, name: str) -> Any:
        return self._get(getattr(self._value, name), name)

    def __getitem__(self, name: str) -> Any:
        return self._get(self._value[name], name)


def read_params(path: Path = paths.PARAMS) -> Params:
    """All of params.yaml, validated.

    Raises:
        ParamsError: not YAML, or not what `Params` describes; each fault with its key.
    """
    try:
        data = read_yaml(path, ParamsError)
    except OSError as error:
        raise ParamsError(explain(error)) from error
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        faults = [
            f"  {_name(fault['loc']) or '(whole file)'}: {fault['msg']}" for fault in error.errors()
        ]
        raise ParamsError(f"{path} is not valid:\n" + "\n".join(faults)) from error


def _name(place: Sequence[int | str]) -> str:
    """A fault's key as it stands in the file; pydantic marks a fault of the key itself."""
    return ".".join(str(part) for part in place if part != "[key]")


def list_declared(params: Params, stage: str, key: str = "") -> list[str]:
    """Dotted names of what a stage declares in dvc.yaml, filled in as DVC does."""
    block = read_yaml(paths.PIPELINE)["stages"][stage]
    fillings = {"backbone": params.backbone, "key": key}
    if "foreach" in block:  # "${datasets}", or written out
        each = block["foreach"]
        items = getattr(params, each[2:-1]) if isinstance(each, str) else each
        item = items.get(key) if isinstance(items, Mapping) else key
        inside = item.model_dump() if isinstance(item, BaseModel) else {}
        fillings |= {"item": str(item)} | {f"item.{name}": str(inside[name]) for name in inside}
        block = block["do"]
    # another file's are a table, which params.yaml's are not
    text = "\n".join(name for name in block.get("params", ()) if isinstance(name, str))
    for name, value in fillings.items():
        text = text.replace("${" + name + "}", value)
    return text.splitlines()


def load_params(stage: str, key: str = "", also: Sequence[str] = ()) -> Params:
    """The part of params.yaml that a stage may see: its `params` in dvc.yaml, what is open to all.

    Args:
        stage: by its name in dvc.yaml.
        key: of a stage that there are several of.
        also: what it reads and does not depend on, since it decides no result.
    """
    params = read_params()
    declared = [*list_declared(params, stage, key), *also, *OPEN_TO_ALL]
    return cast(Params, _Declared(params, declared))
