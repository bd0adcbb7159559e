"""How a process ends where something is wrong: a line for the person, an exit code, no debris.

Around all of a command or stage stands `ending`. What `fuzzyclip.utils.faults` has words for ends
as one line. All else is a mistake of this program: its traceback is shown, with a line that says
so. A stop by the keyboard or by SIGTERM unwinds like an error, so that temporary files are removed.

    0    done
    1    refused: the line says what is wrong and what mends it
    70   a bug of FuzzyCLIP
    130  interrupted (SIGINT), as shells have it
    143  stopped (SIGTERM)
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

import fuzzyclip
from fuzzyclip.utils.faults import explain
from fuzzyclip.utils.files import show_lines

REFUSED, BUG = 1, 70
INTERRUPTED, STOPPED = 128 + signal.SIGINT, 128 + signal.SIGTERM
#: Of the environment: where it is not empty, every error shows its traceback too.
DEBUG = "FUZZYCLIP_DEBUG"
#: What is true of work that nothing is kept of, and of work that each result is kept of.
BEGINS_ANEW = "the same command begins anew"
GOES_ON = "the same command goes on from what is done"
#: Packages whose exceptions are the command line's own ends, with a message of their own.
COMMAND_LINE = frozenset({"typer", "click"})


class Stopped(BaseException):
    """SIGTERM has come."""


class Ending(NamedTuple):
    """The exit code and the line; `traced` where the traceback belongs before it."""

    code: int
    line: str
    traced: bool = False


def judge(error: BaseException) -> Ending | None:
    """The end that an error makes; None for one that ends the process in its own way.

    That is a reader of our output who has gone (`| head`), an exit, or the command line's usage.
    """
    if isinstance(error, KeyboardInterrupt):
        return Ending(INTERRUPTED, f"interrupted; {_say_kept(error)}")
    if isinstance(error, Stopped):
        return Ending(STOPPED, f"stopped; {_say_kept(error)}")
    ours = type(error).__module__.partition(".")[0] not in COMMAND_LINE
    if isinstance(error, BrokenPipeError) or not isinstance(error, Exception) or not ours:
        return None
    if line := explain(error):
        return Ending(REFUSED, line, traced=bool(os.environ.get(DEBUG)))
    return Ending(
        BUG,
        f"this is a bug of FuzzyCLIP {fuzzyclip.__version__}, not of your input: please report it "
        "with the lines above",
        traced=True,
    )


def _say_kept(stop: BaseException) -> str:
    return "; ".join(getattr(stop, "__notes__", [])) or BEGINS_ANEW


@contextmanager
def keeping(words: str) -> Iterator[None]:
    """Around work of which a stop leaves something: `words` say what the same command makes of it.

    Without words, and where nothing stands around the work, it begins anew.
    """
    try:
        yield
    except (KeyboardInterrupt, Stopped) as stop:
        if words:
            stop.add_note(words)
        raise


def say(line: str) -> None:
    """A line to the person; what the output has no code for, or what commands it, is escaped."""
    encoding = sys.stderr.encoding or "utf-8"
    print(
        show_lines(line).encode(encoding, "backslashreplace").decode(encoding),
        file=sys.stderr,
        flush=True,
    )


@contextmanager
def ending(
    tell: Callable[[str], None] = say, label: Callable[[BaseException, str], str] | None = None
) -> Iterator[None]:
    """Around all of a command: an error becomes a line and an exit code.

    Args:
        tell: what writes a line.
        label: makes the line of an error and its line, such as with a stage's name before it.

    Raises:
        SystemExit: in place of the error.
    """
    with _unwinding():
        try:
            yield
        except BaseException as error:
            end = judge(error)
            if end is None:
                raise
            if end.traced:
                tell("".join(traceback.format_exception(error)).rstrip())
            tell(end.line if label is None or end.code == BUG else label(error, end.line))
            raise SystemExit(end.code) from error


@contextmanager
def _unwinding() -> Iterator[None]:
    """SIGTERM raises `Stopped` in the block, unless somebody else takes care of it."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends without further words
        raise Stopped

    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
