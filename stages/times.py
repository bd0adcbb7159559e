"""Seconds that trainings took on this machine, kept apart from all results.

No stage depends on them, and they are in no output of DVC's, whose bytes would differ from run to
run. A time is found by the content of the file that was trained: a run with other settings makes
another file and has a time of its own, and what came from DVC's cache has that of its making, where
it was made here.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fuzzyclip.utils.files import compute_sha256, write_json
from stages import paths

#: What precedes trainings that came from DVC's cache or went on after a kill.
UNKNOWN = "not timed here (`dvc repro -sf STAGE` does): "


class Time(NamedTuple):
    """Seconds by the clock, and of this process's processors, which other programs hardly touch."""

    clock: float
    processor: float

    def __str__(self) -> str:
        """Both, as a note has them."""
        return f"{self.clock:.1f} / {self.processor:.1f}"


@dataclass
class Watch:
    """A training's time, once it has ended; None of one that went on after a kill."""

    time: Time | None = None


@contextmanager
def watch_training(checkpoints: Sequence[Path]) -> Iterator[Watch]:
    """A watch that runs in the block, around a training from stored features.

    Of one that finds a checkpoint of a killed run only the rest would be measured: it has no time.
    """
    watch, went_on = Watch(), any(path.exists() for path in checkpoints)
    clock, processor = time.perf_counter(), time.process_time()
    yield watch
    if not went_on:
        watch.time = Time(time.perf_counter() - clock, time.process_time() - processor)


def keep_time(made: Path, watch: Watch) -> None:
    """Keep the time of the training that made a file."""
    if watch.time is not None:
        seconds = {name: round(value, 3) for name, value in watch.time._asdict().items()}
        write_json(locate_time(made), {"made": str(made)} | seconds)


def read_time(made: Path) -> Time | None:
    """Time of the training that made a file; None where it was not made here in one go."""
    path = locate_time(made) if made.is_file() else None
    if path is None or not path.is_file():
        return None
    kept = json.loads(path.read_text())
    return Time(*(float(kept[name]) for name in Time._fields))


def add_times(*times: Time | None) -> Time | None:
    """Time of trainings that belong together, None where one of them is not known."""
    known = [each for each in times if each is not None]
    return Time(*map(sum, zip(*known, strict=True))) if len(known) == len(times) else None


def locate_time(made: Path) -> Path:
    """The file that holds the time of a trained file, by its content."""
    return paths.TRAINING_TIMES / f"{compute_sha256(made)[:16]}.json"


def describe_times(times: Mapping[str, Mapping[str, Time | None]], by: str) -> str:
    """A note on trainings: time by title and, say, auxiliary set; none of a title that has none."""
    told, unknown, idle = [], [], []
    for title, named in times.items():
        known = [f"{name} {each}" for name, each in named.items() if each is not None]
        if len(known) < len(named):
            unknown.append(title)
        elif known:
            told.append(f"{title} ({', '.join(known)})")
        else:
            idle.append(title)
    parts = {"": told, UNKNOWN: unknown, "nothing is trained: ": idle}
    text = "; ".join(start + ", ".join(titles) for start, titles in parts.items() if titles)
    return (
        "Time to train from stored features on this machine, seconds by the clock / of the "
        f"processors, by {by}: {text}."
    )
