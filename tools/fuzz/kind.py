"""What a kind of input is: how it is drawn, mutated, read, and what reading it may give."""

import json
import random
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Kind(ABC):
    """Inputs of one reader.

    `prepare` is called once a process, before all else; imports that take long belong there.
    """

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Draw whole inputs, and keep what they say; `folder` stays for the whole campaign."""

    @abstractmethod
    def mutate(self, rng: random.Random, place: Path) -> None:
        """Write one mutated input into an empty folder."""

    @abstractmethod
    def read(self, place: Path) -> Any:
        """Read it by the library's own reader."""

    @abstractmethod
    def find_fault(self, place: Path, content: Any) -> str:
        """What is wrong with content that was accepted; empty where it is what the input says."""

    def list_names(self, place: Path) -> list[str]:
        """A refusal must hold one of these: by default a file's name, or the folder's."""
        return [place.name, *(path.name for path in place.rglob("*"))]


@contextmanager
def deep() -> Iterator[None]:
    """What is nested deeply can be written and compared in the block; readers come without it."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(usual)


def find_bend(read: Any, plain: Any, where: str = "") -> str:
    """The first place where a value that was read means something else than the plain one.

    Numbers may have been written as text (1e-3), and yes and no as 1, 0 or words.
    """
    if isinstance(plain, dict) and isinstance(read, dict):
        by_text = {str(key): value for key, value in plain.items()}
        if other := {*map(str, read)} ^ by_text.keys():
            return f"{where}: {sorted(other)[:3]} on one side alone"
        inner = ((read[key], by_text[str(key)], f"{where}.{key}") for key in read)
        return next(filter(None, (find_bend(*each) for each in inner)), "")
    if isinstance(plain, list | tuple) and isinstance(read, list | tuple):
        if len(plain) != len(read):
            return f"{where}: {len(read)} entries of {len(plain)}"
        pairs = enumerate(zip(read, plain, strict=True))
        inner = ((one, other, f"{where}[{number}]") for number, (one, other) in pairs)
        return next(filter(None, (find_bend(*each) for each in inner)), "")
    return "" if _is_same(read, plain) else f"{where}: {read!r:.60} of {plain!r:.60}"


def find_repeated(text: str | bytes) -> str:
    """A key that JSON has twice in one of its objects; empty where there is none."""
    repeated: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        repeated.extend(key for key, count in counts.items() if count > 1)
        return dict(pairs)

    json.loads(text, object_pairs_hook=look)
    return f"the key {repeated[0]!r} is there twice" if repeated else ""


def _is_same(read: Any, plain: Any) -> bool:
    if isinstance(read, bool):
        words = {True: ("true", "1", "yes", "on", "y", "t", "1.0")}.get(
            read, ("false", "0", "no", "off", "n", "f", "0.0")
        )
        return str(plain).lower() in words
    if isinstance(read, int | float) and isinstance(plain, str | int | float):
        try:
            same = plain == read or str(float(plain)) == str(float(read))  # NaN too
            return not isinstance(plain, bool) and same
        except (ValueError, OverflowError):
            return False
    return type(read) is type(plain) and bool(read == plain)
