"""Places of predictions' files: each image has its own, whatever it is called.

A place is a path below the folder without endings. What one image holds no other gets.
"""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

from fuzzyclip.utils.files import show_name

#: Bytes of a folder's or file's name before its ending. Systems take 255; the longest ending and
#: what a file is called until it is whole need a hundred.
LONGEST_NAME = 150
#: Bytes of a path below the folder; systems take from 1,024 to 4,096 of the whole.
LONGEST_PATH = 600
#: Suffixes of the files here, which no folder's name may have.
OWN_SUFFIXES = (".png", ".npy", ".jpg", ".csv", ".json", ".jsonl", ".html")


def name_outputs(images: Sequence[Path]) -> dict[Path, Path]:
    """Each image's place for its files, below the folder and without endings.

    Images keep the folders they have among themselves. Two that differ in their suffix alone keep
    it; those whose names would still meet, also where upper and lower case are one, or that no file
    can have, end in `~` and a digest of the path. No place depends on the order of the images.
    """
    if not images:
        return {}
    absolute = {image: Path(os.path.abspath(image)) for image in images}  # noqa: PTH100 - no links
    root = Path(os.path.commonpath([path.parent for path in absolute.values()]))
    inside = {image: path.relative_to(root) for image, path in absolute.items()}
    bare = {image: path.with_name(_cut_suffix(path.name)) for image, path in inside.items()}
    seen = Counter(map(fold, bare.values()))
    plain = {image: inside[image] if seen[fold(bare[image])] > 1 else bare[image] for image in bare}
    fitted = {image: _fit(path) for image, path in plain.items()}
    seen = Counter(map(fold, fitted.values()))
    return {
        image: path
        if path.name == plain[image].name and seen[fold(path)] == 1
        else path.with_name(f"{path.name}~{_digest(inside[image])}")
        for image, path in fitted.items()
    }


def keep_places(
    planned: Mapping[Path, Path],
    held: Mapping[str, Path],
    *,
    reserved: Iterable[Path] = (),
    is_taken: Callable[[Path], bool] = lambda _: False,
) -> dict[Path, Path]:
    """Places of this run's images, `planned` as if the folder were empty.

    An image keeps the one that it holds, by its identity; where another holds what is planned for
    it, a number is added.

    Args:
        reserved: places that belong to nobody known, and are given to none.
        is_taken: tells the same of any place.
    """
    taken = {*map(fold, held.values()), *map(fold, reserved)}
    later = taken | {*map(fold, planned.values())}  # what a numbered place must not meet
    places = {}
    for image, plan in planned.items():
        place = held.get(identify(image), plan)
        if identify(image) not in held and (fold(plan) in taken or is_taken(plan)):
            numbered = (plan.with_name(f"{plan.name}~{number}") for number in count(2))
            place = next(
                each for each in numbered if fold(each) not in later and not is_taken(each)
            )
            later.add(fold(place))
        places[image] = place
    return places


def identify(image: Path) -> str:
    """What tells an image from others, wherever a command runs: its full path, links kept."""
    return show_name(os.path.abspath(image))  # noqa: PTH100 - no links


def _cut_suffix(name: str) -> str:
    """A file's name without its suffix, if something is left of it."""
    return Path(name).stem.rstrip(".") or name


def fold(path: Path) -> str:
    """The same for paths that some system takes for one."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _fit(path: Path) -> Path:
    """A path whose parts any system can store, and that no file here takes for its own."""
    shown = Path(*map(_fit_name, path.parts))
    if len(os.fsencode(shown)) > LONGEST_PATH:
        shown = Path(_digest(path.parent), shown.name)
    folders = [f"{p}_" if p.lower().endswith(OWN_SUFFIXES) else p for p in shown.parts[:-1]]
    return Path(*folders, shown.name)


def _fit_name(name: str) -> str:
    """A name of valid UTF-8 that leaves room for endings."""
    content = name.encode("utf-8", "replace")
    if len(content) <= LONGEST_NAME:
        return content.decode("utf-8")
    return f"{content[:LONGEST_NAME].decode('utf-8', 'ignore')}~{_digest(Path(name))}"


def _digest(path: Path) -> str:
    """Eight digits that tell paths apart."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
