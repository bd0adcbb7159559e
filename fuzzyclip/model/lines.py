"""scores.jsonl and scores.csv: what is said of each image, and what damage leaves of it.

Lines are exact, and end with their check sum. The table is for spreadsheets: a text that one would
compute has an apostrophe before it (`fuzzyclip.utils.cells`).
"""

import csv
import io
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fuzzyclip.images.index_file import leads_out
from fuzzyclip.utils.cells import choose_quoting, escape_cell, restore_cell
from fuzzyclip.utils.files import compute_crc, write_text
from fuzzyclip.utils.json_text import format_json, parse_json

log = logging.getLogger(__name__)

#: Columns of scores.csv.
COLUMNS = (
    "image", "category", "image_score", "probability", "label", "decision", "threshold",
    "threshold_method", "map_max", "defect_share", "width", "height", "sha256", "overlay", "error",
)  # fmt: skip
#: Check sum of a line, over the line without it.
SUM = "crc32"
#: What of a damaged line tells whose its files are.
CLAIM = re.compile(rb'"(path|place)": ("(?:[^"\\]|\\.)*")')


@dataclass
class Lines:
    """What a folder of predictions says of its images.

    Attributes:
        rows: whole lines, by the image's full path.
        claims: places that damaged lines name, by the path that they name.
        lost: whether there are, or were, others, of which not even that is known.
    """

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: dict[str, Path] = field(default_factory=dict)
    lost: bool = False


def to_line(row: Mapping[str, Any]) -> str:
    """A row as a line of scores.jsonl, in one line for every reader."""
    return format_json({**row, SUM: _sum(row)}) + "\n"


def read_lines(path: Path, table: Path) -> Lines:
    """The last whole line of each image; what a kill left of a line, and damage, are cut off.

    Args:
        path: scores.jsonl.
        table: scores.csv, which is there where a run came to its end.
    """
    content = path.read_bytes() if path.is_file() else b""
    kept = content[: content.rfind(b"\n") + 1]
    lines = kept.split(b"\n")[:-1]
    rows = [_parse_line(line) for line in lines]
    whole = [row for row in rows if row is not None]
    result = Lines({row["path"]: row for row in whole}, lost=not lines and table.is_file())
    broken = [number for number, row in enumerate(rows) if row is None]
    for number in broken:
        claim = _read_claim(lines[number])
        result.lost |= claim is None
        if claim and claim[0] not in result.rows:
            result.claims[claim[0]] = claim[1]
    if broken:
        numbers = ", ".join(str(number + 1) for number in broken)
        log.warning("%s: lines %s are broken; done again", path, numbers)
    if kept != content or broken:
        write_lines(path, whole)
    return result


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """scores.jsonl as a whole."""
    write_text(path, "".join(map(to_line, rows)))


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """scores.csv."""
    cells = [
        {key: escape_cell(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    ]
    texts = (value for row in cells for value in row.values() if isinstance(value, str))
    text = io.StringIO()
    writer = csv.DictWriter(
        text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n",
        quoting=choose_quoting(texts),
    )  # fmt: skip
    writer.writeheader()
    writer.writerows(cells)
    write_text(path, text.getvalue())


def read_overlays(table: Path) -> list[tuple[str, str]]:
    """SHA-256 of each image of scores.csv that has an overlay, and its path; as far as it reads."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return []
    pairs = ((row.get("sha256"), restore_cell(row.get("overlay") or "")) for row in rows)
    return [(digest, overlay) for digest, overlay in pairs if digest and is_place(overlay)]


def is_place(text: object) -> bool:
    """True for a path that stays below the folder."""
    if not isinstance(text, str):
        return False
    return bool(PurePosixPath(text).name) and not leads_out(text)


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """A row of scores.jsonl, or None where the line is not what was written."""
    try:
        row = parse_json(line)
        whole = isinstance(row, dict) and row.pop(SUM, None) == _sum(row)
    except (ValueError, RecursionError):
        return None
    known = whole and isinstance(row.get("path"), str) and is_place(row.get("place"))
    return row if known else None


def _read_claim(line: bytes) -> tuple[str, Path] | None:
    """Path and place that a damaged line names; None where it does not."""
    try:
        named = {key: json.loads(value) for key, value in CLAIM.findall(line)}
    except ValueError:
        return None
    if b"path" not in named or not is_place(named.get(b"place")):
        return None
    return named[b"path"], Path(named[b"place"])


def _sum(row: Mapping[str, Any]) -> str:
    return compute_crc(json.dumps(row).encode())
