"""`make licences`: the licence of every installed package, and a word where one needs a look.

Licences are what packages say of themselves. Those that ask something of who passes the package on
(copyleft), that are no open licence, or that are not known, are flagged; what has been looked at
stands in `REVIEWED`, and anything else that is flagged ends the command with 1.
"""

import re
import sys
import sysconfig
from collections.abc import Iterable
from fnmatch import fnmatchcase
from importlib.metadata import PackageMetadata, distributions
from typing import NamedTuple

COPYLEFT = re.compile(r"GPL|GNU|\bMPL|Mozilla|\bEPL|Eclipse|EUPL|CDDL|\bOSL\b|CeCILL", re.I)
PROPRIETARY = re.compile(r"proprietary|EULA|NVIDIA", re.I)
UNKNOWN = "unknown"
LONGEST = 90  # characters of a field that is a licence's name and not its text
PREFIX = "License :: "

_WEAK = "asks that changes of its own files stay open; it is used unchanged"
_CHOICE = "its files offer a choice, of which EPL is one; of DVC, used unchanged"
_FILE = "names none in its metadata; its licence file is MIT's"
_NVIDIA = "CUDA, which PyTorch's default build brings; its CPU build needs none of it"
#: Flagged packages that were looked at, as patterns of names, and what was seen. FuzzyCLIP ships
#: none of them; who passes an environment on, passes these on too.
REVIEWED = {
    "asyncssh": _CHOICE,
    "certifi": _WEAK,
    "cuda-toolkit": _NVIDIA,
    "grandalf": _CHOICE,
    "huey": _FILE,
    "hypothesis": f"{_WEAK}; tests alone",
    "nvidia-*": _NVIDIA,
    "orjson": _WEAK,
    "pathspec": _WEAK,
    "pygit2": "GPL 2 with leave to link it into anything; of DVC, used unchanged",
    "shtab": _WEAK,
    "sigstore-models": _FILE,
    "skops": _FILE,
    "tqdm": _WEAK,
}


class Licence(NamedTuple):
    """An installed package's line.

    Attributes:
        name, version: as installed.
        text: SPDX expression, classifiers or name, as the package has them.
        flag: "copyleft", "proprietary", "unknown" or empty.
    """

    name: str
    version: str
    text: str
    flag: str


def list_licences(found: Iterable[PackageMetadata] | None = None) -> list[Licence]:
    """A line a package, by name; of several copies the first, which is what is imported.

    Args:
        found: metadata of packages; None takes what is installed here.
    """
    if found is None:
        # not sys.path: setuptools puts its own copies of packages there once it is imported
        places = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        found = (package.metadata for package in distributions(path=[*places]))
    lines: dict[str, Licence] = {}
    for entry in found:
        text = read_licence(entry)
        line = Licence(entry["Name"], entry["Version"], text, choose_flag(text))
        lines.setdefault(normalise(line.name), line)
    return [line for _, line in sorted(lines.items())]


def read_licence(metadata: PackageMetadata) -> str:
    """The licence of a package in its own words, the most exact first."""
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    names = [
        value.removeprefix(PREFIX).removeprefix("OSI Approved :: ")
        for value in metadata.get_all("Classifier") or []
        if value.startswith(PREFIX)
    ]
    exact = [name for name in names if name not in ("OSI Approved", "DFSG approved")]
    if exact:
        return ", ".join(exact)
    field = " ".join(metadata["License"].split()) if "License" in metadata else ""
    return field if field and field != "UNKNOWN" and len(field) <= LONGEST else UNKNOWN


def choose_flag(text: str) -> str:
    """What a reader should look at, of a licence in words; one may choose between A OR B."""
    if text == UNKNOWN:
        return UNKNOWN
    choices = [text] if " AND " in text else re.split(r"\s+OR\s+", text)
    flags = {
        "copyleft" if COPYLEFT.search(choice) else
        "proprietary" if PROPRIETARY.search(choice) else ""
        for choice in choices
    }  # fmt: skip
    return "" if "" in flags else min(flags)


def find_review(name: str) -> str | None:
    """What was seen of a flagged package, if it was looked at."""
    plain = normalise(name)
    return next((word for key, word in REVIEWED.items() if fnmatchcase(plain, key)), None)


def normalise(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """Print the table; 1 where a flagged package was not looked at."""
    lines = list_licences()
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    open_ones = 0
    for line in lines:
        remark = ""
        if line.flag:
            reviewed = find_review(line.name)
            open_ones += reviewed is None
            remark = f"  <- {line.flag}: {reviewed or 'NOT LOOKED AT'}"
        print(f"{line.name:{widths[0]}}  {line.version:{widths[1]}}  {line.text}{remark}")
    flagged = sum(bool(line.flag) for line in lines)
    print(f"{len(lines)} packages, {flagged} flagged, {open_ones} of these not looked at")
    if open_ones:
        print(
            "read the licence of each, then add it to REVIEWED in tools/supply/licences.py, or "
            "take another package",
            file=sys.stderr,
        )
    return int(open_ones > 0)


if __name__ == "__main__":
    raise SystemExit(main())
