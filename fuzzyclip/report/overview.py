"""The first picture of a report: a defect of every tested dataset, and normal images beside them.

Which images stand there a rule says that flatters nothing: of the kept defects of a dataset the one
whose map is as good as that of half of them; of all kept normal images, in the order of their maps'
means, the one in the middle and the one at nine tenths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fuzzyclip.evaluation.metrics import compute_average_precision, rank
from fuzzyclip.report.gallery import DPI, Example, draw_example, mark_ticks, place_axes

TITLE = "What FuzzyCLIP marks in datasets that it was not trained on"
RULE = (
    "Of each dataset's kept defects the one whose pixel AP is the median (lower of two). On the "
    "right, of all kept normal images in the order of their maps' means: the middle one, and the "
    "one at nine tenths."
)
ROWS = ("image", "ground truth", "anomaly map")
#: Where the normal images stand in the order of their maps' means, 0 to 1.
NORMAL_PLACES = (0.5, 0.9)
#: Inches: the whole width, the row's name, the space between pictures, titles of the figure and of
#: a column, the colour bar with its label.
WIDTH, NAME, GAP, HEAD, TOP, FOOT = 1340 / DPI, 0.3, 0.05, 0.65, 0.72, 0.6
#: Inches between defects and normal images.
SPLIT = 0.2
#: Inches of a picture where there are few.
LARGEST = 1.8
#: Letters of a line of a column's title; the rest of a longer one is left out.
LETTERS = 22


def choose_overview(
    anomalous: Mapping[str, Sequence[Example]], normal: Mapping[str, Sequence[Example]]
) -> tuple[list[Example], list[Example]]:
    """Defects and normal images of the overview; dataset and pixel AP join the titles.

    Args:
        anomalous: title of a dataset -> kept anomalous images. Where none has a mask, it is the
            one in the middle.
        normal: the same of normal images.
    """
    defects = []
    for dataset, examples in anomalous.items():
        if examples:
            example, precision = _choose_median(examples)
            shown = "" if precision is None else f"\npixel AP {100 * precision:.0f} %"
            defects.append(replace(example, title=f"{dataset}\n{example.title}{shown}"))
    calm = [
        replace(example, title=f"{dataset}\n{example.title}")
        for dataset, examples in normal.items()
        for example in examples
    ]
    calm.sort(key=lambda example: float(example.anomaly_map.mean()))
    places = dict.fromkeys(round(place * (len(calm) - 1)) for place in NORMAL_PLACES)
    return defects, [calm[place] for place in places if calm]


def _shorten(line: str) -> str:
    """A line that does not reach into the next column."""
    return line if len(line) <= LETTERS else f"{line[: LETTERS - 1]}…"


def _choose_median(examples: Sequence[Example]) -> tuple[Example, float | None]:
    """The example whose pixel AP, as a fraction, is the median, the lower of two."""
    known = [
        (compute_average_precision(ranking), number)
        for number, example in enumerate(examples)
        if (ranking := rank(example.anomaly_map, example.mask)) is not None
    ]
    if not known:
        return examples[(len(examples) - 1) // 2], None
    precision, number = sorted(known)[(len(known) - 1) // 2]
    return examples[number], precision


def draw_overview(defects: Sequence[Example], normal: Sequence[Example]) -> Figure:
    """Defects, then normal images: image, ground truth and map under one another, the rule above.

    Raises:
        ValueError: there is none.
    """
    examples = [*defects, *normal]
    if not examples:
        raise ValueError("an overview needs an image")
    cell = min(LARGEST, (WIDTH - NAME - SPLIT) / len(examples))
    figure = Figure(figsize=(WIDTH, HEAD + TOP + len(ROWS) * cell + FOOT))
    left = (WIDTH - NAME - SPLIT - cell * len(examples)) / 2 + NAME
    height = figure.get_figheight()
    figure.text(0.5, 1 - 0.12 / height, TITLE, fontsize=14, ha="center", va="top")
    figure.text(0.5, 1 - 0.45 / height, RULE, fontsize=7.5, ha="center", va="top", color="#444444")
    shown = None
    for column, example in enumerate(examples):
        panels: list[Axes] = []
        for row, name in enumerate(ROWS):
            top, side = HEAD + TOP + cell * row, cell - GAP
            start = left + cell * column + (SPLIT if column >= len(defects) else 0)
            panels.append(place_axes(figure, start, top, side, side))
            if column == 0:
                middle = 1 - (top + side / 2) / height
                x = (left - 0.08) / WIDTH
                figure.text(x, middle, name, fontsize=9, rotation=90, ha="right", va="center")
        shown = draw_example(panels, example)
        lines = [_shorten(line) for line in example.title.splitlines()]
        panels[0].set_title("\n".join(lines), fontsize=7.5)
    if shown is not None:
        bar = place_axes(figure, WIDTH / 2 - 2.5, height - FOOT + 0.08, 5, 0.12)
        drawn = figure.colorbar(shown, cax=bar, orientation="horizontal")
        mark_ticks(drawn)
        drawn.ax.tick_params(labelsize=7)
        drawn.set_label("mean anomalous probability; outlined: the ground truth", fontsize=8)
    return figure
