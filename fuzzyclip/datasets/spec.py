"""What a dataset is: its archives, its categories, its published counts, its index rows.

One module per dataset fills in a `DatasetSpec`; fetching, extraction and indexing read nothing
else, so that a new dataset touches no other code.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

INDEX_COLUMNS = (
    "image_path",  # POSIX, relative to the dataset root
    "mask_path",  # the same; "" if there is no mask
    "category",
    "split",  # "train" or "test"
    "label",  # 0 normal, 1 anomalous
    "defect",  # "good" for normal images, else the dataset's own name of the defect
    "width",
    "height",
)
GOOD = "good"


class DatasetError(ValueError):
    """Something is wrong with a dataset's archives, folders or images; says how to mend it."""


@dataclass(frozen=True)
class Archive:
    """One official archive file.

    Attributes:
        filename: official file name, which is also the name to place it under by hand.
        urls: addresses to try in order; empty if a licence or a login stands in the way.
        sha256: published checksum, None if nobody published one.
        category: the only category inside, None if the archive holds them all.
    """

    filename: str
    urls: tuple[str, ...] = ()
    sha256: str | None = None
    category: str | None = None

    @property
    def stem(self) -> str:
        """File name without its archive suffixes: the name of an extracted folder."""
        name = self.filename
        for suffix in (".tar.xz", ".tar.gz", ".tgz", ".tar", ".zip"):
            name = name.removesuffix(suffix)
        return name


class SplitCounts(NamedTuple):
    """Number of images of one category; None where no number is published."""

    train_good: int | None
    test_good: int | None
    test_bad: int | None
    train_bad: int | None = 0


class IndexRow(NamedTuple):
    """One image before it is opened: an index row without width and height."""

    image_path: str
    mask_path: str
    category: str
    split: str
    label: int
    defect: str


class Listing(NamedTuple):
    """Rows found in a dataset tree, and what is wrong with the tree, one sentence each."""

    rows: list[IndexRow]
    problems: list[str]


ListRows = Callable[[Path, str, Sequence[str]], Listing]


@dataclass(frozen=True)
class DatasetSpec:
    """All that is particular to one dataset.

    Attributes:
        name: id, as in `--dataset`: mvtec, visa, ...
        title: name in prose.
        page: official page.
        licence: licence of the data, as the authors state it.
        archives: official archives.
        categories: raw category name -> readable name for prompts, in the published order.
        protocols: names of the test protocols; the first is the default.
        counts: protocol -> category -> published number of images.
        make_index: (root, protocol, categories) -> rows and problems; opens no image.
        totals: protocol -> published number of images over all categories, where only the sum
            is known.
        instructions: what to download from where, for archives without an address.
        prepare: changes the extracted tree once, in place, before it gets its final name.
        markers: patterns of the folders that lie at the dataset root; default: the categories.
    """

    name: str
    title: str
    page: str
    licence: str
    archives: tuple[Archive, ...]
    categories: Mapping[str, str]
    protocols: tuple[str, ...]
    counts: Mapping[str, Mapping[str, SplitCounts]]
    make_index: ListRows
    totals: Mapping[str, SplitCounts] = field(default_factory=dict)
    instructions: str = ""
    prepare: Callable[[Path], None] | None = None
    markers: tuple[str, ...] = ()

    @property
    def root_patterns(self) -> tuple[str, ...]:
        """Patterns of folder names by which the dataset root is recognised."""
        return self.markers or tuple(self.categories)
