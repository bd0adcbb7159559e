"""Which files are images by their names alone, and what lies beside images and is none.

Whoever goes through a folder asks here, so that a listing, a prediction and a job of Ray mean the
same files.
"""

import re
from collections.abc import Sequence
from pathlib import PurePath

#: What folders are searched for; all of it is read, see `fuzzyclip.images.decode.FORMATS`.
IMAGE_SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif",
    ".pbm", ".pgm", ".ppm", ".pnm",
})  # fmt: skip
#: Pictures, or what a camera leaves in place of one, of kinds that are not read.
UNREAD_SUFFIXES = frozenset({
    ".heic", ".heif", ".avif", ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2",
    ".jp2", ".j2k", ".jxl", ".exr", ".hdr", ".tga", ".pam", ".pcx", ".dcm", ".fits", ".ktx",
})  # fmt: skip
#: Folders and files that systems, archives and disks in the network leave, folded: resource forks
#: that look like a second copy of the tree, thumbnails, what a check of the disk found, bins.
IGNORED = frozenset({
    "__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "lost+found",
    "system volume information", "__pycache__",
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "_picasa.ini",
})  # fmt: skip
#: What `fuzzyclip predict` leaves in a folder of its results; see `fuzzyclip.model.outputs`.
RESULTS = frozenset({"scores.jsonl", "settings.json"})
#: What it makes of one image, wherever that lies.
RESULT_NAME = re.compile(
    r".+\.(overlay(_scaled_to_image)?\.(jpe?g|png)|map\.(png|npy)|mask\.png)", re.IGNORECASE
)

#: What the name of a mask has behind its image's, or before it.
MASK_MARK = re.compile(r"[._ -](mask|gt|label|ground_?truth|seg)$", re.IGNORECASE)
MASK_MARK_BEFORE = re.compile(r"^(mask|gt|label|ground_?truth|seg)[._ -]", re.IGNORECASE)


def is_image_name(name: str) -> bool:
    """True for a file that is searched for, by its suffix in any case."""
    stem, dot, suffix = name.rpartition(".")  # a path takes several times as long
    return bool(stem) and (dot + suffix).lower() in IMAGE_SUFFIXES


def is_visible(name: str) -> bool:
    """True for a file or folder that a person has put there; hidden ones and systems' are not."""
    return not (name.startswith(".") or name.casefold() in IGNORED)


def is_left_by_system(path: PurePath) -> bool:
    """True for what a system has left, or what lies in a folder that it has."""
    return any(part.casefold() in IGNORED for part in path.parts)


def is_result(name: str) -> bool:
    """True for a picture that `fuzzyclip predict` has made of another."""
    return RESULT_NAME.fullmatch(name) is not None


def list_stems(mask: str) -> list[str]:
    """Stems that the image of a mask may have, the mask's own first."""
    return list(dict.fromkeys([mask, MASK_MARK.sub("", mask), MASK_MARK_BEFORE.sub("", mask)]))


def describe_names(names: Sequence[str], most: int = 3) -> str:
    """Some names of a list in words, and that there are more."""
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])
