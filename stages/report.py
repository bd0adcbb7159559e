"""report: tables, pictures, and what DVC shows: a headline and points of plots."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fuzzyclip.evaluation import NORMAL
from fuzzyclip.evaluation.metrics import METRICS
from fuzzyclip.evaluation.summaries import read_summaries
from fuzzyclip.method import OWN, list_titles
from fuzzyclip.report.curves import Curve, trace_pixels, trace_scores
from fuzzyclip.report.gallery import Example, draw_heatmaps, save_figure
from fuzzyclip.report.overview import choose_overview, draw_overview
from fuzzyclip.report.plots import (
    tabulate_curves,
    tabulate_datasets,
    tabulate_losses,
    tabulate_partitions,
)
from fuzzyclip.report.tables import (
    COUNTS,
    HEADLINE,
    TABLES,
    add_means,
    average_datasets,
    build_headline,
    build_table,
    collect_means,
    describe_datasets,
    is_paper_setting,
    list_partial_means,
    list_sample_notes,
    list_short_clusters,
    list_ties,
    name_dataset,
    name_metric,
    read_categories,
    to_markdown,
)
from fuzzyclip.utils.files import write_json, write_text
from fuzzyclip.utils.tables import read_table, write_csv
from fuzzyclip.utils.tensor_files import read_arrays
from stages import paths
from stages.experiments.catalog import collect_printed, read_catalog
from stages.params import load_params
from stages.run import run_stage
from stages.schema import Params

PRINTED_NOTE = (
    "The paper's Table 3 heads its image tuples (AUROC, AP); they behave like (AP, AUROC) and "
    "stand as printed. It prints no image F1-max."
)
FORM_NOTE = (
    "All variants but FuzzyCLIP are without training. "
    "AUPRO is the 200-threshold form that the field prints; the exact one is AUPRO-std, "
    "`pixel_aupro_std`. Percent; unweighted mean over categories; one seed."
)
SHOTS_NOTE = (
    "Variants with good images have seen normal training images of the tested category: they are "
    "not zero-shot."
)
GAIN_NOTE = (
    "By dataset, the last line of a table is the difference in points to the best variant without "
    "training on the dataset, with the 95 % interval of a paired bootstrap over images. Where it "
    "holds 0, the test images do not tell the two apart."
)


def main() -> None:
    """Make metrics/headline.json, metrics/plots, metrics/tables and report."""
    params = load_params("report")
    results = {name: read_categories(paths.method_metrics(OWN, name)) for name in params.pairs}
    tested = {name: json.loads(paths.tested(OWN, name).read_text()) for name in params.pairs}
    facts = {name: json.loads(paths.method_facts(OWN, name).read_text()) for name in params.pairs}
    write_tables(params, results, tested, facts)
    means = collect_means(results)
    write_json(paths.HEADLINE, summarise(means))
    write_plots(params, means[means["variant"] == OWN])
    draw_pictures(params, tested)


def write_tables(
    params: Params,
    results: Mapping[str, pd.DataFrame],
    tested: Mapping[str, dict[str, Any]],
    facts: Mapping[str, dict[str, Any]],
) -> None:
    """Tables 2 and 3 in the paper's layout, all means, and per-category tables; .md and .csv."""
    means = collect_means(results)
    titles = {name: name_dataset(name, info) for name, info in tested.items()}
    variants = list_titles([*params.evaluation.variants, OWN], params.evaluation.shots)
    source, clip = params.data.source, params.backbones[params.backbone]
    paper = is_paper_setting(source, clip, params.pairs, tested)
    printed = collect_printed(read_catalog()) if paper else None
    notes = [FORM_NOTE, *([PRINTED_NOTE] if paper else []), *describe_estimates(tested)]
    notes += [SHOTS_NOTE] if params.evaluation.shots else []
    notes += list_short_clusters(facts)
    notes += list_sample_notes(source, params.backbone)
    notes += list_ties(results, variants, titles) + list_partial_means(results, variants, titles)
    summary = ["# Results", "", *(f"> {note}" for note in notes), ""]
    for table, datasets in TABLES.items():
        frame = build_table(means, datasets, variants, titles, printed)
        if frame.empty:
            continue
        title = f"Table {table[-1]} of the paper, same layout"
        write_csv(paths.TABLES / f"{table}.csv", frame)
        write_text(paths.TABLES / f"{table}.md", f"{title}\n\n{to_markdown(frame)}")
        summary += [f"## {title}", "", to_markdown(frame)]
    summary += write_headlines(means, variants, titles, facts)
    averages, described = average_datasets(means), describe_datasets(tested)
    summary += [f"## Mean over {len(results)} dataset(s)", "", to_markdown(averages)]
    summary += ["## What was tested", "", to_markdown(described)]
    write_csv(paths.TABLES / "datasets.csv", described)
    write_csv(paths.TABLES / "means.csv", means)
    write_csv(paths.TABLES / "averages.csv", averages)
    write_text(paths.TABLES / "summary.md", "\n".join(summary))
    for dataset, categories in results.items():
        shown = add_means(categories)[["variant", "category", *COUNTS, *METRICS]]
        text = f"{titles[dataset]}, by category\n\n{to_markdown(shown)}"
        write_text(paths.TABLES / "categories" / f"{dataset}.md", text)


def write_headlines(
    means: pd.DataFrame,
    variants: Mapping[str, str],
    titles: Mapping[str, str],
    facts: Mapping[str, dict[str, Any]],
) -> list[str]:
    """A table for each headline metric, datasets across: written, and their part of the summary."""
    gains = {name: fact["gains"] for name, fact in facts.items() if "gains" in fact}
    section = ["## By dataset", "", *([f"> {GAIN_NOTE}", ""] if gains else [])]
    for metric in HEADLINE:
        if means[metric].isna().all():
            continue
        known = {name: gain[metric] for name, gain in gains.items() if metric in gain}
        frame = build_headline(means, metric, variants, titles, known)
        write_csv(paths.headline(metric), frame)
        section += [f"### {name_metric(metric)} [%]", "", to_markdown(frame)]
    return section


def describe_estimates(tested: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A note on pixel metrics that are not exact, with their bounds."""
    streamed = [name for name, info in tested.items() if info["pixel_metrics"] == "streaming"]
    widths = []
    for path in (paths.bounds(OWN, name) for name in streamed):
        bounds = read_table(path) if path.is_file() else pd.DataFrame()
        widths += [] if bounds.empty else [(bounds["high"] - bounds["low"]).max()]
    error = max(widths, default=0.0)
    note = f"Pixel metrics are estimates; the exact values are within {error:.4f} of them."
    return [note] if streamed else []


def summarise(means: pd.DataFrame) -> dict[str, float]:
    """FuzzyCLIP's headline metrics, each its mean over the datasets that define it."""
    averages = average_datasets(means[means["variant"] == OWN])
    means_by_metric = averages[[*HEADLINE]].iloc[0].dropna().astype(float)
    return {str(metric): round(value, 4) for metric, value in means_by_metric.items()}


def write_plots(params: Params, means: pd.DataFrame) -> None:
    """Points of every plot that dvc.yaml declares; `means` has a line a dataset."""
    used = sorted(set(params.pairs.values()))
    curves: dict[tuple[str, str], list[Curve]] = {}
    for dataset in params.pairs:
        curves[dataset, "images"], curves[dataset, "pixels"] = read_curves(dataset)
    roc, precision_recall = tabulate_curves(curves)
    write_csv(paths.PLOTS / "roc.csv", roc)
    write_csv(paths.PLOTS / "precision_recall.csv", precision_recall)
    for stage in ("efa", "rpl"):
        losses = {name: read_table(paths.curve(stage, name)) for name in used}
        write_csv(paths.PLOTS / f"{stage}.csv", tabulate_losses(losses), "%.6g")
    partitions = {name: json.loads(paths.csp_scores(name).read_text()) for name in used}
    write_csv(paths.PLOTS / "csp.csv", tabulate_partitions(partitions), "%.6f")
    write_csv(paths.PLOTS / "datasets.csv", tabulate_datasets(means, HEADLINE))


def read_curves(dataset: str) -> tuple[list[Curve], list[Curve]]:
    """FuzzyCLIP's curves over images and over pixels, of each category that has both classes."""
    images, pixels = [], []
    scores = read_table(paths.scores(OWN, dataset))
    for category, part in scores.groupby("category", sort=False):
        images.append(trace_scores(part[OWN], part["label"]))
        path = paths.summaries(OWN, dataset, str(category))
        pixels.append(trace_pixels(read_summaries(path)) if path.is_file() else None)
    return [c for c in images if c is not None], [c for c in pixels if c is not None]


def draw_pictures(params: Params, tested: Mapping[str, dict[str, Any]]) -> None:
    """Heatmaps of each dataset, and an overview."""
    anomalous: dict[str, list[Example]] = {}
    normal: dict[str, list[Example]] = {}
    for dataset, auxiliary in params.pairs.items():
        examples = read_examples(dataset)
        if not examples:
            continue
        name = name_dataset(dataset, tested[dataset])
        title = f"{name}, model trained on {auxiliary}: image, ground truth, anomaly map"
        save_figure(draw_heatmaps(examples, title), paths.REPORT / f"heatmaps_{dataset}.png")
        last = f"\n{NORMAL}"  # a line of its own: a defect's folder may be called abnormal
        normal[name] = [example for example in examples if example.title.endswith(last)]
        anomalous[name] = [example for example in examples if not example.title.endswith(last)]
    paths.REPORT.mkdir(exist_ok=True)
    chosen = choose_overview(anomalous, normal)
    if any(chosen):
        save_figure(draw_overview(*chosen), paths.REPORT / "overview.png")


def read_examples(dataset: str) -> list[Example]:
    """The images, masks and maps that the evaluation kept; none where none were asked for."""
    path = paths.overlays(OWN, dataset)
    if not path.is_file():
        return []
    arrays, header = read_arrays(path)
    images, masks, maps = (arrays[name] for name in ("images", "masks", "maps"))
    return [
        Example(title, image, mask, anomaly_map.astype(np.float32))
        for title, image, mask, anomaly_map in zip(
            header["titles"], images, masks, maps, strict=True
        )
    ]


if __name__ == "__main__":
    run_stage(report=main)
