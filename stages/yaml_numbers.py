"""YAML as DVC reads it, so that the stages see the values that it compares.

PyYAML follows YAML 1.1, to which `1e5` is text; DVC follows 1.2, to which it is a number. Text that
looks like one is quoted when it is written: a category or dataset called `1e5` stays one.
"""

import re
from typing import Any

import yaml

#: Numbers of YAML 1.2 that are text in 1.1: tag, form, first characters.
NUMBERS = (
    ("float", re.compile(r"[-+]?([0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), "-+0123456789"),
    ("int", re.compile(r"0o[0-7]+$"), "0"),
)


def know_numbers(base: Any) -> Any:
    """A reader or writer of YAML that knows all `NUMBERS`."""
    own: Any = type(base.__name__, (base,), {})
    for tag, form, starts in NUMBERS:
        own.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", form, list(starts))
    return own


DUMPER: Any = know_numbers(yaml.SafeDumper)


def dump_yaml(data: Any) -> str:
    """YAML that reads back the same, here and in DVC; keys in the given order."""
    return str(yaml.dump(data, Dumper=DUMPER, sort_keys=False))  # in ASCII: no rare line ends
