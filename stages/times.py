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

from fuzzyclip.utils.files import compute_sha256, write_json
from stages import paths

#: What precedes trainings that came from DVC's cache or went on after a kill.
UNKNOWN = "not timed here (`dvc repro -sf STAGE` does): "


@dataclass
class Watch:
    """A training's seconds, once it has ended; None of one that went on after a kill."""

    seconds: float | None = None


@contextmanager
def watch_training(checkpoints: Sequence[Path]) -> Iterator[Watch]:
    """A watch that runs in the block, around a training from stored features.

    Of one that finds a checkpoint of a killed run only the rest would be measured: it has no time.
    """
    watch, went_on = Watch(), any(path.exists() for path in checkpoints)
    start = time.perf_counter()
    yield watch
    watch.seconds = None if went_on else time.perf_counter() - start


def keep_time(made: Path, watch: Watch) -> None:
    """Keep the time of the training that made a file."""
    if watch.seconds is not None:
        write_json(locate_time(made), {"made": str(made), "seconds": round(watch.seconds, 3)})


def read_time(made: Path) -> float | None:
    """Seconds of the training that made a file; None where it was not made here in one go."""
    path = locate_time(made) if made.is_file() else None
    if path is None or not path.is_file():
        return None
    return float(json.loads(path.read_text())["seconds"])


def add_times(*seconds: float | None) -> float | None:
    """Seconds of trainings that belong together, None where one of them is not known."""
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None


def locate_time(made: Path) -> Path:
    """The file that holds the time of a trained file, by its content."""
    return paths.TRAINING_TIMES / f"{compute_sha256(made)[:16]}.json"


def describe_times(times: Mapping[str, Mapping[str, float | None]], by: str) -> str:
    """A note on trainings: seconds by title and, say, auxiliary set; none where none is needed."""
    told, unknown, idle = [], [], []
    for title, seconds in times.items():
        known = [f"{name} {each:.1f}" for name, each in seconds.items() if each is not None]
        if len(known) < len(seconds):
            unknown.append(title)
        elif known:
            told.append(f"{title} ({', '.join(known)})")
        else:
            idle.append(title)
    parts = {"": told, UNKNOWN: unknown, "nothing is trained: ": idle}
    text = "; ".join(start + ", ".join(titles) for start, titles in parts.items() if titles)
    return f"Time to train from stored features, seconds on this machine by {by}: {text}."
