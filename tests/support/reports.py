"""A small experiment with hostile names, as the report's page takes it, and a reader of pages."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd

from fuzzyclip.evaluation.metrics import METRICS, PIXEL_METRICS
from fuzzyclip.report.curves import trace_scores
from fuzzyclip.report.gallery import GalleryImage
from fuzzyclip.report.page import DatasetResult, PageContent

#: What runs if anything of it is not escaped.
HOSTILE = "<script>window.broken=1</script>\"'><img src=x onerror=window.broken=1>"
CATEGORIES = {"mvtec": ["metal nut", "01", HOSTILE], "own": ["a/b", "lid"]}
VARIANTS = ("precise", "fuzzyclip", "fuzzyclip_epoch_1")
SIDE = 24


class Reader(HTMLParser):
    """Elements of a page in order, with attributes, and text by element."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self.within = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.within.append(tag)

    def handle_data(self, data):
        if self.within[-1:] not in (["script"], ["style"]):
            self.text += data

    def handle_endtag(self, tag):
        if tag in self.within:
            while self.within.pop() != tag:
                pass


def make_categories(names, seed=0):
    """Per-category results; the last category has no masks, so that pixel metrics are absent."""
    index = pd.MultiIndex.from_product([VARIANTS, names], names=["variant", "category"])
    drawn = np.random.default_rng(seed).uniform(1, 99, (len(index), len(METRICS))).round(4)
    frame = pd.DataFrame(drawn, index, METRICS).reset_index()
    frame.loc[frame["category"] == names[-1], [*PIXEL_METRICS]] = np.nan
    return frame.assign(normal=6, anomalous=6, prompt="p")


def make_scores(names, seed=0):
    """Twelve images a category, scores by every variant."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "image_path": [f"data/{n}/{i}.png" for n in range(len(names)) for i in range(12)],
            "category": np.repeat(names, 12),
            "label": np.tile([0] * 6 + [1] * 6, len(names)),
            "defect": "scratch",
        }
    )
    for variant in VARIANTS:
        frame[variant] = (rng.uniform(0, 1, len(frame)) + 0.3 * frame["label"]).clip(0, 1).round(3)
    return frame


def make_examples(names, seed=0):
    """For each category an image of every kind and label."""
    rng, examples = np.random.default_rng(seed), []
    shown = [(["best"], 0), (["worst", "borderline"], 0), (["best"], 1), (["worst"], 1)]
    for name in names:
        for number, (kinds, label) in enumerate(shown):
            mask = np.zeros((SIDE, SIDE), dtype=bool)
            mask[4:9, 5:12] = label == 1
            examples.append(
                GalleryImage(
                    path=f"data/{name}/{number}.png",
                    category=name,
                    label=label,
                    defect=HOSTILE if name == HOSTILE else "scratch",
                    score=0.25 * number,
                    threshold=0.4,
                    kinds=kinds,
                    has_mask=True,
                    image=rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
                    mask=mask,
                    anomaly_map=rng.uniform(0, 1, (SIDE, SIDE)).astype(np.float32),
                )
            )
    return examples


def make_experiment(**changes):
    """All sections filled."""
    datasets = {}
    for seed, (key, names) in enumerate(CATEGORIES.items()):
        scores = make_scores(names, seed)
        parts = {name: scores[scores["category"] == name] for name in names[:-1]}
        pixels = {name: trace_scores(p["precise"], p["label"]) for name, p in parts.items()}
        datasets[key] = DatasetResult(
            title=f"{key.upper()} & co",
            auxiliary="visa",
            categories=make_categories(names, seed),
            scores=scores,
            pixels=pixels,
            examples=make_examples(names, seed),
        )
    steps = np.arange(1, 21)
    curve = pd.DataFrame({"epoch": (steps + 9) // 10, "step": steps, "loss": 5 / steps})
    several = pd.concat([curve.assign(cluster=0), curve.assign(cluster=1)])
    names = ["candle", "capsules", "pcb1", HOSTILE]
    partitions = [[names], [names[:2], names[2:]], [names[:2], names[2:3], names[3:]]]
    candidates = pd.DataFrame({"k": [1, 2, 3], "spread": [0.9, 0.1, 0], "penalty": [0.27, 0.74, 2]})
    candidates = candidates.assign(score=[1.17, 0.84, 2], clusters=partitions).to_dict("records")
    places = [[0.1, 0.2], [0.1, 0.21], [-0.3, 0.0], [-0.31, -0.1]]
    csp = {"k": 2, "clusters": partitions[1], "candidates": candidates}
    settings = {
        "notes": ["Drawn images.", HOSTILE],
        "params": {"seed": "111", "csp.penalty": "0.1", "pairs.own": HOSTILE},
        "tables": {"Table 2": pd.DataFrame({"level": ["Pixel"], HOSTILE: ["(1.0, -, 3.0)"]})},
        "tested": pd.DataFrame({"dataset": [*CATEGORIES], "licence": [HOSTILE, "none"]}),
        "datasets": datasets,
        "curves": {"EFA on visa": several, "RPL on visa": curve},
        "partitions": {"visa": csp | {"points": dict(zip(names, places, strict=True))}},
    }
    return PageContent(**(settings | changes))
