"""KolektorSDD: surfaces of electrical commutators, 500 x 1240 to 1270 px gray, fine cracks.

Page: https://www.vicos.si/resources/kolektorsdd/ (Tabernik et al., J. Intell. Manuf. 2019).
Licence: CC BY-NC-SA 4.0. The field tests on thirds of the tall pictures, cut at H // 3 and
2 H // 3; a third is defective if its label is anywhere above zero (label values 0/1 or 0/255).

Protocol `dra` (the conversion script of DRA and AdaCLIP): a quarter of the normal thirds, drawn
with seed 42, and every defective one are tested: 286 and 54. The original lists the folder
unsorted, so that its draw depends on the file system; here the list is sorted by name, and pictures
that the dataset holds twice stay on one side. Protocol `anomalyclip` is the other test set in
circulation (181/74); results on the two differ by more than ten points.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from PIL import Image

from fuzzyclip.datasets.base.layouts import (
    list_category,
    list_folders,
    list_images,
    make_row,
    pair_masks,
)
from fuzzyclip.datasets.base.spec import (
    GOOD,
    Archive,
    DatasetSpec,
    Listing,
    Problem,
    Protocol,
    SplitCounts,
)
from fuzzyclip.images.decode import load_image, load_mask
from fuzzyclip.utils.files import compute_sha256
from fuzzyclip.utils.tree import DatasetError

CATEGORY = "electrical commutators"
UNDERSCORED = "electrical_commutators"
DEFECT = "defect"


def cut_thirds(root: Path) -> None:
    """Replace `kosNN/PartM.jpg` and `PartM_label.bmp` by PNG thirds in an extracted tree.

    It then holds `<category>/{good,defect,ground_truth/defect}`.

    Raises:
        DatasetError: a picture has no label or a label no picture.
    """
    items = [folder for folder in list_folders(root) if folder.name.startswith("kos")]
    problems: list[Problem] = []
    for item in items:
        files = list_images(item)
        labels = [path for path in files if path.stem.endswith("_label")]
        images = [path for path in files if path not in labels]
        pairs, unpaired = pair_masks(images, labels, "_label")
        problems += unpaired
        problems += [Problem(str(p), "no label file") for p in images if p not in pairs]
        for image, label in pairs.items():
            write_thirds(root / CATEGORY, f"{item.name}_{image.stem}", image, label)
    if problems:
        raise DatasetError("\n".join(map(str, problems)))
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
        # time, not size, is short
        image.crop((0, top, image.width, bottom)).save(crop, compress_level=1)
        if part.any():
            truth = folder / "ground_truth" / DEFECT / f"{stem}_{third}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(part).save(truth)


def list_thirds(root: Path, categories: Sequence[str]) -> Listing:
    """Rows of the cut tree; the normal test thirds are drawn."""
    from sklearn.model_selection import train_test_split  # a second to import, for one call

    listing = Listing([], [])
    for category in categories:
        folder = root / category
        normal, anomalous = list_images(folder / GOOD), list_images(folder / DEFECT)
        masks = list_images(folder / "ground_truth" / DEFECT)
        pairs, problems = pair_masks(anomalous, masks, "_mask")
        listing.problems.extend(problems)
        if len(normal) < 2:
            reason = f"{len(normal)} normal images cannot be split"
            listing.problems.append(Problem(str(folder / GOOD), reason, fatal=True))
            continue
        drawn = train_test_split(normal, test_size=0.25, random_state=42)
        train, test = keep_copies_together(*drawn)
        for split, images in (("train", train), ("test", test)):
            listing.rows.extend(make_row(root, p, None, category, split, GOOD) for p in images)
        listing.rows.extend(
            make_row(root, p, pairs.get(p), category, "test", DEFECT) for p in anomalous
        )
    return listing


def keep_copies_together(train: list[Path], test: list[Path]) -> tuple[list[Path], list[Path]]:
    """Move identical pictures to one side of a draw, without changing the sizes of the sides.

    Tested members of a group of copies that the draw has split go to training; the first pictures
    of the training side, in drawn order, that are nobody's copy take their places. A group that
    nothing can take the place of stays as it was drawn, and the index reports it.
    """
    digests = {path: compute_sha256(path) for path in (*train, *test)}
    times = Counter(digests.values())
    sides = dict.fromkeys(train, "train") | dict.fromkeys(test, "test")
    singles = [path for path in train if times[digests[path]] == 1]
    for digest in sorted({digests[path] for path in test} & {digests[path] for path in train}):
        moved = [path for path in test if digests[path] == digest]
        if len(moved) <= len(singles):
            sides |= dict.fromkeys(moved, "train") | dict.fromkeys(singles[: len(moved)], "test")
            singles = singles[len(moved) :]
    return (
        [path for path, side in sides.items() if side == "train"],
        [path for path, side in sides.items() if side == "test"],
    )


def list_copy(root: Path, categories: Sequence[str]) -> Listing:
    """Rows of AnomalyCLIP's copy, whose only category is written with a space or an underscore."""
    names = (CATEGORY, UNDERSCORED)
    top = next((root / name for name in names if (root / name).is_dir()), root / CATEGORY)
    return list_category(root, top, CATEGORY, (GOOD,))


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
    protocols={
        "dra": Protocol(
            "thirds, 286 normal and 54 anomalous: the script of DRA and AdaCLIP on the sorted "
            "list, copies of a picture kept on one side",
            list_thirds,
            {CATEGORY: SplitCounts(857, 286, 54)},
            prepare=cut_thirds,
            markers=("kos[0-9][0-9]",),
        ),
        "anomalyclip": Protocol(
            "thirds, 181 normal and 74 anomalous: AnomalyCLIP's own copy, in MVTec AD's layout",
            list_copy,
            {CATEGORY: SplitCounts(None, 181, 74, None)},
            archives=(Archive("SDD.zip"),),
            markers=(CATEGORY, UNDERSCORED),
        ),
    },
    instructions="The 181/74 copy has no public archive: AnomalyCLIP's README "
    "(https://github.com/zqhang/AnomalyCLIP) links its authors' Google Drive.",
    aliases={UNDERSCORED: CATEGORY, "SDD": CATEGORY},
)
