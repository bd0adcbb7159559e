"""Masks of one's own images: found beside them or in folders of their own, paired by name.

A mask belongs to the image of its stem, with or without a suffix such as `_mask`, whose folders its
own folders are: all of them, the first or the last of them, or none where masks lie flat. One that
fits several images fits none.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fuzzyclip.datasets.base.folder_names import fold
from fuzzyclip.datasets.base.layouts import list_folders, list_images
from fuzzyclip.datasets.base.spec import Unused
from fuzzyclip.images.names import MASK_MARK, list_stems

ALONE = Unused("masks without an image of this name", fault=True)
SEVERAL = Unused(
    "masks that fit several images by their names; put them into folders called like the images'",
    fault=True,
)
SECOND = Unused("second masks of an image", fault=True)


class Picture(NamedTuple):
    """A picture among folders, an image or a mask.

    Attributes:
        path: of the file; of a mask also a folder of several that belong to one image.
        stem: name that pairs it.
        folders: those around it that say what it is, folded, outermost first.
    """

    path: Path
    stem: str
    folders: tuple[str, ...]


class Pairs(NamedTuple):
    """Masks by image, and masks that are nobody's with the reason."""

    masks: dict[Path, Path]
    unused: dict[Path, Unused]


def split_off_masks(pictures: Iterable[Picture]) -> tuple[list[Picture], list[Picture]]:
    """Images, and the masks that lie beside them: `000_mask.png` beside `000.png`.

    Where one picture of a folder has its mask beside it, every picture called so is a mask.
    """
    by_folder: dict[Path, list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_folder[picture.path.parent].append(picture)
    images, masks = [], []
    for inside in by_folder.values():
        stems = {picture.stem for picture in inside}
        marked = [picture for picture in inside if MASK_MARK.search(picture.stem)]
        if any(MASK_MARK.sub("", picture.stem) in stems for picture in marked):
            masks += marked
            images += [picture for picture in inside if not MASK_MARK.search(picture.stem)]
        else:
            images += inside
    return images, masks


def list_masks(
    truth: Path, images: Iterable[Picture], folders: tuple[str, ...] = ()
) -> list[Picture]:
    """Masks of a folder of masks at any depth.

    A folder that is called like an image, and not like a folder of images, holds several masks of
    that one (MVTec LOCO); they are one mask here.

    Args:
        images: all that may have a mask there.
        folders: those of the images that the folder of masks lies in.
    """
    places: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for image in images:
        places[image.stem].add(image.folders)
    return _list_masks(truth, places, set().union(*places.values()), folders)


def _list_masks(
    truth: Path,
    places: Mapping[str, set[tuple[str, ...]]],
    named: set[tuple[str, ...]],
    folders: tuple[str, ...],
) -> list[Picture]:
    """`list_masks` by the folders of images, those of each stem and all."""
    masks = [Picture(path, path.stem, folders) for path in list_images(truth)]
    for inside in list_folders(truth):
        deeper = (*folders, fold(inside.name))
        several = list_images(inside)
        like_folder = any((_rank(deeper, those) or 0) < 0 for those in named)
        like_image = any(
            _rank(folders, those) is not None
            for stem in list_stems(inside.name)
            for those in places.get(stem, ())
        )
        if several and like_image and not like_folder and not list_folders(inside):
            path = several[0] if len(several) == 1 else inside
            masks.append(Picture(path, inside.name, folders))
        else:
            masks += _list_masks(inside, places, named, deeper)
    return masks


def _rank(of_mask: tuple[str, ...], of_image: tuple[str, ...]) -> int | None:
    """How well folders of a mask fit those of an image, the lowest best; None if not at all.

    Below zero they name the image's folders.
    """
    if of_mask == of_image:
        return -2 if of_mask else 0
    if not of_mask:
        return 0
    count = len(of_mask)
    return -1 if of_mask in (of_image[:count], of_image[-count:]) else None


def pair_pictures(
    images: Sequence[Picture], masks: Iterable[Picture], normal: Iterable[Path]
) -> Pairs:
    """Pair every mask with an image.

    Args:
        normal: images that have a mask only if no other one fits, since masks that lie flat belong
            to defects.
    """
    by_stem: dict[str, list[Picture]] = defaultdict(list)
    for image in images:
        by_stem[image.stem].append(image)
    pairs, without = Pairs({}, {}), set(normal)
    for mask in masks:
        owners = _find_owners(mask, by_stem, without)
        if len(owners) != 1:
            pairs.unused[mask.path] = SEVERAL if owners else ALONE
        elif owners[0].path in pairs.masks:
            pairs.unused[mask.path] = SECOND
        else:
            pairs.masks[owners[0].path] = mask.path
    return pairs


def _find_owners(
    mask: Picture, by_stem: dict[str, list[Picture]], normal: set[Path]
) -> list[Picture]:
    """Images that a mask fits equally well."""
    for stem in list_stems(mask.stem):
        ranked = [(_rank(mask.folders, image.folders), image) for image in by_stem.get(stem, [])]
        fitting = [(rank, image) for rank, image in ranked if rank is not None]
        if fitting:
            best = min(rank for rank, _ in fitting)
            owners = [image for rank, image in fitting if rank == best]
            return [image for image in owners if image.path not in normal] or owners
    return []
