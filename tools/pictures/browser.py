"""Pages in the system's Chromium, headless: what a person would see, as an image."""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from PIL import Image

from tools.pictures.sources import PictureError

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Page

#: Names of the program, as distributions call it.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def open_page(width: int, height: int, scale: float = 1.0) -> Iterator["Page"]:
    """An empty page of a size in CSS pixels, each drawn as `scale` pixels of the image.

    Raises:
        PictureError: Chromium or Playwright is missing, or a page lacks what was looked for in it.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise PictureError(f"none of {', '.join(BROWSERS)} is installed: a screenshot needs one")
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise PictureError("Playwright is missing: pip install -e '.[dev]'") from error
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=options)
            yield browser.new_page(
                viewport={"width": width, "height": height},
                device_scale_factor=scale,
                color_scheme="light",
                reduced_motion="reduce",  # a page jumps to its sections
            )
            browser.close()
    except Error as error:
        raise PictureError(f"Chromium: {error}") from error


def take_picture(page: "Page", clip: "FloatRect | None" = None) -> Image.Image:
    """What the page shows, or a part of it, once its images are there."""
    page.wait_for_function("[...document.images].every(image => image.complete)")
    content = page.screenshot(clip=clip, animations="disabled")
    return Image.open(io.BytesIO(content)).convert("RGB")
