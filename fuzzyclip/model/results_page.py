"""One HTML page of a folder of predictions, to be looked through, printed and sent with the folder.

It needs no network and runs nothing; pictures are the overlays beside it.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from fuzzyclip.model.card import Threshold
from fuzzyclip.model.choices import ANY_CATEGORY
from fuzzyclip.model.prediction import DECISIONS
from fuzzyclip.model.separation import to_percent

STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 1.5rem auto; max-width: 62rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8886; padding: .35rem .6rem; text-align: left;
  vertical-align: top; white-space: nowrap; }
td.name { overflow-wrap: anywhere; white-space: normal; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
img { display: block; height: 15rem; max-width: 22rem; object-fit: contain; }
li { overflow-wrap: anywhere; }
.anomalous { font-weight: 700; }
@media (max-width: 45rem) { thead { display: none; }
  tr { border-bottom: 1px solid #8886; display: block; padding: .5rem 0; }
  td { border: 0; display: inline-block; padding: .1rem .6rem .1rem 0; }
  td.picture, td.name { display: block; } img { height: auto; max-width: 100%; }
  ul { padding-left: 1.2rem; } }
@media print { thead { display: table-header-group; } tr { break-inside: avoid; }
  body { max-width: none; margin: 0; } img { height: 9rem; } }
"""
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
"""


def render_results(
    rows: Sequence[Mapping[str, Any]],
    *,
    model: str,
    category: str,
    threshold: Threshold,
    pixel_threshold: Threshold,
    notes: Sequence[str] = (),
    named: bool = True,
) -> str:
    """The page of some images: counts, thresholds, and a line each, highest score first.

    Args:
        rows: as `Prediction.to_row` gives them, with `overlay`, the path of the picture from the
            page, empty for none; images that could not be read have an `error` and come first.
        model, category: their names.
        threshold, pixel_threshold: of image scores and of the map.
        notes: what else is to be said.
        named: whether the category's name took part.
    """
    unread = [row for row in rows if row["error"]]
    read = sorted((row for row in rows if not row["error"]), key=lambda row: -row["image_score"])
    anomalous = sum(row["decision"] == DECISIONS[1] for row in read)
    counts = f"{len(rows)} image{'s' * (len(rows) != 1)}: "
    counts += f"{anomalous} anomalous, {len(read) - anomalous} normal"
    counts += f", {len(unread)} could not be read" if unread else ""
    seen = f"Model {model}, looking at the images as {category!r}"
    facts = [
        counts,
        seen if named else f"Model {model}: its frozen image tower alone, without a name or a text",
        f"Anomalous from a score of {threshold.value:+.4f} on{_explain(threshold)}",
        f"Outlined from {pixel_threshold.value:.4g} on{_explain(pixel_threshold)}",
        *notes,
    ]
    title = f"Inspection: {category}" if named or category != ANY_CATEGORY else "Inspection"
    lines = [HEAD.format(title=escape(title), style=STYLE), "<ul>"]
    lines += [f"<li>{escape(fact)}</li>" for fact in facts]
    lines += ["</ul>", *_list_unread(unread)]
    lines += [
        '<table>\n<thead><tr><th>picture</th><th>image</th><th>decision</th><th class="number">'
        'score</th><th class="number">probability</th><th class="number">outlined</th></tr></thead>'
        "\n<tbody>",
        *map(_draw_row, read),
        "</tbody>\n</table>\n</body>\n</html>\n",
    ]
    return "\n".join(lines)


def _explain(threshold: Threshold) -> str:
    """How a threshold was chosen, after its value; a natural one's note says it all."""
    how = {
        "f1_max": "chosen for the largest F1",
        "quantile": "chosen by the false alarm rate",
        "given": "given by hand",
    }
    words = how.get(threshold.method, "")
    if threshold.method in ("f1_max", "quantile"):
        words += f" on {threshold.normal} normal and {threshold.anomalous} anomalous images"
    return f" ({'; '.join(filter(None, (words, threshold.note)))})"


def _list_unread(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    errors = [f"<li>{escape(row['error'])}</li>" for row in rows]
    return ["<h2>Not inspected</h2>", "<ul>", *errors, "</ul>", "<h2>Inspected</h2>"]


def _draw_row(row: Mapping[str, Any]) -> str:
    name, decision = escape(row["image"]), escape(row["decision"])
    picture = ""
    if row["overlay"]:
        address = escape(quote(row["overlay"]))
        picture = f'<a href="{address}"><img src="{address}" alt="overlay" loading="lazy"></a>'
    return (
        f'<tr><td class="picture">{picture}</td><td class="name">{name}</td>'
        f'<td class="{decision}">{decision}</td>'
        f'<td class="number">{row["image_score"]:+.2f}</td>'
        f'<td class="number">{to_percent(row["probability"])}</td>'
        f'<td class="number">{to_percent(row["defect_share"])}</td></tr>'
    )
