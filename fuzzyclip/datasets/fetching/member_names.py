"""Names of an archive's members: read as their maker wrote them, and safe on every system.

Tools on Windows put backslashes between folders, and write names in the code page of their machine
without a word. A name is refused that leads outside, or that not every system can keep apart from
another one.
"""

import re
import unicodedata
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath

from fuzzyclip.utils.tree import DatasetError

#: Bytes that every system takes as the name of a file, and of a path below the target folder.
MAX_NAME, MAX_PATH = 255, 2048
#: Flag of a zip file's entry whose name is UTF-8.
UTF8 = 0x800
#: Letters of Japanese text: punctuation, kana, ideographs, wide letters and digits.
JAPANESE = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff10-\uff19\uff21-\uff5a]+")


class Names:
    """The names of one archive's members; each must be safe, and unlike those before it."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}

    def check(self, name: str, *, is_folder: bool) -> PurePosixPath:
        """A member's place below the target folder.

        Raises:
            DatasetError: it leads outside, is too long, is no text, or is another file's but for
                capitals or the form of its accents; names it.
        """
        path = _check_place(name)
        if is_folder:
            return path
        key = unicodedata.normalize("NFC", path.as_posix()).casefold()
        if (other := self._files.setdefault(key, name)) != name:
            raise DatasetError(
                f"members {other!r} and {name!r} differ by capitals or accents alone, which not "
                "every system keeps apart; extract it yourself, rename one and give the folder"
            )
        return path


def _check_place(name: str) -> PurePosixPath:
    """Refuse a name that is not relative, has a way up, or that a system would not take."""
    path = PurePosixPath(name)
    forbidden = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name)
    if forbidden or "\\" in name or "\0" in name:
        raise DatasetError(f"member {name!r} would be written outside of the target folder")
    mend = "extract it yourself, rename it and give the folder"
    try:
        sizes = [len(part.encode()) for part in path.parts]
    except UnicodeEncodeError as error:
        raise DatasetError(f"member {name!r} has a name that is no UTF-8; {mend}") from error
    if max(sizes, default=0) > MAX_NAME or sum(sizes) + len(sizes) > MAX_PATH:
        raise DatasetError(f"member {name[:80]!r}... has a name that is too long; {mend}")
    return path


def read_zip_names(infos: Sequence[zipfile.ZipInfo]) -> list[str]:
    """The names in a zip file with `/` between folders, in the code page that they are written in.

    A name without the flag of UTF-8 is UTF-8 nevertheless where it can be (macOS), else Japanese
    (Shift JIS) where all of them make sense as that, else of the format's own code page 437.
    """
    raw = {info.filename: _find_bytes(info) for info in infos}
    unmarked = {content for content in raw.values() if content is not None}
    japanese = _is_japanese([content for content in unmarked if not _is_utf8(content)])
    names = []
    for info in infos:
        name, content = info.filename, raw[info.filename]
        if content is not None and _is_utf8(content):
            name = content.decode()
        elif content is not None and japanese:
            name = content.decode("cp932")
        names.append(name.replace("\\", "/"))
    return names


def _find_bytes(info: zipfile.ZipInfo) -> bytes | None:
    """The bytes of a name that is not ASCII and has no flag of UTF-8, as they stand in the file."""
    if info.flag_bits & UTF8 or info.filename.isascii():
        return None
    return info.filename.encode("cp437")  # as the library decodes them, one letter a byte


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_japanese(contents: Sequence[bytes]) -> bool:
    """True where all names are Shift JIS with nothing but Japanese letters beside ASCII.

    One letter alone proves nothing: in code page 437 it may be two, as in `schön`.
    """
    try:
        names = [content.decode("cp932") for content in contents]
    except UnicodeDecodeError:
        return False
    letters = [re.sub(r"[\x20-\x7e]+", " ", name).split() for name in names]
    runs = [run for parts in letters for run in parts]
    return bool(runs) and all(JAPANESE.fullmatch(run) for run in runs) and max(map(len, runs)) > 1
