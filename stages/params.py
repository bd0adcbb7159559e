"""The only reader of params.yaml: validated whole, and shown to a stage only as far as declared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ValidationError

from stages import paths
from stages.schema import Params

T = TypeVar("T")

#: Parameters that decide how work is done or what is permitted, never what comes out: every stage
#: may read them, none depends on them.
OPEN_TO_ALL = ("machine", "allow_unverified")


class ParamsError(ValueError):
    """params.yaml does not say what the pipeline understands."""


def choose(table: Mapping[str, T], name: str, key: str) -> T:
    """The entry for an auxiliary set, or the table's `default`.

    Raises:
        ParamsError: neither is there.
    """
    if name in table:
        return table[name]
    if "default" in table:
        return table["default"]
    raise ParamsError(f"params.yaml: {key} has no entry for {name!r} and no default")


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
            f"this stage reads the parameter {where!r} but does not declare it; add it to the "
            "stage's PARAMS and to its params in dvc.yaml"
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
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ParamsError(f"{path}: {error}") from error
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        faults = [
            f"  {'.'.join(map(str, fault['loc'])) or '(whole file)'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise ParamsError(f"{path} is not valid:\n" + "\n".join(faults)) from error


def load_params(declared: Sequence[str], **keys: str) -> Params:
    """What a stage may see of params.yaml.

    Args:
        declared: the stage's PARAMS, the same as its `params` in dvc.yaml; `${name}` is filled
            from `keys` or from the top level of params.yaml.
        keys: values for the declared names, e.g. `key="visa"`.
    """
    params = read_params()
    names = {"backbone": params.backbone, **keys}
    filled = list(declared)
    for name, value in names.items():
        filled = [path.replace("${" + name + "}", value) for path in filled]
    return cast(Params, _Declared(params, [*filled, *OPEN_TO_ALL]))
