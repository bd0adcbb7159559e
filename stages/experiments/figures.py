"""The paper's figures from finished runs: curves, clusters, sweeps and heatmap strips."""

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fuzzyclip.method import OWN
from fuzzyclip.report.gallery import Example, draw_heatmaps
from fuzzyclip.report.tables import LABELS
from fuzzyclip.utils.tensor_files import read_arrays
from stages import paths
from stages.experiments.catalog import CatalogError, PaperExperiment
from stages.experiments.plan import Run
from stages.experiments.results import (
    Results,
    average_categories,
    read_csp,
    read_means,
    read_method,
)

#: Finished runs, each with its results.
Done = Sequence[tuple[Run, Results]]
COLOURS = mpl.colormaps["viridis"](np.linspace(0.1, 0.8, 3))


def draw(experiment: PaperExperiment, runs: Sequence[Run]) -> tuple[Figure, pd.DataFrame]:
    """A figure and the numbers in it.

    Raises:
        CatalogError: nothing of it has been run.
    """
    done = [(run, run.results) for run in runs if run.results]
    if not done:
        raise CatalogError("nothing of this figure has been run yet")
    if experiment.kind == "curves":
        return draw_epochs(experiment, done)
    if experiment.kind == "clusters":
        return draw_clusters(*done[0])
    if experiment.kind == "sweep":
        return draw_sweep(experiment, done)
    return draw_heatmap_strip(experiment, *done[0])


def list_pictures(experiment: PaperExperiment, run: Run) -> list[Path]:
    """Files of a run's results, beside its metrics, that a figure is drawn from."""
    if experiment.kind != "heatmaps":
        return []
    return [paths.overlays(OWN, dataset) for dataset in run.row.tests]


def draw_epochs(experiment: PaperExperiment, done: Done) -> tuple[Figure, pd.DataFrame]:
    """Figure 1: a panel a kind of prompt, test metrics after each epoch."""
    lines = []
    for run, results in done:
        (dataset,) = run.row.tests
        means = average_categories(read_method(results, dataset))
        epochs = run.params["efa"]["train"]["epochs"]
        for variant, line in means[experiment.metrics or []].iterrows():
            earlier = re.fullmatch(rf"{OWN}_epoch_(\d+)", str(variant))
            if earlier or variant == OWN:
                epoch = int(earlier[1]) if earlier else epochs
                lines.append({"label": run.row.label, "epoch": epoch, "seed": run.seed, **line})
    frame = pd.DataFrame(lines).sort_values(["label", "seed", "epoch"], kind="stable")
    labels = list(dict.fromkeys(run.row.label for run, _ in done))
    return _draw_panels(frame, "label", labels, "epoch", experiment.metrics or []), frame


def draw_sweep(experiment: PaperExperiment, done: Done) -> tuple[Figure, pd.DataFrame]:
    """Figure 5: a panel a parameter, metrics by its value."""
    lines = []
    for run, results in done:
        name, value = run.row.label.split("=")
        (dataset,) = run.row.tests
        means = read_means(results, dataset)
        values = {metric: means[metric] for metric in experiment.metrics or []}
        lines.append({"parameter": name, "value": int(value), "seed": run.seed} | values)
    frame = pd.DataFrame(lines).sort_values(["parameter", "seed", "value"], kind="stable")
    names = list(dict.fromkeys(frame["parameter"]))
    return _draw_panels(frame, "parameter", names, "value", experiment.metrics or []), frame


def _draw_panels(
    frame: pd.DataFrame, column: str, panels: Sequence[str], x: str, metrics: Sequence[str]
) -> Figure:
    """A panel a value of `column`; each metric a line of its mean over seeds."""
    figure = Figure(figsize=(3.6 * len(panels), 3.0), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        means = frame[frame[column] == panel].groupby(x)[list(metrics)].mean()
        for metric, colour in zip(metrics, COLOURS, strict=False):
            axis.plot(means.index, means[metric], "o-", color=colour, ms=3, label=LABELS[metric])
        axis.set_title(panel, fontsize=9)
        axis.set_xlabel(x, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=6)
    return figure


def draw_clusters(run: Run, results: Results) -> tuple[Figure, pd.DataFrame]:
    """Figure 4: each set's category features on two axes, by cluster, and CSP's scores."""
    sets = list(run.params["auxiliary"])
    figure = Figure(figsize=(4.6 * len(sets), 5.6), layout="constrained")
    axes = figure.subplots(2, len(sets), squeeze=False, height_ratios=(3, 2))
    lines = []
    for column, name in enumerate(sets):
        scores, above = read_csp(results, name), axes[0, column]
        for number, cluster in enumerate(scores["clusters"]):
            places = np.array([scores["points"][member] for member in cluster])  # (n, 2)
            above.scatter(*places.T, color=f"C{number}", label=f"cluster {number + 1}")
            for member, place in zip(cluster, places, strict=True):
                above.annotate(member, place, fontsize=6)
                lines.append({"auxiliary": name, "category": member, "cluster": number + 1})
        above.set_title(f"{name}: {scores['k']} cluster(s)", fontsize=9)
        above.legend(fontsize=6)
        candidates, below = pd.DataFrame(scores["candidates"]), axes[1, column]
        below.plot(candidates["k"], candidates["score"], "o-", ms=3, label="score (eq. 4)")
        below.plot(candidates["k"], candidates["spread"], "--", label="squared distances")
        below.plot(candidates["k"], candidates["penalty"], ":", label="penalty")
        below.set_xlabel("clusters k", fontsize=8)
        below.set_yscale("log")  # the penalty grows with e^k
        below.legend(fontsize=6)
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    return figure, pd.DataFrame(lines)


def draw_heatmap_strip(
    experiment: PaperExperiment, run: Run, results: Results
) -> tuple[Figure, pd.DataFrame]:
    """Figures 6 to 13: one category's images, anomaly maps and ground truth.

    Raises:
        CatalogError: the data that were run have no such category.
    """
    (path,) = list_pictures(experiment, run)
    arrays, header = read_arrays(results.fetch(path))
    titles = header["titles"]
    images, masks, maps = (arrays[name] for name in ("images", "masks", "maps"))
    chosen = [i for i, title in enumerate(titles) if title.split("\n")[0] == experiment.category]
    if not chosen:
        there = ", ".join(dict.fromkeys(title.split("\n")[0] for title in titles))
        raise CatalogError(f"these data have no category {experiment.category}; there are {there}")
    examples = [
        Example(titles[i].split("\n")[1], images[i], masks[i], maps[i].astype(np.float32))
        for i in chosen
    ]
    title = f"{experiment.title}: input, FuzzyCLIP, ground truth"
    numbers = [{"defect": each.title, "peak": float(each.anomaly_map.max())} for each in examples]
    return draw_heatmaps(examples, title, truth_last=True), pd.DataFrame(numbers)
