"""The methods by name, made from plain settings: FuzzyCLIP, and the baselines in a folder each.

A baseline's folder bears its name, and its `__init__.py` ends with `METHOD`, its class. Modules are
imported when a method is made: some need packages that others do not.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from importlib import import_module
from keyword import iskeyword
from typing import Any

from fuzzyclip.method import OWN
from fuzzyclip.method.interface import Method

#: The other methods of the paper's tables, in their order.
BASELINES = (
    "clip",
    "clip_ac",
    "winclip",
    "april_gan",
    "clip_surgery",
    "sdp",
    "sdp_plus",
    "coop",
    "cocoop",
    "anomaly_clip",
    "saa",
)
#: All methods of the paper's tables.
METHODS = (OWN, *BASELINES)
#: Methods that the paper does not have. Other folders of this package may be methods too.
BEYOND = ("text_free", "fuzzyclip_plus", "nearest", "mutual")
#: What a setting must be, by the type of its default; others are judged by the method.
PLAIN: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number (YAML takes 1e-4 for a text, 1.0e-4 for a number)"),
    tuple: ((tuple,), "a list"),
}


def build_method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """A method with its settings.

    Args:
        name: of `METHODS` or `BEYOND`, or of another folder of this package that has a `METHOD`.
        settings: by name, those that differ from the defaults, as YAML has them; lists stand for
            tuples.

    Raises:
        ValueError: no such method or setting, or a value that it refuses; names it.
    """
    known = list_settings(name)
    given = dict(settings or {})
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(
            f"{name} has no setting {', '.join(unknown)}; there are {', '.join(known) or 'none'}"
        )
    ready = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
    }
    for key, value in ready.items():
        _check_type(f"{name}: {key}", value, known[key])
    fields_of = {f"{key}_" if iskeyword(key) else key: value for key, value in ready.items()}
    method: Method = _find_class(name)(**fields_of)
    return method


def list_settings(name: str) -> dict[str, Any]:
    """Settings of a method with their defaults: the fields of its class.

    A field that would be a word of Python's has `_` after it, as `as_` for the setting `as`.

    Raises:
        ValueError: there is no such method.
    """
    settings: dict[str, Any] = {}
    for field in fields(_find_class(name)):
        if not field.init:
            continue
        name_of = field.name.removesuffix("_")
        if field.default_factory is not MISSING:
            settings[name_of] = field.default_factory()
        else:
            settings[name_of] = None if field.default is MISSING else field.default
    return settings


def read_settings(method: Method) -> dict[str, Any]:
    """All settings of a method by name, as `build_method` takes them."""
    values = asdict(method)  # type: ignore[call-overload]
    return {name.removesuffix("_"): value for name, value in values.items()}


def _find_class(name: str) -> Any:
    """The class of a method: `METHOD` of a folder of this package, or of FuzzyCLIP's module."""
    module = "fuzzyclip.method.fuzzyclip" if name == OWN else f"{__package__}.{name}"
    try:
        # nothing but a folder's own name: no path, no package inside of another
        loaded = import_module(module) if name.isidentifier() else None
    except ModuleNotFoundError as error:
        if error.name != module:  # it is there, and lacks a package
            raise
        loaded = None
    method = getattr(loaded, "METHOD", None)
    if not (isinstance(method, type) and is_dataclass(method)):
        raise ValueError(
            f"there is no method {name!r}; there are {', '.join(METHODS)}, and any other folder of "
            f"fuzzyclip/baselines ({', '.join(BEYOND)}, your own) whose __init__.py ends with "
            "METHOD = its class, a dataclass with the members of "
            "fuzzyclip.method.interface.Method"
        )
    return method


def _check_type(what: str, value: Any, default: Any) -> None:
    if type(default) not in PLAIN:
        return
    types, expected = PLAIN[type(default)]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ValueError(f"{what} must be {expected}, not {value!r}")
