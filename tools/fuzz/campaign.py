"""Inputs one after the other in a process of their own, with a bound on time and memory.

Every input has a number; seed and number decide it, so that one alone can be made again. A process
that dies, waits or asks for too much memory is a finding of the input it had.
"""

import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from fuzzyclip.utils.faults import explain
from tools.fuzz.kind import Kind, deep
from tools.fuzz.kinds import load_kind

#: Seconds for one input; bytes of memory beyond what the process has at its start.
SECONDS, MEMORY = 10, 2 * 2**30
#: Seconds after which a process that does not even hear its alarm is ended.
PATIENCE = 2 * SECONDS
#: Words of libraries that were refused memory.
OUT_OF_MEMORY = ("MemoryError", "memory")


class Verdict(NamedTuple):
    """What came of one input: `refused`, `accepted`, or a `finding` in words."""

    number: int
    outcome: str
    words: str = ""


@dataclass
class Tally:
    """Outcomes of a campaign: how many of each, and what was found."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Verdict] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Count one more."""
        self.counts[verdict.outcome] += 1
        if verdict.outcome == "finding":
            self.findings.append(verdict)


class _TooLongError(BaseException):
    """The alarm has rung."""


def run_campaign(name: str, numbers: Sequence[int], seed: int, keep: Path | None = None) -> Tally:
    """Try inputs of a kind; those with findings are kept as folders below `keep`."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_choose_disk()) as folder:
        left = list(numbers)
        while left:
            for verdict in _run_process(name, [*left], seed, Path(folder)):
                tally.add(verdict)
                left.pop(0)
                if verdict.outcome == "finding" and keep is not None:
                    target = keep / f"{name}-{seed}-{verdict.number}"
                    shutil.rmtree(target, ignore_errors=True)
                    shutil.copytree(Path(folder) / "input", target, symlinks=True)
                    (target.with_suffix(".txt")).write_text(verdict.words + "\n", "utf-8")
    return tally


def _choose_disk() -> str | None:
    """Memory as a disk, where there is one: thousands of files are written and removed."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _run_process(name: str, numbers: Sequence[int], seed: int, folder: Path) -> Iterator[Verdict]:
    """Verdicts in order until all are done, or the process has ended, which is one more."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, name, list(numbers), seed, folder))
    process.start()
    there.close()
    done = 0
    try:
        while done < len(numbers):
            if not here.poll(PATIENCE if done else 10 * PATIENCE):
                words = f"no answer in {PATIENCE} s, no alarm heard"
                yield Verdict(numbers[done], "finding", words)
                return
            try:
                verdict = here.recv()
            except EOFError:
                process.join()
                words = f"the process died (exit code {process.exitcode})"
                yield Verdict(numbers[done], "finding", words)
                return
            yield verdict
            here.send(None)  # the input may go now
            done += 1
    finally:
        here.close()
        process.join(1)  # one that has done all ends by itself
        process.kill()
        process.join()


def _work(pipe: Connection, name: str, numbers: list[int], seed: int, folder: Path) -> None:
    """In the process: make, read and judge inputs."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    kind = load_kind(name)
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    kind.prepare(home)
    _bound_memory()
    signal.signal(signal.SIGALRM, _ring)
    for number in numbers:
        rng = random.Random(f"{name}/{seed}/{number}")
        pipe.send(try_input(kind, number, rng, folder / "input"))
        pipe.recv()


def try_input(kind: Kind, number: int, rng: random.Random, place: Path) -> Verdict:
    """Make one input in a folder, read it and judge what came of it."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    with deep():
        kind.mutate(rng, place)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        content = kind.read(place)
        with deep():
            fault = kind.find_fault(place, content)
    except _TooLongError:
        return Verdict(number, "finding", f"no answer in {SECONDS} s")
    except Exception as error:
        return _judge_error(kind, number, error, place)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if fault:
        return Verdict(number, "finding", f"accepted: {fault}")
    return Verdict(number, "accepted")


def _judge_error(kind: Kind, number: int, error: Exception, place: Path) -> Verdict:
    line = explain(error)
    if line is None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return Verdict(number, "finding", f"bug: {type(error).__name__} at {where}: {error!s:.200}")
    if isinstance(error, MemoryError) or any(word in line for word in OUT_OF_MEMORY):
        return Verdict(number, "finding", f"memory: {line:.300}")
    if not any(name in line for name in kind.list_names(place)):
        return Verdict(number, "finding", f"names no file: {type(error).__name__}: {line:.300}")
    return Verdict(number, "refused", line)


def _ring(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _TooLongError


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
