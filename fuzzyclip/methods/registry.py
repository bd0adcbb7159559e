"""The methods by name, made from plain settings."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import partial
from importlib import import_module
from typing import Any

from fuzzyclip.methods.interface import Method

#: Name to module, class and what tells it from others of that class. Modules are imported when a
#: method is made: some need packages that others do not.
METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "clip": ("raw_clip", "Clip", {}),
    "clip_ac": ("raw_clip", "ClipAC", {}),
    "winclip": ("winclip", "WinClip", {}),
    "april_gan": ("april_gan", "AprilGan", {}),
    "clip_surgery": ("clip_surgery", "ClipSurgery", {}),
    "sdp": ("clip_ad", "ClipAd", {"trained": False}),
    "sdp_plus": ("clip_ad", "ClipAd", {"trained": True}),
    "coop": ("coop", "CoOp", {}),
    "cocoop": ("cocoop", "CoCoOp", {}),
    "anomaly_clip": ("anomaly_clip", "AnomalyClip", {}),
    "saa": ("saa", "Saa", {}),
}
#: Fields that are not settings: what a method is called.
NAMES = ("name", "title")


def build_method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """A method with its settings.

    Args:
        name: key of `METHODS`.
        settings: by name, those that differ from the defaults; lists stand for tuples.

    Raises:
        ValueError: no such method or setting, or a value that it refuses; names it.
    """
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}; there are {', '.join(METHODS)}")
    module, kind, fixed = METHODS[name]
    made: Callable[..., Method] = getattr(import_module(f"fuzzyclip.methods.{module}"), kind)
    known = list_settings(name)
    given = dict(settings or {})
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(
            f"{name} has no setting {', '.join(unknown)}; there are {', '.join(known) or 'none'}"
        )
    ready = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
    }
    return partial(made, **fixed)(**ready)


def list_settings(name: str) -> dict[str, Any]:
    """Settings of a method with their defaults."""
    module, kind, fixed = METHODS[name]
    made: Any = getattr(import_module(f"fuzzyclip.methods.{module}"), kind)
    return {
        field.name: field.default if field.default is not MISSING else None
        for field in fields(made)
        if field.init and field.name not in (*NAMES, *fixed)
    }
