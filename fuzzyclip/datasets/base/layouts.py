"""Listing of dataset trees, shared by the datasets: sorted, hidden files left out, paired by stem.

Pairing by sorted position, as most conversion scripts in the field do it, goes wrong with the
first missing mask; here every mask names its image.
"""

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from fuzzyclip.datasets.base.spec import GOOD, SPLITS, IndexRow, Listing, Problem
from fuzzyclip.images.names import is_image_name, is_visible


def _list_visible(folder: Path) -> list[os.DirEntry[str]]:
    """All that people have put into a folder, sorted; a missing folder has nothing."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if is_visible(e.name)), key=lambda entry: entry.name)


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder by suffix in either case, sorted; a missing folder has none."""
    visible = _list_visible(folder)
    return [folder / e.name for e in visible if is_image_name(e.name) and e.is_file()]


def list_folders(folder: Path) -> list[Path]:
    """Visible sub-folders, sorted, without thumbnails and such; a missing folder has none."""
    return [folder / entry.name for entry in _list_visible(folder) if entry.is_dir()]


def pair_masks(
    images: Iterable[Path], masks: Iterable[Path], suffix: str
) -> tuple[dict[Path, Path], list[Problem]]:
    """Pair each mask with the image that has the same stem, whatever the extensions are.

    Args:
        images: of one defect.
        masks: of the same defect.
        suffix: what a mask's stem may carry behind the image's, "_mask" for example.

    Returns:
        image -> mask, and a problem for every mask without image, second mask and second image.
    """
    by_stem: dict[str, Path] = {}
    problems = []
    for image in images:
        if image.stem in by_stem:
            reason = f"second image of this stem beside {by_stem[image.stem].name}"
            problems.append(Problem(str(image), reason))
        by_stem[image.stem] = image
    pairs: dict[Path, Path] = {}
    for mask in masks:
        owner = by_stem.get(mask.stem) or by_stem.get(mask.stem.removesuffix(suffix))
        if owner is None:
            problems.append(Problem(str(mask), "mask without an image of this stem"))
        elif owner in pairs:
            reason = f"second mask of {owner.name} beside {pairs[owner].name}"
            problems.append(Problem(str(mask), reason))
        else:
            pairs[owner] = mask
    return pairs, problems


def make_row(
    root: Path, image: Path, mask: Path | None, category: str, split: str, defect: str
) -> IndexRow:
    """Index row of one image; the defect "good" makes it normal."""
    return IndexRow(
        image_path=image.relative_to(root).as_posix(),
        mask_path=mask.relative_to(root).as_posix() if mask else "",
        category=category,
        split=split,
        label=int(defect != GOOD),
        defect=defect,
    )


def list_mvtec_tree(
    root: Path, categories: Sequence[str], normal: Collection[str] = (GOOD,)
) -> Listing:
    """List a tree in MVTec AD's layout, the one most datasets of the field share.

    `<category>/{train,test}/<good or defect>/NNN.png` with masks in
    `<category>/ground_truth/<defect>/NNN_mask.png`. Only a test image with a defect must have a
    mask. Folders of the names `normal` hold the images without a defect, which is then "good".
    """
    listing = Listing([], [])
    for category in categories:
        listing.extend(list_category(root, root / category, category, normal))
    return listing


def list_category(root: Path, top: Path, category: str, normal: Collection[str]) -> Listing:
    """List one category whose train, test and ground_truth folders lie in `top`."""
    listing = Listing([], [])
    for folder in list_folders(top / "ground_truth"):
        if not (top / "test" / folder.name).is_dir():
            reason = "masks without a folder of images in test/"
            listing.problems.append(Problem(str(folder), reason))
    for split in SPLITS:
        for folder in list_folders(top / split):
            truth = top / "ground_truth" / folder.name if split == "test" else None
            listing.extend(list_defect(root, folder, truth, category, split, normal))
    return listing


def list_defect(
    root: Path,
    folder: Path,
    truth: Path | None,
    category: str,
    split: str,
    normal: Collection[str],
) -> Listing:
    """List one folder of images and, where there may be one, its folder of masks."""
    images = list_images(folder)
    defect = GOOD if folder.name in normal else folder.name
    masks = list_images(truth) if truth is not None else []
    pairs, problems = pair_masks(images, masks, "_mask")
    rows = [make_row(root, image, pairs.get(image), category, split, defect) for image in images]
    return Listing(rows, problems)
