"""Images of your own: a folder in MVTec AD's layout, a plain folder a defect, or meta.json.

`mvtec_like`: `<category>/{train/good,test/good,test/<defect>}`, masks in
`<category>/ground_truth/<defect>/NNN_mask.png`. `good_bad`: `<category>/{good,<defect>,...}`, all
tested, masks in `<category>/ground_truth/<defect>/`. In both the category's folder may be left out:
the dataset is then one category, named by the parameter, else by the dataset. `auto` takes what it
finds. Masks are optional, category by category.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fuzzyclip.datasets.base.layouts import list_category, list_defect, list_folders
from fuzzyclip.datasets.base.meta import FILENAME, read_meta
from fuzzyclip.datasets.base.spec import SPLITS, DatasetSpec, Listing, Problem, Protocol

LOGGER = logging.getLogger(__name__)
NORMAL_NAMES = ("good", "ok", "normal")
TRUTH_NAMES = ("ground_truth", "masks")
MAX_WRAPPERS = 3
EXPECTED = (
    "no images in a layout that is known: <category>/test/<good|defect>/, <category>/<good|defect>/"
    f", the same without <category>/, or {FILENAME} (good may be called {', '.join(NORMAL_NAMES)})"
)


def list_rows(root: Path, categories: Sequence[str], *, layout: str) -> Listing:
    """Rows of a folder, its layout given or found."""
    if layout == "auto" and (root / FILENAME).is_file():
        LOGGER.info("%s has a %s, which says what belongs where", root, FILENAME)
        return read_meta(root, categories, aliases={})
    layouts = ("mvtec_like", "good_bad") if layout == "auto" else (layout,)
    top = root
    for _ in range(MAX_WRAPPERS):
        for name in layouts:
            if folders := find_categories(top, root.name, categories, name):
                LOGGER.info("%s is laid out as %s: %s", top, name, ", ".join(folders))
                return list_categories(root, folders, name)
        inside = list_folders(top)
        if len(inside) != 1:
            break
        top = inside[0]  # folders that an archive has wrapped around the data
    return Listing([], [Problem(str(root), EXPECTED, fatal=True)])


def find_categories(
    top: Path, dataset: str, categories: Sequence[str], layout: str
) -> dict[str, Path]:
    """Category -> its folder; empty if `top` is not laid out so."""
    if has_layout(top, layout):
        return {categories[0] if len(categories) == 1 else dataset: top}
    inside = [path for path in list_folders(top) if path.name not in SPLITS]
    folders = {path.name: path for path in inside if has_layout(path, layout)}
    return {name: path for name, path in folders.items() if not categories or name in categories}


def has_layout(folder: Path, layout: str) -> bool:
    """True for a folder that is one category in a layout."""
    names = {path.name for path in list_folders(folder)}
    return "test" in names if layout == "mvtec_like" else bool(names & set(NORMAL_NAMES))


def list_categories(root: Path, folders: dict[str, Path], layout: str) -> Listing:
    """Rows of every category."""
    listing = Listing([], [])
    for category, top in folders.items():
        if layout == "mvtec_like":
            listing.extend(list_category(root, top, category, NORMAL_NAMES))
        else:
            listing.extend(list_good_bad(root, top, category))
    return listing


def list_good_bad(root: Path, top: Path, category: str) -> Listing:
    """Rows of plain folders: one of normal images, the others named by their defect; all tested."""
    listing = Listing([], [])
    truths = [top / name for name in TRUTH_NAMES if (top / name).is_dir()]
    for folder in list_folders(top):
        if folder in truths:
            continue
        truth = truths[0] / folder.name if truths else None
        listing.extend(list_defect(root, folder, truth, category, "test", NORMAL_NAMES))
    return listing


SUMMARIES = {
    "auto": "all images of the folder, in the layout that is found",
    "mvtec_like": "the test folders, in MVTec AD's layout",
    "good_bad": "all images, in one folder of good ones and others named by their defect",
}

FOLDER = DatasetSpec(
    name="folder",
    title="own images",
    page="",
    licence="your own",
    archives=(),
    categories={},
    protocols={
        name: Protocol(summary, partial(list_rows, layout=name))
        for name, summary in SUMMARIES.items()
    },
    instructions="Give the folder, or an archive of it, as the dataset's path.",
    masks="optional",
)
