"""Overlays of `fuzzyclip predict` on parts that neither training nor calibration has seen.

Which ones is a rule that knows no picture: the category whose pixel AP is the median of MVTec AD's
(of two in the middle the lower one), there the first normal image and the first of each of four
kinds of defects, by the alphabet, that the thresholds were not chosen on. Those are chosen on the
first, third, fifth ... image of every kind, with masks.
"""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from fuzzyclip.method import OWN
from fuzzyclip.report.tables import read_categories
from tools.pictures.sources import PictureError

#: The results by category, the images, and a model that was trained on others.
METRICS = "metrics/methods/fuzzyclip/mvtec.csv"
IMAGES = "data/raw/mvtec"
MODEL = "models/visa/fuzzyclip"
#: MVTec AD's folder of normal images, and how many kinds of defects are shown beside it.
NORMAL, DEFECTS = "good", 4
#: Pixels of an overlay, between two, and of the line above each.
WIDTH, GAP, TITLE = 240, 10, 20


def draw(root: Path) -> Image.Image:
    """The overlays side by side, each under its kind and what the model says of it."""
    from fuzzyclip import FuzzyCLIP
    from fuzzyclip.model.calibration import calibrate
    from fuzzyclip.model.storing import store

    category = choose_category(read_categories(root / METRICS))
    folder = root / IMAGES / category
    seen, shown = divide(folder)
    normal = [path for path in seen if path.parent.name == NORMAL]
    anomalous = [path for path in seen if path.parent.name != NORMAL]
    masks = [
        folder / "ground_truth" / path.parent.name / f"{path.stem}_mask.png" for path in anomalous
    ]
    chosen = calibrate(FuzzyCLIP.load(root / MODEL), category, normal, anomalous, masks)
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        store(root / MODEL, category, chosen.calibration, out=model)
        predictions = FuzzyCLIP.load(model)(shown, category)
    titles = [
        f"{category}, {path.parent.name}: {prediction.decision}"
        for path, prediction in zip(shown, predictions, strict=True)
    ]
    return put_together([prediction.overlay() for prediction in predictions], titles)


def choose_category(results: pd.DataFrame) -> str:
    """The category of median pixel AP; of two in the middle the lower one."""
    own = results[results["variant"] == OWN].set_index("category")["pixel_ap"]
    return str(own[own == statistics.median_low(own)].index[0])


def divide(folder: Path) -> tuple[list[Path], list[Path]]:
    """Images of a category to calibrate on, of all kinds, and those to show.

    Raises:
        PictureError: a kind has fewer than two images; names its folder.
    """
    kinds = sorted(path.name for path in (folder / "test").iterdir() if path.is_dir())
    kinds = [NORMAL, *(kind for kind in kinds if kind != NORMAL)]
    images = {kind: sorted((folder / "test" / kind).glob("*.png")) for kind in kinds}
    for kind, files in images.items():
        if len(files) < 2:
            raise PictureError(f"{folder / 'test' / kind}: one image to calibrate, one to show")
    seen = [path for files in images.values() for path in files[::2]]
    return seen, [images[kind][1] for kind in kinds[: 1 + DEFECTS]]


def put_together(overlays: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """Images side by side at one width, a line of text above each."""
    sized = [
        overlay.resize((WIDTH, round(overlay.height * WIDTH / overlay.width)), Image.Resampling.BOX)
        for overlay in overlays
    ]
    width = (WIDTH + GAP) * len(sized) - GAP
    sheet = Image.new("RGB", (width, TITLE + max(overlay.height for overlay in sized)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, (overlay, title) in enumerate(zip(sized, titles, strict=True)):
        left = (WIDTH + GAP) * number
        draw.text((left, 2), title, fill="black", font=font)
        sheet.paste(overlay, (left, TITLE))
    return sheet
