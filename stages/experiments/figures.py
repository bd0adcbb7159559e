"""The paper's figures from finished runs: curves, clusters, sweeps and heatmap strips."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fuzzyclip.evaluation import NORMAL
from fuzzyclip.method import OWN, read_moment
from fuzzyclip.report.gallery import Example, draw_heatmaps
from fuzzyclip.report.tables import LABELS
from fuzzyclip.utils.tensor_files import read_arrays
from stages import paths
from stages.experiments.catalog import CatalogError, PaperExperiment
from stages.experiments.plan import Run
from stages.experiments.results import (
    MissingResultError,
    Results,
    average_categories,
    read_csp,
    read_lengths,
    read_means,
    read_method,
)
from stages.experiments.stability import STABILITY_NOTES, summarise_stability
from stages.times import Time, describe_times, read_time

#: Finished runs, each with its results.
Done = Sequence[tuple[Run, Results]]
#: Ticks of an axis of epochs.
EPOCHS = (0.25, 0.5, 1, 2, 5, 10, 15, 50)
COLOURS = mpl.colormaps["viridis"](np.linspace(0.1, 0.8, 3))


@dataclass(frozen=True)
class Drawn:
    """A figure, the numbers in it, footnotes, and a table that sums the numbers up."""

    figure: Figure
    numbers: pd.DataFrame
    notes: Sequence[str] = ()
    summary: pd.DataFrame | None = None


def draw(experiment: PaperExperiment, runs: Sequence[Run], shown: Collection[str] = ()) -> Drawn:
    """A figure with its numbers; `shown` are the categories that any figure shows.

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
    return draw_heatmap_strip(experiment, *done[0], shown)


def list_pictures(experiment: PaperExperiment, run: Run) -> list[Path]:
    """Files of a run's results, beside its metrics, that a figure is drawn from."""
    if experiment.kind != "heatmaps":
        return []
    return [paths.overlays(OWN, dataset) for dataset in run.row.tests]


def draw_epochs(experiment: PaperExperiment, done: Done) -> Drawn:
    """Figure 1: a panel a kind of prompt, test metrics within the first epoch and after each."""
    metrics = experiment.metrics or []
    frame = pd.DataFrame([line for pair in done for line in list_moments(*pair, metrics)])
    times: dict[str, dict[str, Time | None]] = {}
    for run, results in done:
        times.setdefault(run.row.label, {})[str(run.seed)] = time_layers(run, results)
    figure = _draw_panels(frame, "label", [*times], "epoch", metrics)
    ticks = [epoch for epoch in EPOCHS if epoch <= frame["epoch"].max()]
    for axis in figure.axes:
        axis.set_xscale("log")  # a linear one would hide the first epoch
        axis.set_xticks(ticks, [f"{epoch:g}" for epoch in ticks])
        axis.set_xticks([], minor=True)
        axis.axvline(1, color="gray", linestyle=":", linewidth=0.8)
    notes = [*STABILITY_NOTES, describe_times(times, "seed")]
    return Drawn(figure, frame, notes, summarise_stability(frame, metrics))


def list_moments(run: Run, results: Results, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """A line a moment of a run's training: `label`, `epoch`, `seed`, and the test metrics."""
    ((dataset, auxiliary),) = run.row.tests.items()
    means = average_categories(read_method(results, dataset))
    moments = {float(run.resolve("efa.train", auxiliary)["epochs"]): OWN}
    moments |= {epoch: str(name) for name in means.index if (epoch := read_moment(str(name)))}
    return [
        {"label": run.row.label, "epoch": epoch, "seed": run.seed}
        | {metric: means[metric][variant] for metric in metrics}
        for epoch, variant in sorted(moments.items())
    ]


def time_layers(run: Run, results: Results) -> Time | None:
    """The time of a run's EFA where it ran on this machine."""
    (auxiliary,) = run.row.tests.values()
    try:
        return read_time(results.fetch(paths.heads(auxiliary)))
    except MissingResultError:
        return None


def draw_sweep(experiment: PaperExperiment, done: Done) -> Drawn:
    """Figure 5: a panel a parameter, metrics by its value.

    A short sentence and a small text tower cut the prompts; then the axis and a note say what ran.
    """
    lines = []
    for run, results in done:
        name, value = run.row.label.split("=")
        (dataset,) = run.row.tests
        means = read_means(results, dataset)
        values = {metric: means[metric] for metric in experiment.metrics or []}
        ran = read_lengths(results, dataset).get(name.split()[-1], int(value))
        lines.append(
            {"parameter": name, "value": int(value), "ran": ran, "seed": run.seed} | values
        )
    frame = pd.DataFrame(lines).sort_values(["parameter", "seed", "value"], kind="stable")
    names = list(dict.fromkeys(frame["parameter"]))
    figure = _draw_panels(frame, "parameter", names, "value", experiment.metrics or [])
    notes = []
    for axis, name in zip(figure.axes, names, strict=True):
        ran = frame[frame["parameter"] == name].groupby("value")["ran"].first()
        cut = ran[ran != ran.index]
        labels = [f"{value}\n({ran[value]})" if value in cut else f"{value}" for value in ran.index]
        axis.set_xticks(ran.index, labels)
        axis.set_xlabel("value" if cut.empty else "value (what ran)", fontsize=8)
        notes += [f"{name}={value} was cut to {number}" for value, number in cut.items()]
    told = [f"{', '.join(notes)}: by the length of the sentence, or the depth of the text tower."]
    return Drawn(figure, frame, told if notes else [])


def _draw_panels(
    frame: pd.DataFrame, column: str, panels: Sequence[str], x: str, metrics: Sequence[str]
) -> Figure:
    """A panel a value of `column`; each metric a line of its mean over seeds in their range."""
    figure = Figure(figsize=(3.6 * len(panels), 3.0), layout="constrained")
    (axes,) = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        values = frame[frame[column] == panel].groupby(x)[list(metrics)]
        means, least, most = values.mean(), values.min(), values.max()
        for metric, colour in zip(metrics, COLOURS, strict=False):
            axis.plot(means.index, means[metric], "o-", color=colour, ms=3, label=LABELS[metric])
            axis.fill_between(means.index, least[metric], most[metric], color=colour, alpha=0.2)
        axis.set_title(panel, fontsize=9)
        axis.set_xlabel(x, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=6)
    return figure


def draw_clusters(run: Run, results: Results) -> Drawn:
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
    return Drawn(figure, pd.DataFrame(lines))


def draw_heatmap_strip(
    experiment: PaperExperiment, run: Run, results: Results, shown: Collection[str] = ()
) -> Drawn:
    """Figures 6 to 13: one category's images, anomaly maps and ground truth.

    The drawn sample has few categories: where the figure's is none of them, another one stands in,
    one that is not among `shown` if there is any, and the figure's title and notes say so.

    Raises:
        CatalogError: data other than the sample have no such category.
    """
    (path,) = list_pictures(experiment, run)
    arrays, header = read_arrays(results.fetch(path))
    images, masks, maps = (arrays[name] for name in ("images", "masks", "maps"))
    labels = [title.split("\n") for title in header["titles"]]
    anomalous = [number for number, (_, kind) in enumerate(labels) if kind != NORMAL]
    there = [*dict.fromkeys(labels[number][0] for number in anomalous)]
    category, notes = experiment.category, []
    if category not in there:
        if run.params["data"]["source"] != "sample" or not there:
            names = ", ".join(there) or "none"
            raise CatalogError(f"these data have no category {category}; there are {names}")
        category = next((name for name in there if name not in shown), there[0])
        notes.append(f"The drawn sample has no {experiment.category}: {category} stands in for it.")
    examples = [
        Example(labels[i][1], images[i], masks[i], maps[i].astype(np.float32))
        for i in anomalous
        if labels[i][0] == category
    ]
    title = "\n".join([f"{experiment.title}: input, FuzzyCLIP, ground truth", *notes])
    numbers = pd.DataFrame(
        [{"defect": each.title, "peak": float(each.anomaly_map.max())} for each in examples]
    )
    summary = numbers.assign(peak=[f"{peak:.2g}" for peak in numbers["peak"]])
    return Drawn(draw_heatmaps(examples, title, truth_last=True), numbers, notes, summary)
