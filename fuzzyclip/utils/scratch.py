"""Temporary files and folders that say whose they are: the next run removes what a kill left.

Such a name holds the machine and the process that made it: `.NAME.MACHINE-PID-START-RANDOM.tmp`.
The first time that a process makes one in a folder, it looks there for those of processes that are
no more. What belongs to a running process is never touched; what another machine left in a folder
that both share, or this one before it was last started, goes after a week, since nobody can be
asked there. Files and folders have the modes that the user's umask gives.
"""

import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

#: Seconds after which what an unknown process left is taken for forgotten.
FORGOTTEN = 7 * 24 * 3600
#: Bytes of the final name that stand in the temporary one; systems take 255 of the whole.
SHOWN = 180
#: Temporary names: machine, process, and when that began.
NAME = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}\.tmp", re.DOTALL)
#: Those of earlier versions, which do not say whose they are.
OLD_NAME = re.compile(r"\..*\.[0-9a-f]{32}\.tmp", re.DOTALL)


def name_temporary(path: Path) -> Path:
    """A name beside `path`, whose folder is there, that no other process and thread uses."""
    folder = path.parent
    _look_once(str(folder.absolute()), os.getpid())
    shown = os.fsencode(path.name)[:SHOWN].decode("utf-8", "ignore")
    owner = f"{_name_machine()}-{os.getpid()}-{_read_start(os.getpid()) or 0}"
    return folder / f".{shown}.{owner}-{uuid4().hex[:8]}.tmp"


@contextmanager
def hold_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, whose own folder is made, removed with all in it in the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = name_temporary(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def hold_private_folder() -> Iterator[Path]:
    """A new folder in the system's place for temporary files, for this user alone."""
    folder = make_private_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_private_folder() -> Path:
    """The same, for the caller to remove."""
    folder = name_temporary(Path(tempfile.gettempdir()) / "fuzzyclip")
    folder.mkdir(mode=0o700)
    return folder


def give_usual_mode(path: Path) -> None:
    """The mode that the user's umask gives, to a file or folder that a library gave another."""
    probe = name_temporary(path)  # asking for the umask would change it, for other threads too
    if path.is_dir():
        probe.mkdir()
        mode = probe.stat().st_mode
        probe.rmdir()
    else:
        with probe.open("xb") as file:
            mode = os.fstat(file.fileno()).st_mode
        probe.unlink()
    path.chmod(stat.S_IMODE(mode))


def remove_left(folder: Path) -> list[Path]:
    """Remove what processes that are no more left in a folder; what was removed.

    What can not be removed stays: it is another user's, or the folder can not be written.
    """
    removed = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".tmp") and _is_left(Path(entry.path)):
                _remove(Path(entry.path))
                removed.append(Path(entry.path))
    return removed


@cache
def _look_once(folder: str, _pid: int) -> None:
    """`remove_left`, once a process: a folder may hold a hundred thousand files."""
    remove_left(Path(folder))


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _is_left(path: Path) -> bool:
    """True for a temporary file or folder whose process is no more."""
    if match := NAME.fullmatch(path.name):
        machine, pid, start = match[1], int(match[2]), int(match[3])
        if machine == _name_machine() and (alive := _is_alive(pid, start)) is not None:
            return not alive
    elif not OLD_NAME.fullmatch(path.name):
        return False
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime > FORGOTTEN
    return False


def _is_alive(pid: int, start: int) -> bool | None:
    """Whether a process runs that began then; None where the system does not say."""
    if start and (begun := _read_start(pid)) is not None:
        return begun == start
    if os.name != "posix":
        return None
    try:  # /proc may hide other users' processes, which a signal still finds
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def _read_start(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; None where nothing is seen of it.

    Of one that has ended and that nobody has waited for it is -1, which is no process' begin.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return -1 if fields[0] in "ZX" else int(fields[19])


@cache
def _name_machine() -> str:
    """Eight digits of this machine since it was last started, or of a container on it.

    Each has its own numbers of processes. Names do not tell machines apart: many are `localhost`.
    """
    space, boot = "", ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no path
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return hashlib.sha256(f"{platform.node()} {space} {boot}".encode()).hexdigest()[:8]
