"""DAGM 2007: ten classes of generated textures, 512 px gray, defects under coarse ellipses.

Page: https://hci.iwr.uni-heidelberg.de/content/weakly-supervised-learning-industrial-optical-inspection
Licence: see the page (research, with citation). Two protocols that must never be compared:
`test_half` tests on the `Test` half (6996 normal, 1054 anomalous); `balanced` merges both halves
and tests on every defective image and as many normal ones (2100 each), drawn with a fixed seed.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from fuzzyclip.datasets.base.layouts import list_images, make_row, pair_masks
from fuzzyclip.datasets.base.spec import (
    GOOD,
    Archive,
    DatasetSpec,
    IndexRow,
    Listing,
    Problem,
    Protocol,
    SplitCounts,
)

BALANCED_SEED = 42
HALVES = {"Train": "train", "Test": "test"}


def list_half(root: Path, category: str, half: str) -> Listing:
    """Rows of one half of a class: an image with a label file is defective."""
    folder = root / category / half
    images = list_images(folder)
    pairs, problems = pair_masks(images, list_images(folder / "Label"), "_label")
    rows = []
    for image in images:
        defect = "defect" if image in pairs else GOOD
        rows.append(make_row(root, image, pairs.get(image), category, HALVES[half], defect))
    labels = folder / "Label" / "Labels.txt"
    if labels.is_file():
        flags = read_flags(labels)
        problems.extend(
            Problem(
                str(image),
                f"{labels.name} says {flags.get(image.name, 'nothing')}, "
                f"label file {'present' if image in pairs else 'missing'}",
                row.image_path,
            )
            for image, row in zip(images, rows, strict=True)
            if flags.get(image.name) != int(image in pairs)
        )
    return Listing(rows, problems)


def read_flags(path: Path) -> dict[str, int]:
    """Image name -> 0 or 1 from Labels.txt, whose lines are: index, flag, image, dummy, label."""
    flags = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if len(fields) >= 3 and fields[1] in {"0", "1"}:  # the first line holds no image
            flags[fields[2]] = int(fields[1])
    return flags


def balance(rows: list[IndexRow], category: str) -> Listing:
    """All anomalous images and as many normal ones are tested, the rest is for training."""
    anomalous = [i for i, row in enumerate(rows) if row.label]
    normal = [i for i, row in enumerate(rows) if not row.label]
    if len(normal) < len(anomalous):
        reason = f"{len(normal)} normal images cannot balance {len(anomalous)} anomalous"
        return Listing(rows, [Problem(category, reason, fatal=True)])
    rng = np.random.default_rng(BALANCED_SEED)
    drawn = rng.choice(len(normal), size=len(anomalous), replace=False)
    tested = {normal[i] for i in drawn} | set(anomalous)
    moved = [row._replace(split="test" if i in tested else "train") for i, row in enumerate(rows)]
    return Listing(moved, [])


def list_rows(root: Path, categories: Sequence[str], *, balanced: bool) -> Listing:
    """Rows of both halves of each class, as they are or balanced."""
    listing = Listing([], [])
    for category in categories:
        rows: list[IndexRow] = []
        for half in HALVES:
            part = list_half(root, category, half)
            rows.extend(part.rows)
            listing.problems.extend(part.problems)
        if balanced:
            drawn = balance(rows, category)
            rows = drawn.rows
            listing.problems.extend(drawn.problems)
        listing.rows.extend(rows)
    return listing


CATEGORIES = tuple(f"Class{number}" for number in range(1, 11))
# 1150 images (150 defective) in classes 1 to 6, 2300 (300) in 7 to 10; how the defective ones
# fall into the halves is known in sum only.
BALANCED = {
    name: SplitCounts(850, 150, 150) if i < 6 else SplitCounts(1700, 300, 300)
    for i, name in enumerate(CATEGORIES)
}

DAGM = DatasetSpec(
    name="dagm",
    title="DAGM 2007",
    page="https://hci.iwr.uni-heidelberg.de/content/"
    "weakly-supervised-learning-industrial-optical-inspection",
    licence="see the official page (research, with citation)",
    archives=tuple(Archive(f"{name}.zip", category=name) for name in CATEGORIES),
    categories=dict.fromkeys(CATEGORIES, "textured surface"),
    protocols={
        "test_half": Protocol(
            "the Test half as it is, 6996 normal and 1054 anomalous; AnomalyCLIP and its family",
            partial(list_rows, balanced=False),
            dict.fromkeys(CATEGORIES, SplitCounts(None, None, None, None)),
            total=SplitCounts(7004, 6996, 1054, 1046),
        ),
        "balanced": Protocol(
            "both halves merged, 2100 anomalous and as many normal, drawn here with a fixed seed; "
            "AdaCLIP's numbers of images, not its private draw",
            partial(list_rows, balanced=True),
            BALANCED,
        ),
    },
    instructions="Download Class1.zip to Class10.zip from the official page, or the copy "
    "mhskjelvareid/dagm-2007-competition-dataset-optical-inspection on Kaggle (login needed; its "
    "folders Class1 to Class10 can be placed as they are).",
)
