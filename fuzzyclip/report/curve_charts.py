"""Charts of ROC and precision-recall curves: of every category, and a dataset's mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fuzzyclip.evaluation.choice import find_threshold
from fuzzyclip.evaluation.rows import TRAINED
from fuzzyclip.report.bars import name_row
from fuzzyclip.report.charts import Chart, Line, Mark, draw_chart, step_before
from fuzzyclip.report.curves import Curve, average_curves, trace_scores
from fuzzyclip.report.parts import Table, format_cell, format_score

#: Where the tables under the charts read the curves.
RATES = (0.01, 0.05, 0.1, 0.3)
RECALLS = (0.25, 0.5, 0.75, 0.9)
SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class CurvePanel:
    """Charts that are shown together: `name` is a category, or empty for a dataset's mean."""

    dataset: str
    name: str
    charts: Sequence[Chart]
    note: str


def build_curves(
    dataset: str, scores: pd.DataFrame, rows: Sequence[str], pixels: Mapping[str, Curve]
) -> list[CurvePanel]:
    """Panels of a dataset: the mean of its categories, then each category.

    Args:
        dataset: its key.
        scores: a line an image: `category`, `label`, and a column of scores for each row.
        rows: rows of the results, in order; those without scores are left out.
        pixels: category -> FuzzyCLIP's curve over its pixels, where there is one.
    """
    panels, images = [], {}
    for category, part in scores.groupby("category", sort=False):
        shown = [row for row in rows if row in part]
        curves = {row: trace_scores(part[row], part["label"]) for row in shown}
        known = {row: curve for row, curve in curves.items() if curve is not None}
        charts, note = [], "One of the two classes is missing: images have no curves."
        threshold = find_threshold(part[TRAINED], part["label"])
        if threshold is not None:
            images[str(category)] = known[TRAINED]
            charts += _draw_rows(known, part, threshold)
            note = (
                "The dot is FuzzyCLIP at the threshold of the largest F1, "
                f"{format_score(threshold)}. That threshold is chosen on these test images."
            )
        if str(category) in pixels:
            charts += _draw_pair("Pixels, FuzzyCLIP", {"FuzzyCLIP": pixels[str(category)]})
        panels.append(CurvePanel(dataset, str(category), charts, note))
    charts = [*_draw_mean("Images, FuzzyCLIP", images), *_draw_mean("Pixels, FuzzyCLIP", pixels)]
    note = (
        "Thin: each category. Thick: their mean at equal false positive rate, and at equal recall."
    )
    return [CurvePanel(dataset, "", charts, note), *panels] if charts else panels


def _draw_rows(curves: Mapping[str, Curve], part: pd.DataFrame, threshold: float) -> list[Chart]:
    """Image curves of all rows of the results, FuzzyCLIP's on top, with its F1-max threshold."""
    order = sorted(curves, key=lambda row: row != TRAINED)
    named = {name_row(row): curves[row] for row in order}
    above, truth = part[TRAINED].to_numpy() >= threshold, part["label"].to_numpy() == 1
    fpr, tpr = float(above[~truth].mean()), float(above[truth].mean())
    name = "F1-max threshold (chosen on the test set)"
    marks = (Mark(name, fpr, tpr), Mark(name, tpr, float(truth[above].mean())))
    return _draw_pair("Images", named, marks)


def _draw_mean(title: str, curves: Mapping[str, Curve]) -> list[Chart]:
    """Each category thin behind the mean of all."""
    if not curves:
        return []
    return _draw_pair(title, {"mean": average_curves([*curves.values()])}, (), curves)


def _draw_pair(
    title: str,
    curves: Mapping[str, Curve],
    marks: Sequence[Mark] = (),
    behind: Mapping[str, Curve] | None = None,
) -> list[Chart]:
    """ROC and precision-recall of the same curves, the first one on top.

    Args:
        title: what is ranked.
        curves: name -> curve.
        marks: a point for each of the two charts, or none.
        behind: thin curves without a place in the legend.
    """
    thin, named = [*(behind or {}).values()], [*curves.items()][::-1]
    styles = {name: number for number, name in enumerate(curves)}
    roc = [Line("", one.fpr, one.tpr, 0, faint=True) for one in thin]
    roc += [Line(name, one.fpr, one.tpr, styles[name]) for name, one in named]
    pr = [Line("", *step_before(one.recall, one.precision), 0, faint=True) for one in thin]
    pr += [Line(name, *step_before(one.recall, one.precision), styles[name]) for name, one in named]
    shown = dict(curves) | (dict(behind) if behind else {})
    return [
        draw_chart(
            f"{title}: ROC",
            roc,
            x_label="false positive rate",
            y_label="true positive rate",
            said=_say("true positive rate by false positive rate", shown),
            x_range=SHARE,
            y_range=SHARE,
            marks=marks[:1],
            table=_read(shown, "true positive rate at false positive rate", RATES, Curve.read_tpr),
        ),
        draw_chart(
            f"{title}: precision and recall",
            pr,
            x_label="recall",
            y_label="precision",
            said=_say("precision by recall", shown),
            x_range=SHARE,
            y_range=SHARE,
            marks=marks[1:],
            table=_read(shown, "precision at recall", RECALLS, Curve.read_precision),
        ),
    ]


def _say(what: str, curves: Mapping[str, Curve]) -> str:
    return f"Line chart of {what}, {len(curves)} curve(s). The numbers stand below."


def _read(curves: Mapping[str, Curve], caption: str, at: Sequence[float], read: object) -> Table:
    """What the curves are at some places, in percent."""
    assert callable(read)
    lines = [
        [name, *(format_cell(100 * float(value)) for value in np.asarray(read(curve, at)))]
        for name, curve in curves.items()
    ]
    return Table(f"{caption} [%]", ["", *(f"{100 * place:g}\u00a0%" for place in at)], lines)
