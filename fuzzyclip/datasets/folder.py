"""Images of your own: a folder in MVTec AD's layout, a plain folder a defect, or meta.json.

`mvtec_like`: `<category>/{train/good,test/good,test/<defect>}`, masks in
`<category>/ground_truth/<defect>/NNN_mask.png`; also the layouts of MVTec LOCO, MVTec AD 2 and
KolektorSDD2. `good_bad`: `<category>/{good,<defect>,...}`, all tested, masks in
`<category>/ground_truth/<defect>/`. In both the category's folder may be left out: the dataset is
then one category, named by the parameter, else by the dataset. `auto` takes what it finds, category
by category. Masks are optional, category by category. `fuzzyclip.datasets.base.folder_names` has
the names, which are compared without case.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fuzzyclip.datasets.base.accounting import holds_results
from fuzzyclip.datasets.base.folder_names import (
    NORMAL_NAMES,
    TRUTH_NAMES,
    UNLABELLED,
    find_inside,
    find_split,
    fold,
)
from fuzzyclip.datasets.base.labelled_folders import Part, is_labelled, list_part
from fuzzyclip.datasets.base.layouts import list_folders
from fuzzyclip.datasets.base.meta import FILENAME, read_meta
from fuzzyclip.datasets.base.spec import DatasetSpec, Listing, Note, Problem, Protocol, Unused
from fuzzyclip.images.names import describe_names, is_image_name, is_visible
from fuzzyclip.utils.tree import look_at_tree

LOGGER = logging.getLogger(__name__)
MVTEC_LIKE, GOOD_BAD = "mvtec_like", "good_bad"
MAX_WRAPPERS = 3
EXPECTED = (
    "move them into one of <category>/test/<good|defect>/, <category>/<good|defect>/"
    f", the same without <category>/, images beside masks, or write {FILENAME} (good may be called "
    f"{', '.join(NORMAL_NAMES)}; docs/datasets.md shows all)"
)
NOT_ASKED = Unused("of a category that was not asked for")
WITHOUT_LABELS = Unused("test images without labels")
NEVER_TESTED = (
    "there is no folder test, and what lies in {names} is never tested; rename the one to be "
    "tested to test"
)


class Place(NamedTuple):
    """A category's folder and its layout."""

    folder: Path
    layout: str


def list_rows(root: Path, categories: Sequence[str], *, layout: str) -> Listing:
    """Rows of a folder, its layout given or found."""
    if layout == "auto" and (root / FILENAME).is_file():
        LOGGER.info("%s has a %s, which says what belongs where", root, FILENAME)
        return read_meta(root, categories, aliases={})
    layouts = (MVTEC_LIKE, GOOD_BAD) if layout == "auto" else (layout,)
    top = root
    for _ in range(MAX_WRAPPERS):
        if places := find_categories(top, root.name, categories, layouts):
            return list_categories(root, top, places, categories)
        inside = [path for path in list_folders(top) if not holds_results(path)]
        if len(inside) != 1:
            break
        top = inside[0]  # folders that an archive has wrapped around the data
    return Listing(problems=[Problem(str(root), describe_unknown(root), fatal=True)])


def describe_unknown(root: Path) -> str:
    """What a folder has that is laid out in none of the layouts, and which layouts are read."""
    names = [name for name in look_at_tree(root).files if all(map(is_visible, name.split("/")))]
    images = list(filter(is_image_name, names))
    examples = f" ({describe_names(images or names, 2)})" if names else ""
    there = f"{len(images):,} of {len(names):,} files are images{examples}"
    return f"no images in a layout that is known: {there}; {EXPECTED}"


def find_categories(
    top: Path, dataset: str, categories: Sequence[str], layouts: Sequence[str]
) -> dict[str, Place]:
    """Category -> its place; empty if `top` is laid out in none of the layouts."""
    if own := find_layout(top, layouts):
        return {categories[0] if len(categories) == 1 else dataset: Place(top, own)}
    inside = [path for path in list_folders(top) if not holds_results(path)]
    inside = [path for path in inside if not find_split(path.name)]
    laid_out = {path: find_layout(path, layouts) for path in inside}
    return {path.name: Place(path, own) for path, own in laid_out.items() if own}


def find_layout(folder: Path, layouts: Sequence[str]) -> str:
    """The first layout in which a folder is one category; empty if in none."""
    if MVTEC_LIKE in layouts and any(find_split(path.name) for path in list_folders(folder)):
        return MVTEC_LIKE
    return GOOD_BAD if GOOD_BAD in layouts and is_labelled(folder) else ""


def list_categories(
    root: Path, top: Path, places: Mapping[str, Place], categories: Sequence[str]
) -> Listing:
    """Rows of every category, of those that are asked for if any are."""
    listing = Listing(whole=True)
    for layout in sorted({place.layout for place in places.values()}):
        names = [name for name, place in places.items() if place.layout == layout]
        LOGGER.info("%s is laid out as %s: %s", top, layout, ", ".join(names))
    if categories and all(place.folder != top for place in places.values()):
        others = [path for path in list_folders(top) if path.name not in categories]
        listing.unused |= {path.relative_to(root).as_posix(): NOT_ASKED for path in others}
    for category, (folder, layout) in places.items():
        if categories and category not in categories:
            continue
        if layout == MVTEC_LIKE:
            listing.extend(list_splits(root, folder, category))
        else:
            listing.extend(list_part(root, Part(folder, category, "test")))
    return listing


def list_splits(root: Path, top: Path, category: str) -> Listing:
    """Rows of the folders train, validation and test of a category."""
    inside = list_folders(top)
    splits = {path: split for path in inside if (split := find_split(path.name))}
    tested = [path for path, split in splits.items() if split == "test"]
    if not tested:
        names = ", ".join(path.name for path in splits)
        return Listing(problems=[Problem(str(top), NEVER_TESTED.format(names=names), fatal=True)])
    listing = Listing()
    truths = find_inside(inside, TRUTH_NAMES)
    mirrored = [path for truth in truths for path in list_folders(truth) if find_split(path.name)]
    for folder, split in splits.items():
        masks = find_inside(mirrored, (fold(folder.name),))
        if folder == tested[0]:  # of training images there are no masks, unless by split
            masks += [truth for truth in truths if truth not in {path.parent for path in mirrored}]
        listing.extend(list_part(root, Part(folder, category, split, tuple(masks))))
        if split == "train" and not fold(folder.name).startswith("train"):
            place = folder.relative_to(root).as_posix()
            listing.notes.append(Note(f"{place}: counts as training, and is never tested"))
    for folder in inside:
        if UNLABELLED.fullmatch(fold(folder.name)):
            listing.unused[folder.relative_to(root).as_posix()] = WITHOUT_LABELS
    return listing


SUMMARIES = {
    "auto": "all images of the folder, in the layout that is found",
    MVTEC_LIKE: "the test folders, in MVTec AD's layout",
    GOOD_BAD: "all images, in one folder of good ones and others named by their defect",
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
