"""Metrics on a folder of one's own images, without a pipeline or a checkout."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.indexing import build_index
from fuzzyclip.evaluation.category import COLUMNS, Category, evaluate_category
from fuzzyclip.features.encode import write_category
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.features.shards import compute_identity
from fuzzyclip.features.store import open_category
from fuzzyclip.images.index_file import place_rows
from fuzzyclip.method.scorer import Scorer
from fuzzyclip.utils.scratch import hold_private_folder


def evaluate_folder(
    folder: str | Path,
    build_scorer: Callable[[str], Scorer],
    backbone: Backbone,
    *,
    name: str,
    kind: FeatureKind = TOKENS,
    sigma: float = 0.0,
    layout: str = "auto",
    workers: int = 1,
) -> pd.DataFrame:
    """Metrics of a method on every category of a folder.

    Args:
        folder: images in a layout of `fuzzyclip.datasets.folder`.
        build_scorer: a category's name to its scorer, `Method.build` for one.
        backbone: the frozen CLIP that the method looks through.
        name: of the method in the table.
        kind: what the method reads of an image.
        sigma: Gaussian smoothing of maps in pixels.
        layout: `auto`, or one of `fuzzyclip.datasets.folder.SUMMARIES`.
        workers: threads that decode images.

    Returns:
        A line a category, columns `COLUMNS`: metrics in percent, absent where undefined.

    Raises:
        DatasetError: the folder has no such layout, or images that can not be used; names them.
    """
    root, spec = Path(folder), get_dataset("folder")
    index = build_index(spec, root, protocol=layout, expect_counts=False, workers=workers)
    tested = place_rows(index.frame[index.frame["split"] == "test"], root)
    lines = []
    with hold_private_folder() as scratch:
        for category, members in tested.groupby("category", sort=True):
            rows, store = members.reset_index(drop=True), scratch / "features" / str(category)
            write_category(store, rows, backbone, dtype="float32", workers=workers, kind=kind)
            identity = compute_identity(backbone, list(rows["sha256"]), kind)
            features = open_category(store, identity)
            result = evaluate_category(
                Category(root.name, str(category), rows, features, backbone, workers, kind),
                {name: build_scorer(str(category))},
                shown=name,
                scratch=scratch,
                sigma=sigma,
            )
            lines += result.table
    return pd.DataFrame(lines, columns=[*COLUMNS])
