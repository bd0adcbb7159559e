"""The paper's figures from finished runs: curves, clusters, sweeps and heatmap strips."""

import re
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from fuzzyclip.evaluation.rows import TRAINED
from matplotlib.figure import Figure

from fuzzyclip.report.figures import Example, draw_heatmaps
from fuzzyclip.report.tables import LABELS, add_means
from fuzzyclip.utils.tensor_files import read_arrays
from stages import paths
from stages.experiments.archive import is_done, read_categories, read_csp
from stages.experiments.catalog import CatalogError, Experiment
from stages.experiments.plan import Run

COLOURS = mpl.colormaps["viridis"](np.linspace(0.1, 0.8, 3))


def draw(experiment: Experiment, runs: Sequence[Run]) -> tuple[Figure, pd.DataFrame]:
    """A figure and the numbers in it.

    Raises:
        CatalogError: nothing of it has been run.
    """
    done = [run for run in runs if is_done(run)]
    if not done:
        raise CatalogError("nothing of this figure has been run yet")
    if experiment.kind == "curves":
        return draw_epochs(experiment, done)
    if experiment.kind == "clusters":
        return draw_clusters(done[0])
    if experiment.kind == "sweep":
        return draw_sweep(experiment, done)
    return draw_heatmap_strip(experiment, done[0])


def draw_epochs(experiment: Experiment, runs: Sequence[Run]) -> tuple[Figure, pd.DataFrame]:
    """Figure 1: a panel a kind of prompt, test metrics after each epoch."""
    lines = []
    for run in runs:
        (dataset,) = run.row.tests
        means = add_means(read_categories(run, dataset)).query("category == 'mean'")
        epochs = run.params["efa"]["train"]["epochs"]
        for line in means.to_dict("records"):
            earlier = re.fullmatch(rf"{TRAINED}_epoch_(\d+)", line["row"])
            if earlier or line["row"] == TRAINED:
                epoch = int(earlier[1]) if earlier else epochs
                values = {metric: line[metric] for metric in experiment.metrics or []}
                lines.append({"label": run.row.label, "epoch": epoch, "seed": run.seed} | values)
    frame = pd.DataFrame(lines).sort_values(["label", "seed", "epoch"], kind="stable")
    labels = list(dict.fromkeys(run.row.label for run in runs))
    return _draw_panels(frame, "label", labels, "epoch", experiment.metrics or []), frame


def draw_sweep(experiment: Experiment, runs: Sequence[Run]) -> tuple[Figure, pd.DataFrame]:
    """Figure 5: a panel a parameter, metrics by its value."""
    lines = []
    for run in runs:
        name, value = run.row.label.split("=")
        (dataset,) = run.row.tests
        means = add_means(read_categories(run, dataset)).query("category == 'mean'")
        own = means[means["row"] == TRAINED].iloc[0]
        values = {metric: own[metric] for metric in experiment.metrics or []}
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


def draw_clusters(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Figure 4: each set's category features on two axes, by cluster, and CSP's scores."""
    sets = list(run.params["auxiliary"])
    figure = Figure(figsize=(4.6 * len(sets), 5.6), layout="constrained")
    axes = figure.subplots(2, len(sets), squeeze=False, height_ratios=(3, 2))
    lines = []
    for column, name in enumerate(sets):
        found = read_csp(run, name)
        for number, cluster in enumerate(found["clusters"]):
            places = np.array([found["points"][member] for member in cluster])  # (n, 2)
            axes[0, column].scatter(*places.T, color=f"C{number}", label=f"cluster {number + 1}")
            for member, place in zip(cluster, places, strict=True):
                axes[0, column].annotate(member, place, fontsize=6)
                lines.append({"auxiliary": name, "category": member, "cluster": number + 1})
        axes[0, column].set_title(f"{name}: {found['k']} cluster(s)", fontsize=9)
        axes[0, column].legend(fontsize=6)
        scores = pd.DataFrame(found["candidates"])
        axes[1, column].plot(scores["k"], scores["score"], "o-", ms=3, label="score (eq. 4)")
        axes[1, column].plot(scores["k"], scores["spread"], "--", label="squared distances")
        axes[1, column].plot(scores["k"], scores["penalty"], ":", label="penalty")
        axes[1, column].set_xlabel("clusters k", fontsize=8)
        axes[1, column].set_yscale("log")  # the penalty grows with e^k
        axes[1, column].legend(fontsize=6)
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    return figure, pd.DataFrame(lines)


def draw_heatmap_strip(experiment: Experiment, run: Run) -> tuple[Figure, pd.DataFrame]:
    """Figures 6 to 13: one category's images, anomaly maps and ground truth.

    Raises:
        CatalogError: the data that were run have no such category.
    """
    (dataset,) = run.row.tests
    path = run.folder / paths.results(dataset) / "overlays.safetensors"
    arrays, header = read_arrays(path)
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
    peaks = [float(example.anomaly_map.max()) for example in examples]
    names = [example.title for example in examples]
    figure = draw_heatmaps(examples, title, truth_last=True)
    return figure, pd.DataFrame({"defect": names, "peak": peaks})
