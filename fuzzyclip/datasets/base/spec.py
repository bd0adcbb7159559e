"""The description of a dataset: its archives, its categories, its protocols, the published counts.

One module per dataset fills in a `DatasetSpec`; fetching, extraction and indexing read nothing
else, so that a new dataset touches no other code.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fuzzyclip.images.names import describe_names
from fuzzyclip.utils.files import show_line

GOOD = "good"
#: Label of a row whose mask says whether its image is normal.
BY_MASK = -1
SPLITS = ("train", "test")
SUFFIXES = (".tar.xz", ".tar.gz", ".tgz", ".tar", ".zip")


@dataclass(frozen=True)
class Archive:
    """One official archive file.

    Attributes:
        filename: the official one, under which it is also placed by hand.
        urls: addresses to try in order; empty if a licence or a login stands in the way.
        sha256: published checksum, None if nobody published one.
        category: the only category inside, None if the archive holds them all.
    """

    filename: str
    urls: tuple[str, ...] = ()
    sha256: str | None = None
    category: str | None = None

    @property
    def format(self) -> str:
        """Packing by the file name: zip, tar, tar.xz, ...; the content decides when it is read."""
        return next((s for s in SUFFIXES if self.filename.endswith(s)), "").removeprefix(".")

    @property
    def stem(self) -> str:
        """File name without its archive suffix: the name of an extracted folder."""
        return self.filename.removesuffix(f".{self.format}")


class SplitCounts(NamedTuple):
    """Number of images of one category; None where no number is published."""

    train_normal: int | None
    test_normal: int | None
    test_anomalous: int | None
    train_anomalous: int | None = 0


class IndexRow(NamedTuple):
    """One image before it is opened: an index row without width and height.

    The label `BY_MASK` becomes 0 or 1 when the mask is opened. The mask may be a folder of several,
    which are united.
    """

    image_path: str
    mask_path: str
    category: str
    split: str
    label: int
    defect: str


class Problem(NamedTuple):
    """One thing that is wrong with a dataset.

    Attributes:
        path: file or folder, as the user can open it.
        reason: what is wrong with it.
        image: `image_path` of the row that must go if problems are dropped; "" if the file just
            has no place in the index (a mask without an image).
        fatal: nothing can be dropped to mend this (a missing category, a wrong count).
        files: POSIX paths below the root of those that this stands for, where they are several.
    """

    path: str
    reason: str
    image: str = ""
    fatal: bool = False
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = len(self.files)
        inside = describe_names([PurePosixPath(name).name for name in self.files])
        which = f"{count:,} files ({inside}): " if count > 1 else ""
        return show_line(f"{self.path}: {which}{self.reason}")


class Note(NamedTuple):
    """What a person should know of a dataset, and no fault.

    Attributes:
        text: names the files or folders it is about.
        warning: whether it may be a mistake.
        files: POSIX paths below the root that are used no further, where it is about such.
    """

    text: str
    warning: bool = False
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return show_line(f"{'warning' if self.warning else 'note'}: {self.text}")


class Unused(NamedTuple):
    """Why files of a dataset have no place in its index.

    Attributes:
        reason: in words.
        fault: whether results would be others with them.
    """

    reason: str
    fault: bool = False


@dataclass
class Listing:
    """Rows found in a dataset tree, and what is wrong with the tree.

    Attributes:
        rows: the images.
        problems: faults that are known without opening a file.
        notes: how the tree was understood, where that could be a mistake.
        unused: path of a file or folder below the root -> why nothing in it is used.
        whole: whether a picture that is neither image nor mask is a fault, as it is where nothing
            but the folders says what belongs where.
    """

    rows: list[IndexRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    unused: dict[str, Unused] = field(default_factory=dict)
    whole: bool = False

    def extend(self, part: "Listing") -> None:
        """Take in the listing of a part of the tree."""
        self.rows.extend(part.rows)
        self.problems.extend(part.problems)
        self.notes.extend(part.notes)
        self.unused.update(part.unused)


#: (dataset root, categories) -> rows and problems; opens no image.
ListRows = Callable[[Path, Sequence[str]], Listing]


@dataclass(frozen=True)
class Protocol:
    """One way to test on a dataset. Results of two protocols must never be compared.

    Attributes:
        summary: what is tested, and who does it so.
        list_rows: which images belong where.
        counts: category -> published number of images; empty if none is published.
        total: published number of images over all categories, where only the sum is known.
        archives: where the protocol has archives of its own.
        prepare: changes the extracted tree once, in place, before it gets its final name.
        markers: patterns of the folders that lie at the dataset root; default: the categories.
    """

    summary: str
    list_rows: ListRows
    counts: Mapping[str, SplitCounts] = field(default_factory=dict)
    total: SplitCounts | None = None
    archives: tuple[Archive, ...] = ()
    prepare: Callable[[Path], None] | None = None
    markers: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSpec:
    """All that is particular to one dataset.

    Attributes:
        name: id, as in `--dataset`: mvtec, visa, ...
        title: name in prose.
        page: official page.
        licence: of the data, as the authors state it.
        archives: official ones; a protocol may have its own.
        categories: raw category name -> readable name for prompts, in the published order; empty
            if the data say which categories there are.
        protocols: by name; the first is the default.
        instructions: what to download from where, for archives without an address.
        masks: "required": an anomalous image without a mask is a fault; "optional": a category
            may have no masks at all, and then has no pixel metrics.
        aliases: category names that converted copies use -> raw name.
    """

    name: str
    title: str
    page: str
    licence: str
    archives: tuple[Archive, ...]
    categories: Mapping[str, str]
    protocols: Mapping[str, Protocol]
    instructions: str = ""
    masks: str = "required"
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def default_protocol(self) -> str:
        """Name of the first protocol."""
        return next(iter(self.protocols))

    def list_archives(
        self, protocol: str, categories: Sequence[str] | None = None
    ) -> tuple[Archive, ...]:
        """Archives that a protocol needs for some categories, or for all of them."""
        chosen = self.protocols.get(protocol)
        return tuple(
            archive
            for archive in (chosen and chosen.archives) or self.archives
            if categories is None or archive.category is None or archive.category in categories
        )
