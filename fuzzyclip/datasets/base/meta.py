"""meta.json: the interchange format of APRIL-GAN, AnomalyCLIP, AdaCLIP and their family.

`{"train": {category: [item, ...]}, "test": {...}}` at the dataset root, an item being
`{"img_path", "mask_path", "cls_name", "specie_name", "anomaly"}` with POSIX paths relative to the
root. What we write has a further key "info", which the family's loaders pass over. What was written
on Windows has backslashes between folders, which are read as they are meant; a path that leads out
of the root is refused.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import pandas as pd

from fuzzyclip.datasets.base.spec import (
    GOOD,
    SPLITS,
    DatasetSpec,
    IndexRow,
    Listing,
    Problem,
    Protocol,
)
from fuzzyclip.utils.files import is_file_name, write_text
from fuzzyclip.utils.json_text import format_json, parse_json
from fuzzyclip.utils.tree import DatasetError

#: Name of the protocol that takes the split from the file, for any dataset.
META = "meta"
FILENAME = "meta.json"
ITEM = {"img_path": str, "mask_path": str, "cls_name": str, "specie_name": str, "anomaly": int}


def choose_protocol(spec: DatasetSpec, name: str) -> Protocol:
    """A protocol by name: the dataset's own, or `meta`, which every dataset has.

    No count is published for a `meta.json`: the index compares with every protocol of the dataset.

    Raises:
        DatasetError: the dataset has no such protocol.
    """
    if name == META:
        lister = partial(read_meta, aliases=dict(spec.aliases))
        return Protocol("the split of the data's own meta.json", lister, markers=(FILENAME,))
    if name not in spec.protocols:
        known = ", ".join([*spec.protocols, META])
        raise DatasetError(f"{spec.title} has no protocol {name!r}; there are {known}")
    return spec.protocols[name]


def read_meta(root: Path, categories: Sequence[str], aliases: Mapping[str, str]) -> Listing:
    """Rows of `<root>/meta.json` of some categories, none for all; aliases lead to raw names."""
    path = root / FILENAME
    try:
        data = parse_json(path.read_text(encoding="utf-8-sig"))  # Notepad leaves a mark
    except FileNotFoundError:
        return Listing([], [Problem(str(path), "missing, but the protocol reads it", fatal=True)])
    except (OSError, ValueError, RecursionError) as error:
        return Listing([], [Problem(str(path), f"not readable as JSON ({error})", fatal=True)])
    listing = Listing([], [])
    seen: set[str] = set()
    for split in SPLITS:
        groups = data.get(split, {}) if isinstance(data, dict) else None
        if not isinstance(groups, dict) or not all(isinstance(g, list) for g in groups.values()):
            reason = f'"{split}" is no object of lists'
            return Listing([], [Problem(str(path), reason, fatal=True)])
        for group, items in groups.items():
            category = aliases.get(group, group)
            if categories and category not in categories:
                continue
            for item in items:
                row = read_item(root, item, category, group, split)
                if isinstance(row, str):
                    listing.problems.append(Problem(str(path), row))
                elif row.image_path in seen:
                    reason = f"{row.image_path} is listed twice"
                    listing.problems.append(Problem(str(path), reason))
                else:
                    seen.add(row.image_path)
                    listing.rows.append(row)
    return listing


def read_item(root: Path, item: Any, category: str, group: str, split: str) -> IndexRow | str:
    """An index row, or what is wrong with the item."""
    if not isinstance(item, dict) or not all(
        isinstance(item.get(key), kind) for key, kind in ITEM.items()
    ):
        return f"{split}/{group}: an item lacks one of {', '.join(ITEM)}: {item!r:.200}"
    image, label = item["img_path"], int(item["anomaly"])
    if item["cls_name"] != group or label not in (0, 1):
        return f"{image}: cls_name {item['cls_name']!r} in {group!r}, anomaly {item['anomaly']!r}"
    if not is_file_name(category):
        return f"{image}: the category {category!r} is no file name"
    for key in ("img_path", "mask_path"):
        if is_absolute(item[key]):
            return (
                f"{key} {item[key]!r} begins at the root of a disk: paths must be relative to the "
                f"folder that {FILENAME} lies in"
            )
    defect = (item["specie_name"] or "bad") if label else GOOD
    image, mask = (read_path(root, item[key]) for key in ("img_path", "mask_path"))
    return IndexRow(image, mask, category, split, label, defect)


def is_absolute(path: str) -> bool:
    """True for a path that begins at the root of a disk or on another machine, on any system."""
    windows = PureWindowsPath(path)
    return path.startswith(("/", "\\")) or bool(windows.drive and windows.drive[1:] == ":")


def read_path(root: Path, path: str) -> str:
    """A path with `/` between folders; a file whose name has a backslash is itself."""
    if "\\" not in path or _is_there(root / path):
        return path
    return path.replace("\\", "/")


def _is_there(path: Path) -> bool:
    """True for a file; what no system takes for a path is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def write_meta(frame: pd.DataFrame, info: Mapping[str, Any], path: Path) -> None:
    """Write an index, its table and its info, as meta.json.

    The family's loaders look for `<dataset root>/meta.json`.
    """
    data: dict[str, Any] = {}
    for split in SPLITS:
        chosen = frame[frame["split"] == split]
        data[split] = {
            str(category): [
                {
                    "img_path": row["image_path"],
                    "mask_path": row["mask_path"],
                    "cls_name": row["category"],
                    "specie_name": row["defect"],
                    "anomaly": row["label"],
                }
                for row in rows.to_dict("records")
            ]
            for category, rows in chosen.groupby("category", sort=True)
        }
    data["info"] = dict(info)
    write_text(path, format_json(data, indent=4) + "\n")
