"""Listing of dataset trees, shared by the datasets: sorted, hidden files left out, paired by stem.

Pairing by sorted position, as most conversion scripts in the field do it, goes wrong with the
first missing mask; here every mask names its image.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fuzzyclip.datasets.images import IMAGE_SUFFIXES
from fuzzyclip.datasets.spec import GOOD, IndexRow, Listing

SPLITS = ("train", "test")


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder by suffix in either case, sorted; a missing folder has none."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )


def list_folders(folder: Path) -> list[Path]:
    """Visible sub-folders of a folder, sorted; a missing folder has none."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def pair_masks(
    images: Iterable[Path], masks: Iterable[Path], suffix: str
) -> tuple[dict[Path, Path], list[str]]:
    """Pair each mask with the image that has the same stem, whatever the extensions are.

    Args:
        images: image files of one defect.
        masks: mask files of the same defect.
        suffix: what a mask's stem may carry behind the image's, "_mask" for example.

    Returns:
        image -> mask, and a sentence for every mask without image, second mask and second image.
    """
    by_stem: dict[str, Path] = {}
    problems = []
    for image in images:
        if image.stem in by_stem:
            problems.append(f"{image}: second image of this stem beside {by_stem[image.stem].name}")
        by_stem[image.stem] = image
    pairs: dict[Path, Path] = {}
    for mask in masks:
        owner = by_stem.get(mask.stem) or by_stem.get(mask.stem.removesuffix(suffix))
        if owner is None:
            problems.append(f"{mask}: mask without an image of this stem")
        elif owner in pairs:
            problems.append(f"{mask}: second mask of {owner.name} beside {pairs[owner].name}")
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
    root: Path, categories: Sequence[str], good: str = GOOD, mask_suffix: str = "_mask"
) -> Listing:
    """List a tree in MVTec AD's layout, the one most datasets of the field share.

    `<category>/{train,test}/<good or defect>/NNN.png` with masks in
    `<category>/ground_truth/<defect>/NNN_mask.png`. Only a test image with a defect must have a
    mask.

    Args:
        root: dataset root.
        categories: folders to list.
        good: name of the folders with normal images.
        mask_suffix: what a mask's stem carries behind the image's.

    Returns:
        Rows with the defect "good" for normal images, and problems.
    """
    listing = Listing([], [])
    for category in categories:
        for folder in list_folders(root / category / "ground_truth"):
            if not (root / category / "test" / folder.name).is_dir():
                listing.problems.append(f"{folder}: masks without a folder of images in test/")
        for split in SPLITS:
            for folder in list_folders(root / category / split):
                images = list_images(folder)
                masks = list_images(root / category / "ground_truth" / folder.name)
                defect = GOOD if folder.name == good else folder.name
                pairs: dict[Path, Path] = {}
                if split == "test":
                    pairs, problems = pair_masks(images, masks, mask_suffix)
                    listing.problems.extend(problems)
                listing.rows.extend(
                    make_row(root, image, pairs.get(image), category, split, defect)
                    for image in images
                )
    return listing


def mvtec_lister(good: str = GOOD) -> Callable[[Path, str, Sequence[str]], Listing]:
    """`DatasetSpec.make_index` for a dataset in MVTec AD's layout with a single protocol."""

    def list_rows(root: Path, protocol: str, categories: Sequence[str]) -> Listing:
        return list_mvtec_tree(root, categories, good)

    return list_rows
