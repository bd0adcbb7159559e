"""Dataset trees for tests, and a dataset of one category as one, whole or spoilt."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fuzzyclip.datasets.base.layouts import list_mvtec_tree
from fuzzyclip.datasets.base.spec import DatasetSpec, Protocol, SplitCounts
from fuzzyclip.datasets.indexing import build_index
from fuzzyclip.images.index_file import Index

MASK = np.zeros((6, 8), np.uint8)
MASK[2:4, 3:6] = 255

TOY = DatasetSpec(
    name="toy",
    title="Toy",
    page="https://example.org",
    licence="CC0",
    archives=(),
    categories={"nut": "hex nut"},
    protocols={"official": Protocol("all", list_mvtec_tree, {"nut": SplitCounts(2, 2, 3)})},
)


def write_picture(path: Path, pixels: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def picture(number: int) -> NDArray[np.uint8]:
    """An image (6, 8, 3) like no other."""
    return np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def write_images(folder: Path, names: list[str], first: int = 0) -> None:
    """Distinct images under these names."""
    for number, name in enumerate(names):
        write_picture(folder / name, picture(first + number))


def touch(root: Path, names: Iterable[str]) -> None:
    """Files by name only; what would be file and folder at once is left out."""
    for name in sorted(names):
        path = root / name
        if path.exists() or any(parent.is_file() for parent in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def index_tree(root: Path, spec: DatasetSpec = TOY, **options: Any) -> Index:
    """The index of a subset by the dataset's first protocol, unless options say otherwise."""
    usual = {"protocol": spec.default_protocol, "expect_counts": False}
    return build_index(spec, root, **usual | options)


def make_nut(root: Path) -> Path:
    """Two training images, two normal, three with a hole."""
    nut = root / "nut"
    write_images(nut / "train/good", ["0.png", "1.png"])
    write_images(nut / "test/good", ["0.png", "1.png"], 10)
    write_images(nut / "test/hole", ["0.png", "1.png", "2.png"], 20)
    for number in range(3):
        write_picture(nut / f"ground_truth/hole/{number}_mask.png", MASK)
    return nut


def spoil(nut: Path) -> set[str]:
    """Break one image, one mask and one pairing; gives the images that cannot be used."""
    broken = nut / "test/hole/0.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    write_picture(nut / "ground_truth/hole/1_mask.png", MASK.T)
    write_picture(nut / "ground_truth/hole/9_mask.png", MASK)  # of no image: nothing is lost
    return {"nut/test/hole/0.png", "nut/test/hole/1.png"}
