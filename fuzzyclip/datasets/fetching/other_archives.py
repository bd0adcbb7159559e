"""Archives that are not read here: what each one is, and what to do with it instead.

7z and RAR need programs of their own, an encrypted archive its password, and a part of several is
nothing without the others.
"""

import re
from pathlib import Path, PurePath

from fuzzyclip.utils.files import name_other_content

EXTRACT = "extract it yourself and give the folder as the dataset's path"
#: How files begin of packers that are not read.
OTHERS = {
    b"7z\xbc\xaf\x27\x1c": f"a 7z archive, which is not read: {EXTRACT} (7-Zip, or `7z x`)",
    b"Rar!\x1a\x07": f"a RAR archive, which is not read: {EXTRACT} (`unrar x`, or 7-Zip)",
    b"\x28\xb5\x2f\xfd": f"packed by Zstandard, which is not read: {EXTRACT} (`tar --zstd -xf`)",
    b"MSCF": f"a cabinet file, which is not read: {EXTRACT}",
    b"MZ": f"a program (a self-extracting archive?), which is never run: {EXTRACT}",
}
#: Endings of archives and of their parts.
ARCHIVE_NAME = re.compile(
    r"\.(zip|tar|tgz|tbz2?|txz|7z|rar|zst|z\d\d|r\d\d|(tar\.)?(gz|bz2|xz|lzma))(\.\d{3})?$", re.I
)
#: What browsers call a download until it is whole; Safari's is a folder.
UNFINISHED = re.compile(r"\.(crdownload|part|partial|download|opdownload|!ut)$", re.I)
#: A part of an archive in several files, and how they are put together.
PARTS = {
    re.compile(r"(.+)\.z\d\d$", re.I): "`zip -s 0 {0}.zip --out whole.zip` joins them",
    re.compile(r"(.+\.(?:zip|tar[.\w]*|7z))\.\d{3}$", re.I): (
        "`cat {0}.* > {0}` joins them (Windows: `copy /b`)"
    ),
    re.compile(r"(.+)\.part\d+\.rar$", re.I): "extracting the first one reads them all",
    re.compile(r"(.+)\.r\d\d$", re.I): "extracting {0}.rar reads them all",
}


def describe_part(path: Path) -> str:
    """What to do with a file whose name says that it is a part; empty for others."""
    if is_unfinished(path):
        return "an unfinished download; let the browser finish it, or fetch it again"
    for form, mend in PARTS.items():
        if match := form.fullmatch(path.name):
            return f"one part of an archive in several files: {mend.format(match[1])}; or {EXTRACT}"
    if path.suffix.lower() == ".zip" and any(path.parent.glob(f"{_escape(path.stem)}.z[0-9][0-9]")):
        mend = f"`zip -s 0 {path.name} --out whole.zip` joins it with its .z01"
        return f"the last part of an archive in several files: {mend}; or {EXTRACT}"
    return ""


def _escape(name: str) -> str:
    """A name for a shell pattern that stands for itself."""
    return re.sub(r"([*?[])", r"[\1]", name)


def describe_other(path: Path) -> str:
    """What a file is that is neither zip nor tar, and the mend; damaged where no kind is known."""
    if fault := name_other_content(path):
        return fault
    with path.open("rb") as file:
        start = file.read(8)
    for begin, fault in OTHERS.items():
        if start.startswith(begin):
            return fault
    return "no zip or tar file, or its begin or end is missing; fetch it again"


def looks_like_archive(path: PurePath) -> bool:
    """True for an archive or a part of one by its name, whether it is read or not."""
    return ARCHIVE_NAME.search(UNFINISHED.sub("", path.name)) is not None


def find_unfinished(folder: Path, name: str) -> Path | None:
    """What a browser has fetched of an archive of this name, and not to its end."""
    beside = sorted(folder.iterdir()) if folder.is_dir() else []
    return next(
        (path for path in beside if UNFINISHED.sub("", path.name) == name != path.name), None
    )


def is_unfinished(path: PurePath) -> bool:
    """True for an archive by its name that a browser has not fetched to its end."""
    return any(
        UNFINISHED.search(place.name) and looks_like_archive(place) for place in (path, path.parent)
    )
