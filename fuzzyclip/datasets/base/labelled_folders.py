"""Folders whose names say what the images inside show: normal ones, defects, masks.

`good` beside a folder for each kind of defect; what lies deeper belongs to the outer folder. Where
images lie flat beside masks, the masks say which are normal (KolektorSDD2). A name that leaves it
open is a fault, since a folder of normal images that counts as a defect spoils every number.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fuzzyclip.datasets.base.accounting import find_pictured, holds_results, is_own_result
from fuzzyclip.datasets.base.folder_names import (
    IMAGES_NAMES,
    LIKE_ANOMALOUS,
    NORMAL_NAMES,
    TRUTH_NAMES,
    UNLIKE_DEFECTS,
    find_inside,
    find_split,
    fold,
    is_like_normal,
    is_normal,
    is_truth,
)
from fuzzyclip.datasets.base.layouts import list_folders, list_images, make_row
from fuzzyclip.datasets.base.pairing import (
    Picture,
    list_masks,
    pair_pictures,
    split_off_masks,
)
from fuzzyclip.datasets.base.spec import (
    BY_MASK,
    GOOD,
    IndexRow,
    Listing,
    Note,
    Problem,
    Unused,
)
from fuzzyclip.images.names import describe_names

USUAL_TRUTH = "ground_truth"
UNMASKED = Unused(
    "no mask says that it is normal or has a defect; give it one, or put images into folders of "
    "normal ones and of defects",
    fault=True,
)


class Part(NamedTuple):
    """Images of one category and split.

    Attributes:
        folder: theirs.
        truths: folders of masks outside of it.
    """

    folder: Path
    category: str
    split: str
    truths: tuple[Path, ...] = ()


class Contents(NamedTuple):
    """Pictures below a folder, without those in folders of masks, and these folders."""

    pictures: list[Picture]
    truths: list[tuple[Path, tuple[str, ...]]]


def enter_images(folder: Path) -> tuple[Path, tuple[Path, ...]]:
    """The folder `images` of a folder that has only that and masks, else itself; the masks' ones.

    Those are given only with `images`, for they lie outside of it.
    """
    inside = list_folders(folder)
    truths = find_inside(inside, TRUTH_NAMES)
    candidates = find_inside(inside, IMAGES_NAMES)
    others = [path for path in inside if path not in (*truths, *candidates)]
    alone = len(candidates) == 1 and not (list_images(folder) or any(map(holds_pictures, others)))
    return (candidates[0], tuple(truths)) if alone else (folder, ())


def is_labelled(folder: Path) -> bool:
    """True for a folder whose folders say what is normal, or where masks do."""
    top, truths = enter_images(folder)
    inside = list_folders(top)
    if any(is_normal(path.name) for path in inside):
        return True
    if any(is_like_normal(path.name) and list_images(path) for path in inside):
        return True
    flat = [Picture(path, path.stem, ()) for path in list_images(top)]
    own = find_inside(inside, TRUTH_NAMES)
    if not flat or any(holds_pictures(path) for path in inside if path not in own):
        return False
    return bool(split_off_masks(flat)[1]) or any(map(holds_pictures, (*truths, *own)))


def holds_pictures(folder: Path) -> bool:
    """True if there is an image file somewhere below a folder."""
    return bool(list_images(folder)) or any(map(holds_pictures, list_folders(folder)))


def read_contents(folder: Path, truths: Sequence[Path] = ()) -> Contents:
    """Pictures and folders of masks at any depth, without results of `fuzzyclip predict`.

    A folder that is called as one of masks is one of images if another one of masks has a folder
    of its name: `test/label` where `ground_truth/label` is.
    """
    contents = Contents([], [])
    _read(folder, (), truths, contents)
    return contents


def _read(folder: Path, names: tuple[str, ...], truths: Sequence[Path], contents: Contents) -> None:
    """Add what is below a folder, which lies in folders of these names."""
    images = list_images(folder)
    pictured = find_pictured(path.name for path in images)
    contents.pictures.extend(
        Picture(path, path.stem, names) for path in images if not is_own_result(path.name, pictured)
    )
    inside = list_folders(folder)
    known = [*truths, *find_inside(inside, TRUTH_NAMES)]
    for deeper in inside:
        others = (folder for truth in known if truth != deeper for folder in list_folders(truth))
        if is_truth(deeper.name) and not find_inside([*others], (fold(deeper.name),)):
            contents.truths.append((deeper, names))
        elif not holds_results(deeper):
            _read(deeper, (*names, fold(deeper.name)), truths, contents)


def list_part(root: Path, part: Part) -> Listing:
    """Rows of a part, labelled by its folders or, where images lie flat, by their masks."""
    folder, beside = enter_images(part.folder)
    contents = read_contents(folder, truths := (*part.truths, *beside))
    images, masks = split_off_masks(contents.pictures)
    beside_images = len(masks)
    for truth, names in [*((truth, ()) for truth in truths), *contents.truths]:
        masks += list_masks(truth, images, names)
    labelled = [image for image in images if image.folders]
    listing = Listing()
    if labelled:
        labels = _label(root, folder, labelled, listing)
        normal = [path for path, defect in labels.items() if defect == GOOD]
        pairs = pair_pictures(labelled, masks, normal)
        listing.rows += [
            make_row(root, path, pairs.masks.get(path), part.category, part.split, defect)
            for path, defect in labels.items()
        ]
    else:
        pairs = pair_pictures(images, masks, ())
        if masks:
            _list_unlabelled(root, part, [image.path for image in images], pairs.masks, listing)
    listing.unused.update({_relate(root, path): why for path, why in pairs.unused.items()})
    _check_stems(root, listing.rows, listing)
    listing.notes = [
        note._replace(text=f"{part.category}, {part.split}: {note.text}")
        for note in [*listing.notes, *_note_masks(root, masks, beside_images)]
    ]
    return listing


def _note_masks(root: Path, masks: Sequence[Picture], beside: int) -> list[Note]:
    """Say which pictures count as masks, where the folder's name is not the usual one.

    The first `beside` ones lie beside their images.
    """
    notes = []
    if names := sorted(_relate(root, mask.path) for mask in masks[:beside]):
        notes.append(Note(f"taken as masks of the images beside them: {describe_names(names)}"))
    apart = {mask.path.parent for mask in masks[beside:] if USUAL_TRUTH not in mask.path.parts}
    if places := sorted(_relate(root, place) for place in apart):
        notes.append(Note(f"taken as folders of masks: {describe_names(places)}"))
    return notes


def _label(
    root: Path, folder: Path, images: Sequence[Picture], listing: Listing
) -> dict[Path, str]:
    """Defect by image; what leaves it open becomes a fault of the listing."""
    by_place: dict[Path, list[Path]] = defaultdict(list)
    for image in images:
        by_place[image.path.parent].append(image.path)
    labels: dict[Path, str] = {}
    defects, deeper = set(), set()
    for place, paths in by_place.items():
        names = place.relative_to(folder).parts
        if doubt := _find_doubt(names):
            files = tuple(_relate(root, path) for path in paths)
            listing.problems.append(Problem(str(place), doubt, files=files))
            continue
        defect = GOOD if is_normal(names[0]) else names[0]
        labels |= dict.fromkeys(paths, defect)
        defects |= {defect} - {GOOD}
        deeper |= {_relate(root, place)} if len(names) > 1 else set()
    _note_folders(sorted(defects), sorted(deeper), listing)
    return labels


def _find_doubt(names: Sequence[str]) -> str:
    """Why folders, outermost first, leave it open what their images show; empty if they do not."""
    outer, inner = names[0], names[1:]
    if is_like_normal(outer):
        return (
            f"{outer!r} may be called so for normal images or for a defect; rename it: "
            f"{NORMAL_NAMES[0]} if they are normal, to the defect's name if not"
        )
    for name in names:
        if find_split(name):
            return (
                f"{name!r} is called like a part of a split, but lies among folders of labels; put "
                f"the split outside: {name}/{outer if name != outer else NORMAL_NAMES[0]}"
            )
    if is_normal(outer):
        doubtful = [name for name in inner if LIKE_ANOMALOUS.fullmatch(fold(name))]
    else:
        doubtful = [name for name in inner if is_normal(name) or is_like_normal(name)]
    if doubtful:
        return (
            f"{doubtful[0]!r} inside {outer!r}: the two say different things; move it beside the "
            f"other, and where {outer!r} is a category put that outermost"
        )
    return ""


def _note_folders(defects: Sequence[str], deeper: Sequence[str], listing: Listing) -> None:
    """Say which folders count as what, before the numbers do."""
    unusual = [name for name in defects if UNLIKE_DEFECTS.fullmatch(fold(name))]
    usual = [name for name in defects if name not in unusual]
    if usual:
        listing.notes.append(Note(f"taken as defects: {', '.join(usual)}"))
    if unusual:
        text = f"taken as defects, though not called like any: {', '.join(unusual)}"
        listing.notes.append(Note(text, warning=True))
    if deeper:
        text = f"images deeper inside count as their outer folder's: {describe_names(deeper)}"
        listing.notes.append(Note(text))


def _list_unlabelled(
    root: Path, part: Part, images: Sequence[Path], masks: Mapping[Path, Path], listing: Listing
) -> None:
    """Rows of images whose masks will say what they are, and a fault for each one without."""
    for path in images:
        if path in masks:
            row = make_row(root, path, masks[path], part.category, part.split, GOOD)
            listing.rows.append(row._replace(label=BY_MASK, defect=""))
        else:
            listing.unused[_relate(root, path)] = UNMASKED


def _check_stems(root: Path, rows: Sequence[IndexRow], listing: Listing) -> None:
    """Tell of pictures that are there twice in other formats, of which each would count."""
    first: dict[Path, str] = {}
    for row in rows:
        path = root / row.image_path
        other = first.setdefault(path.with_suffix(""), path.name)
        if other != path.name:
            listing.problems.append(Problem(str(path), f"second image of this stem beside {other}"))


def _relate(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
