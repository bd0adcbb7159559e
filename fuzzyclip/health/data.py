"""Datasets that are there, their test images and their licences."""

import json
from dataclasses import dataclass
from pathlib import Path

from fuzzyclip.datasets import REGISTRY
from fuzzyclip.datasets.meta import META, choose_protocol
from fuzzyclip.datasets.spec import DatasetSpec
from fuzzyclip.health.check import Check

#: Mark of licences that forbid commercial use.
NON_COMMERCIAL = "NC"
#: What the pipeline records of images that it has drawn itself.
DRAWN = "sample"


@dataclass(frozen=True)
class Found:
    """A dataset in a folder: its protocol, and numbers by what the tree says."""

    protocol: str
    images: int
    categories: int


def check_data(folder: Path) -> tuple[list[Check], int]:
    """Which of the paper's datasets lie in a folder, each in one named by its id.

    Args:
        folder: as `data/raw` of the pipeline.

    Returns:
        Checks, and test images of all that are there.
    """
    specs = [spec for spec in REGISTRY.values() if spec.categories]
    missing = [spec.name for spec in specs if not (folder / spec.name).is_dir()]
    advice = "get one: fuzzyclip data prepare NAME --out DIR, or run the pipeline"
    if len(missing) == len(specs):
        return [Check("data", "warn", f"no dataset in {folder}", advice)], 0
    checks, images = [], 0
    for spec in specs:
        if spec.name not in missing:
            check, count = _check_dataset(spec, folder / spec.name)
            checks.append(check)
            images += count
    if missing:
        checks.append(Check("data", "ok", f"not in {folder}: {', '.join(missing)}"))
    return checks, images


def _check_dataset(spec: DatasetSpec, root: Path) -> tuple[Check, int]:
    name = f"data {spec.name}"
    found = find_test_images(spec, root)
    if found is None:
        layouts = ", ".join([*spec.protocols, META])
        advice = f"see what is wrong: fuzzyclip data check {spec.name} {root}"
        return Check(name, "fail", f"{root} has no images as in {layouts}", advice), 0
    said = f"{found.images} test images of {found.categories} of {len(spec.categories)} categories"
    said += f" ({found.protocol})"
    if is_drawn(root):
        return Check(name, "ok", f"{said}; drawn sample, of FuzzyCLIP's own licence"), found.images
    said += f"; licence: {spec.licence}"
    if is_non_commercial(spec.licence):
        return Check(
            name, "warn", f"{said}: not for commercial use", f"read {spec.page}"
        ), found.images
    if not spec.licence.startswith("CC "):
        return Check(name, "warn", said, f"ask before commercial use: {spec.page}"), found.images
    return Check(name, "ok", said), found.images


def find_test_images(spec: DatasetSpec, root: Path) -> Found | None:
    """Test images by the first protocol that the tree fits; opens no image."""
    for name in [*spec.protocols, META]:
        protocol = choose_protocol(spec, name)
        rows = protocol.list_rows(root, tuple(spec.categories)).rows if protocol else []
        tested = [row for row in rows if row.split == "test"]
        if tested:
            return Found(name, len(tested), len({row.category for row in tested}))
    return None


def is_non_commercial(licence: str) -> bool:
    """Whether a licence forbids commercial use, as in `CC BY-NC-SA 4.0`."""
    return NON_COMMERCIAL in licence.replace("-", " ").split()


def is_drawn(root: Path) -> bool:
    """Whether the pipeline's record beside the data says that it has drawn them."""
    record = root.parent.parent / "records" / f"{root.name}.json"
    try:
        return bool(json.loads(record.read_text(encoding="utf-8"))["source"] == DRAWN)
    except (OSError, ValueError, KeyError, TypeError):
        return False
