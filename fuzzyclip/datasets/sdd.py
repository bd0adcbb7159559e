"""KolektorSDD: surfaces of electrical commutators, 500 x 1240 to 1270 px gray, fine cracks.

Page: https://www.vicos.si/resources/kolektorsdd/ (Tabernik et al., J. Intell. Manuf. 2019).
Licence: CC BY-NC-SA 4.0. The field tests on thirds of the tall pictures, cut at H // 3 and
2 H // 3; a third is defective if its label is anywhere above zero (label values 0/1 or 0/255).

Protocol `dra` (the conversion script of DRA and AdaCLIP): a quarter of the good thirds, drawn with
seed 42, and every defective one are tested: 286 good, 54 bad. The original lists the folder
unsorted, so that its draw depends on the file system; here the list is sorted by name. The other
test set in circulation (181/74) exists only as a private copy.
"""

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from PIL import Image

from fuzzyclip.datasets.images import load_image, load_mask
from fuzzyclip.datasets.layouts import list_folders, list_images, make_row, pair_masks
from fuzzyclip.datasets.spec import GOOD, Archive, DatasetError, DatasetSpec, Listing, SplitCounts

CATEGORY = "electrical commutators"
DEFECT = "defect"


def cut_thirds(root: Path) -> None:
    """Replace `kosNN/PartM.jpg` and `PartM_label.bmp` by PNG thirds, sorted into good and defect.

    Args:
        root: extracted tree; afterwards it holds `<category>/{good,defect,ground_truth/defect}`.

    Raises:
        DatasetError: a picture has no label or a label no picture.
    """
    items = [folder for folder in list_folders(root) if folder.name.startswith("kos")]
    problems: list[str] = []
    for item in items:
        files = list_images(item)
        labels = [path for path in files if path.stem.endswith("_label")]
        images = [path for path in files if path not in labels]
        pairs, unpaired = pair_masks(images, labels, "_label")
        problems += unpaired
        problems += [f"{image}: no label file" for image in images if image not in pairs]
        for image, label in pairs.items():
            write_thirds(root / CATEGORY, f"{item.name}_{image.stem}", image, label)
    if problems:
        raise DatasetError("\n".join(problems))
    for item in items:
        shutil.rmtree(item)  # PNG keeps every decoded pixel, so that nothing is lost


def write_thirds(folder: Path, stem: str, image_path: Path, label_path: Path) -> None:
    """Cut one picture and its label; names as in `kos01_Part5_0.png`."""
    image = load_image(image_path).convert("L")
    mask = load_mask(label_path)  # (H, W)
    if mask.shape != (image.height, image.width):
        raise DatasetError(f"{label_path}: size differs from {image_path.name}")
    cuts = (0, image.height // 3, image.height * 2 // 3, image.height)
    for third, (top, bottom) in enumerate(pairwise(cuts)):
        part = mask[top:bottom]  # (h, W)
        kind = DEFECT if part.any() else GOOD
        crop = folder / kind / f"{stem}_{third}.png"
        crop.parent.mkdir(parents=True, exist_ok=True)
        image.crop((0, top, image.width, bottom)).save(
            crop, compress_level=1
        )  # time, not size, is short
        if part.any():
            truth = folder / "ground_truth" / DEFECT / f"{stem}_{third}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(part).save(truth)


def list_rows(root: Path, protocol: str, categories: Sequence[str]) -> Listing:
    """Rows of the cut tree; the protocol `dra` draws the good test thirds."""
    from sklearn.model_selection import train_test_split  # a second to import, for one call

    listing = Listing([], [])
    for category in categories:
        folder = root / category
        good, bad = list_images(folder / GOOD), list_images(folder / DEFECT)
        masks = list_images(folder / "ground_truth" / DEFECT)
        pairs, problems = pair_masks(bad, masks, "_mask")
        listing.problems.extend(problems)
        if len(good) < 2:
            listing.problems.append(f"{folder / GOOD}: {len(good)} good images cannot be split")
            continue
        train, test = train_test_split(good, test_size=0.25, random_state=42)
        for split, images in (("train", train), ("test", test)):
            listing.rows.extend(make_row(root, p, None, category, split, GOOD) for p in images)
        listing.rows.extend(make_row(root, p, pairs.get(p), category, "test", DEFECT) for p in bad)
    return listing


SDD = DatasetSpec(
    name="sdd",
    title="KolektorSDD",
    page="https://www.vicos.si/resources/kolektorsdd/",
    licence="CC BY-NC-SA 4.0",
    archives=(
        Archive(
            "KolektorSDD.zip",
            urls=(
                "https://data.vicos.si/datasets/KSDD/KolektorSDD.zip",
                "https://go.vicos.si/kolektorsdd",
            ),
            sha256="65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc",
        ),
    ),
    categories={CATEGORY: CATEGORY},
    protocols=("dra",),
    counts={"dra": {CATEGORY: SplitCounts(857, 286, 54)}},
    make_index=list_rows,
    prepare=cut_thirds,
    markers=("kos[0-9][0-9]",),
)
