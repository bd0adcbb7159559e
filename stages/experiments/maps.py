"""Figure 3: the maps of several methods on the same images.

They are made when the figure is drawn, of a few images alone, from the stored features and from
what each method has learned: kept with the results, the maps of all methods would take gigabytes in
the paper's setting. All that is read are the work tree's own files, as `dvc repro track baselines`
left them, as for the tables that compare methods.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fuzzyclip.evaluation.category import ImageBatch
from fuzzyclip.evaluation.metrics import compute_pixel_metrics
from fuzzyclip.images.decode import load_image, load_masks
from fuzzyclip.images.index_file import read_info
from fuzzyclip.method.interface import MethodUnavailableError
from fuzzyclip.report.gallery import Photo, draw_side_by_side
from stages import paths
from stages.evaluate import Ready, prepare_baseline, prepare_category, prepare_own
from stages.experiments.catalog import CatalogError, PaperExperiment, TableRow
from stages.experiments.figures import Drawn
from stages.method_tables import is_random
from stages.schema import Params
from stages.stored import check_trained, read_rows

#: How well a map ranks the pixels of its image.
MEASURED = ("pixel_auroc", "pixel_ap")
Floats = NDArray[np.floating]


class Choice(NamedTuple):
    """A test image: its dataset, category, and place among the category's test images."""

    dataset: str
    category: str
    place: int


def draw_maps(experiment: PaperExperiment, params: Params) -> Drawn:
    """A row an image, a column a method; the numbers are metrics of each image's pixels, percent.

    Raises:
        CatalogError: a file of the pipeline is not there.
        ValueError: a method has learned with another CLIP or on what it is tested on.
    """
    try:
        return _draw(experiment, params)
    except FileNotFoundError as error:
        raise CatalogError(
            f"{error.filename} is not there: `dvc repro track baselines` makes it"
        ) from error


def _draw(experiment: PaperExperiment, params: Params) -> Drawn:
    (own,) = experiment.measured
    choices = [each for dataset in own.tests for each in choose(dataset, experiment.categories)]
    columns: dict[str, list[Floats | None]] = {}
    lines, notes = [], []
    for row in experiment.rows:
        try:
            title, maps = make_maps(row, own.tests, choices, params)
        except MethodUnavailableError as error:
            columns[f"{row.label}\n(left out)"] = [None] * len(choices)
            notes.append(f"{row.label}: {error}")
            continue
        columns[title] = [*maps]
        for choice, anomaly_map in zip(choices, maps, strict=True):
            lines.append({"method": row.label, **measure(choice, anomaly_map)})
    side = params.backbones[params.backbone].image_size
    photos = [show(choice, side) for choice in choices]
    return Drawn(draw_side_by_side(photos, columns, experiment.title), pd.DataFrame(lines), notes)


def choose(dataset: str, categories: int) -> list[Choice]:
    """An anomalous image of each of so many categories, which lie evenly among those that have any.

    The first category's is among the first of its anomalous images, the last one's among the last:
    images are sorted by defect, and so the figure has several kinds.
    """
    info = read_info(paths.index_info(dataset))
    names = [name for name in info["prompts"] if info["counts"][name]["test_anomalous"]]
    count = min(categories, len(names))
    chosen = []
    for number in range(count):
        share = (number + 0.5) / count
        category = names[int(share * len(names))]
        anomalous = np.flatnonzero(read_rows(dataset, "test", category)["label"] == 1)
        chosen.append(Choice(dataset, category, int(anomalous[int(share * len(anomalous))])))
    return chosen


def make_maps(
    row: TableRow, tests: Mapping[str, str], choices: Sequence[Choice], params: Params
) -> tuple[str, list[Floats]]:
    """A method's title and its maps (S, S), higher is more anomalous, S of its own CLIP.

    Raises:
        MethodUnavailableError: it needs models that are not here.
    """
    title, maps = row.label, []
    ready: dict[str, Ready] = {}
    for dataset, category, place in choices:
        if dataset not in ready:
            ready[dataset] = prepare(row, dataset, tests[dataset], params)
        method = ready[dataset].method
        info = read_info(paths.index_info(dataset))
        opened, scorers = prepare_category(ready[dataset], dataset, category, info, params)
        embed = opened.features.image_embed[place : place + 1]
        batch = ImageBatch(place, opened.read_tokens([place]), embed, None)
        maps.append(opened.score(scorers[method.name], batch, method.sigma).maps[0])
        if is_random(ready[dataset].facts):
            title = f"{row.label}\n(random weights)"
    return title, maps


def prepare(row: TableRow, dataset: str, auxiliary: str, params: Params) -> Ready:
    """A row's method with what it has learned from an auxiliary set."""
    if not row.method:
        return prepare_own(params, auxiliary, dataset)
    if row.method not in params.methods:
        raise MethodUnavailableError(f"params.yaml has no block methods.{row.method}")
    ready = prepare_baseline(row.method, auxiliary, params)
    learned = paths.learned(row.method, auxiliary)
    check_trained(learned, ready.facts, dataset, ready.encode.backbone)
    return ready


def measure(choice: Choice, anomaly_map: Floats) -> dict[str, str | float]:
    """The line of an image and a map of it (S, S); no metrics where it has no mask."""
    rows = read_rows(choice.dataset, "test", choice.category).iloc[[choice.place]]
    line = {
        "dataset": choice.dataset,
        "category": choice.category,
        "image": rows["image_path"].item(),
    }
    masks = load_masks(rows, len(anomaly_map))
    values = compute_pixel_metrics(anomaly_map[None], masks)
    return line | {metric: 100 * values[metric] for metric in MEASURED if metric in values}


def show(choice: Choice, side: int) -> Photo:
    """An image with its ground truth, squashed to a square as the tower sees it."""
    rows = read_rows(choice.dataset, "test", choice.category).iloc[[choice.place]]
    image = load_image(Path(rows["image_path"].item())).resize((side, side))
    title = f"{choice.dataset}, {choice.category}\n{rows['defect'].item()}"
    return Photo(title, np.array(image), load_masks(rows, side)[0])
