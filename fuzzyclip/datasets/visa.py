"""VisA: 12 categories of objects, photographs about 1500 x 1000, not square.

Page: https://github.com/amazon-science/spot-diff (Zou et al., ECCV 2022). Licence of the data:
CC BY 4.0. `split_csv/1cls.csv` says what belongs where; masks hold class ids 1 to 9 and look
black; suffixes are upper-case.
"""

from collections.abc import Sequence
from pathlib import Path

from fuzzyclip.datasets.base.spec import (
    GOOD,
    SPLITS,
    Archive,
    DatasetSpec,
    IndexRow,
    Listing,
    Problem,
    Protocol,
    SplitCounts,
)
from fuzzyclip.utils.tables import read_text_table

SPLIT_FILE = "split_csv/1cls.csv"
CSV_COLUMNS = ["object", "split", "label", "image", "mask"]

COUNTS = {
    "candle": SplitCounts(900, 100, 100),
    "capsules": SplitCounts(542, 60, 100),
    "cashew": SplitCounts(450, 50, 100),
    "chewinggum": SplitCounts(453, 50, 100),
    "fryum": SplitCounts(450, 50, 100),
    "macaroni1": SplitCounts(900, 100, 100),
    "macaroni2": SplitCounts(900, 100, 100),
    "pcb1": SplitCounts(904, 100, 100),
    "pcb2": SplitCounts(901, 100, 100),
    "pcb3": SplitCounts(905, 101, 100),
    "pcb4": SplitCounts(904, 101, 100),
    "pipe_fryum": SplitCounts(450, 50, 100),
}


def list_rows(root: Path, categories: Sequence[str]) -> Listing:
    """Rows of the split file; a mask must have the stem of its image."""
    path = root / SPLIT_FILE
    if not path.is_file():
        reason = "the split file is missing; it is part of the archive"
        return Listing([], [Problem(str(path), reason, fatal=True)])
    try:
        table = read_text_table(path)
    except ValueError as error:
        return Listing([], [Problem(str(path), str(error), fatal=True)])
    if list(table.columns) != CSV_COLUMNS:
        reason = f"columns {list(table.columns)} instead of {CSV_COLUMNS}"
        return Listing([], [Problem(str(path), reason, fatal=True)])
    listing = Listing([], [])
    for record in table[table["object"].isin(categories)].itertuples(index=False):
        category, split, label, image, mask = map(str, record)
        if label not in {"normal", "anomaly"} or split not in SPLITS:
            reason = f"{image}: label {label!r}, split {split!r} unknown"
            listing.problems.append(Problem(str(path), reason))
            continue
        if mask and Path(mask).stem != Path(image).stem:
            reason = f"{image} is paired with another image's mask, {mask}"
            listing.problems.append(Problem(str(path), reason, image))
        defect = "bad" if label == "anomaly" else GOOD
        listing.rows.append(IndexRow(image, mask, category, split, int(defect != GOOD), defect))
    return listing


VISA = DatasetSpec(
    name="visa",
    title="VisA",
    page="https://github.com/amazon-science/spot-diff",
    licence="CC BY 4.0",
    archives=(
        Archive(
            "VisA_20220922.tar",
            urls=("https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",),
            sha256="2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        ),
    ),
    categories={
        "candle": "candle",
        "capsules": "capsules",
        "cashew": "cashew",
        "chewinggum": "chewing gum",
        "fryum": "fryum",
        "macaroni1": "macaroni",
        "macaroni2": "macaroni",
        "pcb1": "printed circuit board",
        "pcb2": "printed circuit board",
        "pcb3": "printed circuit board",
        "pcb4": "printed circuit board",
        "pipe_fryum": "pipe fryum",
    },
    protocols={
        "1cls": Protocol(
            "split_csv/1cls.csv: normal images alone in training (2162 tested); used by everybody",
            list_rows,
            COUNTS,
            markers=("split_csv", *COUNTS),
        )
    },
)
