"""What the name of a folder says of the images inside, in whatever case it is written."""

import re
from pathlib import Path

NORMAL_NAMES = ("good", "ok", "normal")
TRUTH_NAMES = (
    "ground_truth", "ground truth", "groundtruth", "ground-truth", "gt", "mask", "masks", "label",
    "labels",
)  # fmt: skip
#: Of folders around the folders of normal images and of defects.
IMAGES_NAMES = ("images", "image", "img", "imgs")
#: Folder -> split. What validates a method is never tested on.
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "train", "valid": "train", "validation": "train",
    "test": "test", "testing": "test", "test_public": "test",
}  # fmt: skip
#: Test images without labels, of MVTec AD 2.
UNLABELLED = re.compile(r"test_private.*")
#: What begins like a folder of normal images, or says in other words that it is one.
LIKE_NORMAL = re.compile(
    r"(good|ok|normal).*|(no|non|without)[ _-]?(defect|anomal|fault).*"
    r"|(defect|anomaly|fault)s?[ _-]?free.*|pass(ed)?"
)
#: What says no more than that there is a defect.
LIKE_ANOMALOUS = re.compile(r"bad|ng|nok|ko|defect(s|ive)?|anomal(y|ies|ous)|abnormal|fail(ed)?")
#: Names of folders that people have for other things than kinds of defects.
UNLIKE_DEFECTS = re.compile(
    r"(un)?sort(ed)?|unknown|misc|others?|te?mp|old|new|backup.*|archive|todo|raw|originals?|data|"
    r"results?|outputs?|exports?|review|rest|trash|copy.*|new folder.*|\d{4}[-_]?\d\d.*"
)


def fold(name: str) -> str:
    """A name as it is compared."""
    return name.casefold()


def is_normal(name: str) -> bool:
    """True for a folder of normal images."""
    return fold(name) in NORMAL_NAMES


def is_like_normal(name: str) -> bool:
    """True for a name that may mean normal images, and is none that is known to."""
    return not is_normal(name) and LIKE_NORMAL.fullmatch(fold(name)) is not None


def is_truth(name: str) -> bool:
    """True for a folder of masks."""
    return fold(name) in TRUTH_NAMES


def find_split(name: str) -> str | None:
    """The split that a folder holds, None for any other folder."""
    return SPLIT_NAMES.get(fold(name))


def find_inside(folders: list[Path], names: tuple[str, ...]) -> list[Path]:
    """Those of some folders that have one of the names."""
    return [folder for folder in folders if fold(folder.name) in names]
