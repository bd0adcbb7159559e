"""Writing files so that a kill leaves either the old file or the new one, never half of one."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    import pandas as pd


def compute_sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def name_other_content(path: Path) -> str:
    """What a download left in a file's place, and the way to mend it; empty for anything else."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "an empty file; fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return (
            "a git LFS pointer, not the file itself; run `git lfs pull` where it was cloned, or "
            "fetch the file from its page"
        )
    if re.match(rb"(\xef\xbb\xbf)?\s*<[!?a-zA-Z]", start) and b"\0" not in start:
        return (
            "a web page, not the file itself (one that asks for a login or consent, or says what "
            "failed); open the address in a browser and fetch the file from there"
        )
    return ""


def is_file_name(name: str) -> bool:
    """Whether a name stays in the folder that it is put into."""
    return bool(name) and not set(name) & set("/\\\0") and name not in (".", "..")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """UTF-8 text with "\\n" line ends on every system."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, data: Any) -> None:
    """Indented JSON, keys in the given order, a final newline."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, frame: "pd.DataFrame", numbers: str = "%.4f") -> None:
    """A table without its index; fractions in the format `numbers`."""
    write_text(path, frame.to_csv(index=False, float_format=numbers, lineterminator="\n"))
