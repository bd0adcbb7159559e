"""The only reader of YAML: plain data of a bounded size, every key once.

A key that stands twice would silently be the later one. References (`*name`) that refer to
references unfold a few lines to gigabytes. Both are refused, as is what is nested too deeply.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from fuzzyclip.utils.faults import naming
from stages.yaml_numbers import know_numbers

#: Bytes of a file, values in it with every reference written out, and levels in one another.
MAX_BYTES, MAX_VALUES, MAX_DEPTH = 16_000_000, 1_000_000, 100
#: Safe, and written in C where PyYAML was built with libyaml: every stage reads params.yaml.
LOADER: Any = know_numbers(getattr(yaml, "CSafeLoader", yaml.SafeLoader))
MERGE = "tag:yaml.org,2002:merge"


class YamlError(ValueError):
    """A file is no YAML that is read here."""


class _Loader(LOADER):  # type: ignore[misc]  # one of two classes
    """Plain data; refuses keys that stand twice in a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Hashable, yaml.Mark] = {}
        for key_node, _ in node.value:
            if key_node.tag == MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise ConstructorError(None, None, "a key that is no text", key_node.start_mark)
            if (first := seen.setdefault(key, key_node.start_mark)) is not key_node.start_mark:
                reason = f"{key!r} stands twice, first in line {first.line + 1}"
                raise ConstructorError(None, None, reason, key_node.start_mark)
        data: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return data


def read_yaml(path: Path, raising: type[ValueError] = YamlError) -> Any:
    """Plain data of a YAML file.

    Raises:
        ValueError: of the class `raising`; not UTF-8, not YAML, a key twice, or too large; names
            the file and the place.
        OSError: it can not be read.
    """
    return parse_yaml(path.read_bytes(), path, raising)


def parse_yaml(
    content: bytes | str, name: Path | str, raising: type[ValueError] = YamlError
) -> Any:
    """`read_yaml` of a file's content, with the name that errors give it."""
    with naming(name, raising, wild=True):
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        if len(text) > MAX_BYTES:
            raise YamlError(f"{len(text):,} characters, more than {MAX_BYTES:,}")
        _check_depth(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _count_values(node, {}) > MAX_VALUES:
                raise YamlError(f"its references (*name) unfold to more than {MAX_VALUES:,} values")
            return loader.construct_document(node)
        finally:
            loader.dispose()


def _check_depth(text: str) -> None:
    """Refuse what is nested too deeply before anything follows it down."""
    depth = 0
    for event in yaml.parse(text, LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise YamlError(f"nested more than {MAX_DEPTH} levels deep")


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Values of a node with every reference written out; each node is looked at once.

    A node that holds itself has no end.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # until it is known: what it would be within itself
        inner = [
            each for pair in node.value for each in (pair if isinstance(pair, tuple) else [pair])
        ]
        known[id(node)] = 1 + sum(_count_values(each, known) for each in inner)
    return known[id(node)]
