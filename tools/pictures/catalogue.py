"""Every picture of docs/images: what it is made from, and how."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tools.pictures import experiments, methods, overlays
from tools.pictures.browser import open_page, take_picture
from tools.pictures.sources import (
    FOLDER,
    check_outputs,
    digest_sources,
    read_outputs,
    save_picture,
)

#: Size of the page in CSS pixels, and of one of them in the picture.
PAGE_SIZE, PAGE_SCALE = (1200, 860), 0.75


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        sources: paths in the checkout, of stages' outputs or committed files, that decide it. Code
            stands among them where no stage's output has it in itself.
        draw: makes it, given the checkout.
    """

    sources: Sequence[str]
    draw: Callable[[Path], Image.Image]


def draw_heatmaps(root: Path) -> Image.Image:
    """The report's overview as it is."""
    with Image.open(root / "report/overview.png") as image:
        return image.convert("RGB")


def draw_page(root: Path) -> Image.Image:
    """The page at the begin of its gallery."""
    with open_page(*PAGE_SIZE, PAGE_SCALE) as page:
        page.goto(f"{(root / 'page/index.html').as_uri()}#gallery")
        return take_picture(page)


PICTURES = {
    "heatmaps": Picture(["report"], draw_heatmaps),
    "page": Picture(["page"], draw_page),
    "overlays": Picture(
        [overlays.MODEL, overlays.IMAGES, overlays.METRICS, "fuzzyclip/report/heatmaps.py",
         "tools/pictures/overlays.py"],
        overlays.draw,
    ),
    "methods": Picture([methods.TABLE, "tools/pictures/methods.py"], methods.draw),
    "experiments": Picture(experiments.SOURCES, experiments.draw),
}  # fmt: skip


def make_picture(root: Path, name: str) -> Path:
    """Make one picture of a checkout; gives its file.

    Raises:
        PictureError: something is missing; says what, and how it is had.
    """
    picture, outputs = PICTURES[name], read_outputs(root)
    check_outputs(root, outputs, picture.sources)
    sources = digest_sources(root, outputs, picture.sources)
    path = root / FOLDER / f"{name}.png"
    save_picture(picture.draw(root), path, sources)
    return path
