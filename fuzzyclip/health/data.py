"""Datasets that are there, their test images and their licences."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fuzzyclip.health.installation import Check

if TYPE_CHECKING:  # datasets need pandas, whose absence is for another check to tell
    from fuzzyclip.datasets.base.spec import DatasetSpec

#: Mark of licences that forbid commercial use.
NON_COMMERCIAL = "NC"
#: The source that the pipeline records of images that it has drawn itself.
DRAWN = "sample"


@dataclass(frozen=True)
class CountedImages:
    """A dataset's test images in a folder, counted in its tree by a protocol."""

    protocol: str
    images: int
    categories: int


def check_data(folder: Path) -> tuple[list[Check], int]:
    """Checks of the paper's datasets, folders named by their ids; the number of test images."""
    from fuzzyclip.datasets import REGISTRY

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


def _check_dataset(spec: "DatasetSpec", root: Path) -> tuple[Check, int]:
    from fuzzyclip.datasets.base.meta import META

    name = f"data {spec.name}"
    tested = find_test_images(spec, root)
    if tested is None:
        layouts = ", ".join([*spec.protocols, META])
        advice = f"see what is wrong: fuzzyclip data check {spec.name} {root}"
        return Check(name, "fail", f"{root} has no images as in {layouts}", advice), 0
    counts = f"{tested.images} test images of {tested.categories} of {len(spec.categories)} "
    counts += f"categories ({tested.protocol})"
    if is_drawn(root):
        check = Check(name, "ok", f"{counts}; drawn sample, of FuzzyCLIP's own licence")
        return check, tested.images
    counts += f"; licence: {spec.licence}"
    if is_non_commercial(spec.licence):
        check = Check(name, "warn", f"{counts}: not for commercial use", f"read {spec.page}")
    elif not spec.licence.startswith("CC "):
        check = Check(name, "warn", counts, f"ask before commercial use: {spec.page}")
    else:
        check = Check(name, "ok", counts)
    return check, tested.images


def find_test_images(spec: "DatasetSpec", root: Path) -> CountedImages | None:
    """Test images by the first protocol that the tree fits; opens no image."""
    from fuzzyclip.datasets.base.meta import META, choose_protocol

    for name in [*spec.protocols, META]:
        rows = choose_protocol(spec, name).list_rows(root, tuple(spec.categories)).rows
        tested = [row for row in rows if row.split == "test"]
        if tested:
            return CountedImages(name, len(tested), len({row.category for row in tested}))
    return None


def is_non_commercial(licence: str) -> bool:
    """True of a licence that forbids commercial use, as in `CC BY-NC-SA 4.0`."""
    return NON_COMMERCIAL in licence.replace("-", " ").split()


def is_drawn(root: Path) -> bool:
    """True of data that the pipeline has drawn, by its record beside them."""
    record = root.parent.parent / "records" / f"{root.name}.json"
    try:
        return bool(json.loads(record.read_text(encoding="utf-8"))["source"] == DRAWN)
    except (OSError, ValueError, KeyError, TypeError):
        return False
