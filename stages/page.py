"""page: the experiment as one HTML file that needs no network."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from fuzzyclip.evaluation.summaries import read_summaries
from fuzzyclip.method import OWN
from fuzzyclip.report.curves import Curve, trace_pixels
from fuzzyclip.report.gallery import GalleryImage
from fuzzyclip.report.page import DatasetResult, PageContent, render_page
from fuzzyclip.report.tables import (
    HEADLINE,
    TABLES,
    name_dataset,
    name_metric,
    read_categories,
)
from fuzzyclip.utils.files import write_text
from fuzzyclip.utils.tables import read_table, read_text_table
from fuzzyclip.utils.tensor_files import read_arrays
from stages import paths
from stages.params import flatten, list_declared, load_params, read_params
from stages.run import run_stage
from stages.schema import Params


def main() -> None:
    """Make page/index.html."""
    params = load_params("page")
    tested = {name: json.loads(paths.tested(OWN, name).read_text()) for name in params.pairs}
    used = sorted(set(params.pairs.values()))
    content = PageContent(
        notes=read_notes(),
        params=list_params(),
        tables=read_tables(),
        tested=read_text_table(paths.TABLES / "datasets.csv", ours=True),
        datasets={name: read_dataset(name, info, params) for name, info in tested.items()},
        curves={
            f"{stage.upper()} on {name}": read_table(paths.curve(stage, name))
            for name in used
            for stage in ("efa", "rpl")
        },
        partitions={name: json.loads(paths.csp_scores(name).read_text()) for name in used},
    )
    write_text(paths.PAGE, render_page(content))


def read_notes() -> list[str]:
    """The report's notes on its tables."""
    text = (paths.TABLES / "summary.md").read_text(encoding="utf-8")
    notes = [line.removeprefix("> ") for line in text.splitlines() if line.startswith("> ")]
    return [note.replace("`", "") for note in notes]  # Markdown's


def read_tables() -> dict[str, pd.DataFrame]:
    """The report's tables: the paper's, with its values where they compare, and the headlines."""
    places = {
        f"Table {table[-1]} of the paper, same layout": paths.TABLES / f"{table}.csv"
        for table in TABLES
    }
    places |= {
        f"{name_metric(metric)} by dataset [%]": paths.headline(metric) for metric in HEADLINE
    }
    return {
        title: read_text_table(path, ours=True) for title, path in places.items() if path.is_file()
    }


def list_params() -> dict[str, str]:
    """The shown part of params.yaml, as dotted keys; a dataset's own entry stands with it."""
    params = read_params()
    settings = dict(flatten(params))
    return {
        key: settings[key]
        for shown in list_declared(params, "page")
        for key in settings
        if f"{key}.".startswith(f"{shown}.")
    }


def read_dataset(name: str, info: dict[str, Any], params: Params) -> DatasetResult:
    """The evaluation's files of a dataset."""
    scores = read_table(paths.scores(OWN, name))
    pixels: dict[str, Curve] = {}
    for category in dict.fromkeys(scores["category"]):
        path = paths.summaries(OWN, name, str(category))
        curve = trace_pixels(read_summaries(path)) if path.is_file() else None
        if curve is not None:
            pixels[str(category)] = curve
    return DatasetResult(
        title=name_dataset(name, info),
        auxiliary=params.pairs[name],
        categories=read_categories(paths.method_metrics(OWN, name)),
        scores=scores,
        pixels=pixels,
        examples=list(read_examples(name)),
    )


def read_examples(name: str) -> Iterator[GalleryImage]:
    """The gallery's images, one after another."""
    path = paths.gallery(OWN, name)
    if not path.is_file():  # none are asked for
        return
    arrays, header = read_arrays(path)
    images, masks, maps = (arrays[key] for key in ("images", "masks", "maps"))
    for item, image, mask, anomaly_map in zip(header["items"], images, masks, maps, strict=True):
        yield GalleryImage(
            **item, image=image, mask=mask, anomaly_map=anomaly_map.astype(np.float32)
        )


if __name__ == "__main__":
    run_stage(page=main)
