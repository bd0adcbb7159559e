"""A dataset of one category as a tree of images, whole or spoilt, and its index."""

from pathlib import Path
from typing import Any

from trees import MASK, write_images, write_picture

from fuzzyclip.datasets.base.layouts import list_mvtec_tree
from fuzzyclip.datasets.base.spec import DatasetSpec, Protocol, SplitCounts
from fuzzyclip.datasets.indexing import build_index
from fuzzyclip.images.index_file import Index

TOY = DatasetSpec(
    name="toy",
    title="Toy",
    page="https://example.org",
    licence="CC0",
    archives=(),
    categories={"nut": "hex nut"},
    protocols={"official": Protocol("all", list_mvtec_tree, {"nut": SplitCounts(2, 2, 3)})},
)


def index_tree(root: Path, spec: DatasetSpec = TOY, **options: Any) -> Index:
    """The index of a subset by the dataset's first protocol, unless options say otherwise."""
    usual = {"protocol": spec.default_protocol, "expect_counts": False}
    return build_index(spec, root, **usual | options)


def make_nut(root: Path) -> Path:
    """Two training images, two normal ones to test, three with a hole."""
    nut = root / "nut"
    write_images(nut / "train/good", ["0.png", "1.png"])
    write_images(nut / "test/good", ["0.png", "1.png"], 10)
    write_images(nut / "test/hole", ["0.png", "1.png", "2.png"], 20)
    for number in range(3):
        write_picture(nut / f"ground_truth/hole/{number}_mask.png", MASK)
    return nut


def spoil(nut: Path) -> set[str]:
    """Break one image, one mask and one pairing; says which images cannot be used."""
    broken = nut / "test/hole/0.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    write_picture(nut / "ground_truth/hole/1_mask.png", MASK.T)
    write_picture(nut / "ground_truth/hole/9_mask.png", MASK)  # of no image: nothing is lost
    return {"nut/test/hole/0.png", "nut/test/hole/1.png"}
