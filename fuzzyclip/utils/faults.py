"""What libraries raise, as a line that names the file and the way to mend it.

An error that our own code raised says all of that itself. One that came out of a library is known
here by its class or its words, or it is a mistake of this program: then there is no line, and who
asked shows the traceback (`fuzzyclip.utils.endings`). What a library says of the values that it was
called with (`MISUSES`) is a file's fault only where `naming` says that a file was read.

Classes are compared by name, so that no library is imported to know its errors. Where a file is
read, `naming` puts its name before what its reader says.
"""

import dis
import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

#: Packages whose errors are written for people.
OWN = frozenset({"fuzzyclip", "stages", "tools", "benchmarks"})
AGAIN = "then give the same command again"
#: What the system refuses, in words, and the way to mend it.
SYSTEM = {
    errno.ENOSPC: f"the disk is full; make room, {AGAIN}",
    errno.EDQUOT: f"your quota of this disk is used up; make room, {AGAIN}",
    errno.EACCES: "no permission; change whose it is, or name another place",
    errno.EPERM: "no permission; change whose it is, or name another place",
    errno.EROFS: "the disk can only be read; name a place on another",
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "exists already; name another place, or remove it",
    errno.ENOTEMPTY: "a folder that is not empty; name another place, or empty it",
    errno.ENOTDIR: "a file lies where a folder is needed; name another place, or move it away",
    errno.EISDIR: "a folder, not a file",
    errno.ENAMETOOLONG: "a name that is too long for this disk; choose a shorter one",
    errno.ELOOP: "links that lead in a circle; remove them",
    errno.EMFILE: f"too many open files; allow more (ulimit -n 4096), {AGAIN}",
    errno.ENFILE: f"this machine has too many open files; end what holds them, {AGAIN}",
    errno.ENOMEM: f"not enough memory; end other programs, {AGAIN}",
    errno.EIO: "the disk can not read or write it; look at the disk, or use another",
    errno.ESTALE: f"the network's disk has lost it; connect it again, {AGAIN}",
}
DEVICE = "take the device cpu or auto; fuzzyclip doctor says what there is"
MEMORY = "smaller batches (--batch-size) need less"
#: What PyTorch raises as a plain RuntimeError or AssertionError, by its words.
TORCH: dict[str, str] = {
    r"out of memory": f"the device has not enough memory; {MEMORY}, or take the device cpu",
    r"DefaultCPUAllocator|not enough memory|[Cc]annot allocate memory": (
        f"not enough memory; {MEMORY}, or end other programs"
    ),
    r"PytorchStreamReader|unexpected EOF|failed finding central directory": (
        "no whole file of PyTorch; fetch or make it again"
    ),
    r"PytorchStreamWriter|inline_container\.cc|iostream error|No space left": (
        f"the file could not be written to its end: the disk is full; make room, {AGAIN}"
    ),
    r"not compiled with CUDA|Found no NVIDIA driver|No CUDA GPUs|driver version is insufficient": (
        f"PyTorch finds no CUDA GPU here; {DEVICE}"
    ),
    r"CUDA error(?!: device-side assert)|cuDNN|CUBLAS|NCCL": f"the GPU failed; {DEVICE}",
    r"\bMPS\b|HIP error|\bXPU\b": f"PyTorch can not compute on this device; {DEVICE}",
}

#: Words of a plain RuntimeError that is about the machine, whatever was read or computed.
SHORTAGE = re.compile(
    r"out of memory|DefaultCPUAllocator|not enough memory|[Cc]annot allocate memory"
    r"|CUDA error|cuDNN|CUBLAS"
)


class UnreadableFileError(ValueError):
    """A file does not hold what its kind must hold."""


def explain(error: BaseException) -> str | None:
    """A line for the person who started this; None where the mistake is this program's own.

    The line of an error without a file's name has none: `naming` belongs around what reads files.
    """
    if is_misuse(error):
        return None
    text = str(error).strip()
    if isinstance(error, ValueError | OSError | RuntimeError | ImportError) and text:
        numbered = isinstance(error, OSError) and error.errno is not None
        if _is_deliberate(error) and not numbered:
            return _add_notes(text, error)
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] in OWN:
            return None
    words = describe(error)
    return None if words is None else _add_notes(words, error)


def describe(error: BaseException) -> str | None:
    """What is wrong, and the way to mend it, of an error of a library or the system; else None."""
    for name in _name_classes(error):
        if name in LIBRARIES:
            return LIBRARIES[name](error)
    if isinstance(error, RuntimeError | AssertionError):
        known = (words for pattern, words in TORCH.items() if re.search(pattern, str(error)))
        return next(known, None)
    return None


def is_misuse(error: BaseException) -> bool:
    """True for what a library says of a call of ours, and not of a file, a store or a server.

    MLflow passes on what its data base says: there the cause decides.
    """
    for name in _name_classes(error):
        if name in MISUSES:
            return MISUSES[name](error)
        if name in LIBRARIES:
            return False
    return False


def _name_classes(error: BaseException) -> Iterator[str]:
    """Package and class of an error and of what it derives from, the nearest first."""
    for kind in type(error).__mro__:
        yield f"{kind.__module__.partition('.')[0].lstrip('_')}.{kind.__name__}"


@contextmanager
def naming(
    path: Path | str, raising: type[ValueError] = UnreadableFileError, *, wild: bool = False
) -> Iterator[None]:
    """Errors of the block, which reads one file, get the file's name.

    Args:
        path: of the file, or whatever names it.
        raising: what errors of the content become. Those of the system stay what they are, and get
            the name where they have none.
        wild: whether the reader is one that raises nearly everything on a broken file; else only
            only what is known here, and nesting without an end, is the file's fault. Memory or a
            device that fails never is: that error stays what it is, with a note of the file.

    Raises:
        ValueError: of the class `raising`; names the file, what is wrong and what mends it.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    except RecursionError as error:
        raise raising(f"{path}: nested too deeply to be read") from error
    except Exception as error:
        if _is_shortage(error):
            error.add_note(f"while {path} was read")
            raise
        own = _is_deliberate(error) and isinstance(error, ValueError)
        words = str(error) if own else describe(error)
        if words is None and wild:
            words = (
                f"not readable ({_shorten(error) or type(error).__name__}); mend or make it again"
            )
        if words is None:
            raise
        raise raising(words if str(path) in words else f"{path}: {words}") from error


def _is_shortage(error: Exception) -> bool:
    """True where memory or a device failed: a file that was read then may be whole."""
    if any(k.__name__ in ("MemoryError", "OutOfMemoryError") for k in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and SHORTAGE.search(str(error)) is not None


def _is_deliberate(error: BaseException) -> bool:
    """True where a `raise` of our own code raised it, for people; not where a library did.

    An error that came from another process has lost its place, and was judged there.
    """
    trace: TracebackType | None = error.__traceback__
    if trace is None or type(error).__module__.partition(".")[0] in OWN:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame
    if frame.f_globals.get("__name__", "").partition(".")[0] not in {*OWN, "__main__"}:
        return False
    return frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _add_notes(text: str, error: BaseException) -> str:
    return "; ".join([text, *getattr(error, "__notes__", ())])


def _shorten(error: BaseException) -> str:
    """The first line of what a library says, without its advice for programmers."""
    line = next(iter(str(error).strip().splitlines()), "")
    return line if len(line) <= 300 else f"{line[:300]}..."


def _say_system(error: OSError) -> str:
    if error.errno is None:
        return _shorten(error) or type(error).__name__
    words = SYSTEM.get(error.errno, f"{error.strerror or error}")
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' -> '.join(names)}: {words}" if names else words


def _say_bytes(error: UnicodeDecodeError) -> str:
    line = error.object.count(b"\n", 0, error.start) + 1
    byte = error.object[error.start]
    return (
        f"line {line} is no UTF-8: byte {error.start + 1} is 0x{byte:02x}, as of Latin-1 or "
        "Windows; save the file as UTF-8"
    )


def _say_characters(error: UnicodeEncodeError) -> str:
    shown = error.object[:200].encode("utf-8", "backslashreplace").decode()
    return f"{shown}: a character that {error.encoding} has no code for; rename it"


def _say_json(error: Any) -> str:
    return f"no JSON: {error.msg} in line {error.lineno}, column {error.colno}"


def _say_yaml(error: Any) -> str:
    """What is wrong, with its place where the parser knows one."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or _shorten(error)
    place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"no YAML: {problem}{place}"


def _say_schema(error: Any) -> str:
    from fuzzyclip.utils.settings import say_first_fault

    return say_first_fault(error)


def _say_import(error: ImportError) -> str:
    name = error.name or "a package"
    return f"{name} can not be imported ({_shorten(error)}); fuzzyclip doctor says what is missing"


def _say_network(error: Any) -> str:
    address = getattr(getattr(error, "request", None), "url", None)
    place = f"{address}: " if address else ""
    return f"{place}can not be reached ({_shorten(error)}); look at the address and the network"


def _after(words: str, advice: str = "") -> Callable[[Any], str]:
    """A sentence with what the library says in its middle."""

    def say(error: BaseException) -> str:
        inner = _shorten(error)
        return words + (f" ({inner})" if inner else "") + (f"; {advice}" if advice else "")

    return say


def _is_refused_call(error: Any) -> bool:
    """True for what MLflow itself, and no server of it, refuses of the values that it was given."""
    return error.error_code in REFUSED_CALLS or (
        error.__cause__ is not None and is_misuse(error.__cause__)
    )


#: MLflow's codes for what it was called with.
REFUSED_CALLS = frozenset({"INVALID_PARAMETER_VALUE", "INVALID_STATE", "NOT_IMPLEMENTED"})
#: Errors that speak of how a library was called, each with a look at the error; of a class's bases
#: the nearest counts, here and in `LIBRARIES` together.
MISUSES: dict[str, Callable[[Any], bool]] = {
    "pydantic_core.ValidationError": lambda _: True,
    "mlflow.RestException": lambda _: False,  # a server's answer
    "mlflow.MlflowException": _is_refused_call,
    **{
        f"{package}.{name}": lambda _: True
        for package in ("sqlalchemy", "sqlite3")
        for name in ("ProgrammingError", "IntegrityError", "DataError", "NotSupportedError")
    },
    "sqlite3.OperationalError": lambda error: "syntax error" in str(error),
    "sqlalchemy.OperationalError": lambda error: "syntax error" in str(error),
    "sqlalchemy.InvalidRequestError": lambda _: True,
    "sqlalchemy.CompileError": lambda _: True,
}
AGAIN_FROM_SOURCE = "fetch or make it again"
#: By package and class, the words for an error; of a class's bases the nearest counts.
LIBRARIES: dict[str, Callable[[Any], str]] = {
    "builtins.UnicodeDecodeError": _say_bytes,
    "builtins.UnicodeEncodeError": _say_characters,
    "builtins.MemoryError": lambda _: f"not enough memory; {MEMORY}, or end other programs",
    "builtins.ImportError": _say_import,
    "builtins.EOFError": _after("its end is missing", AGAIN_FROM_SOURCE),
    "builtins.OSError": _say_system,
    "json.JSONDecodeError": _say_json,
    "yaml.YAMLError": _say_yaml,
    "csv.Error": _after("no table of comma-separated values", AGAIN_FROM_SOURCE),
    "safetensors.SafetensorError": _after("not readable as safetensors", AGAIN_FROM_SOURCE),
    "pickle.UnpicklingError": _after("no file of tensors alone", AGAIN_FROM_SOURCE),
    "zipfile.BadZipFile": _after("no whole zip file", AGAIN_FROM_SOURCE),
    "zipfile.LargeZipFile": _after("too large for this kind of zip file"),
    "tarfile.TarError": _after("no whole tar file", AGAIN_FROM_SOURCE),
    "zlib.error": _after("its packed content is damaged", AGAIN_FROM_SOURCE),
    "lzma.LZMAError": _after("its packed content is damaged", AGAIN_FROM_SOURCE),
    "xml.ParseError": _after("no XML", AGAIN_FROM_SOURCE),
    "pandas.ParserError": _after("no table of comma-separated values", AGAIN_FROM_SOURCE),
    "pandas.EmptyDataError": lambda _: f"an empty file, not a table; {AGAIN_FROM_SOURCE}",
    "pydantic_core.ValidationError": _say_schema,
    "torch.OutOfMemoryError": lambda _: TORCH["out of memory"],
    "requests.RequestException": _say_network,
    "urllib3.HTTPError": _say_network,
    "mlflow.MlflowException": _after("MLflow refuses", "look at MLFLOW_TRACKING_URI and its store"),
    "sqlalchemy.SQLAlchemyError": _after("the data base fails", f"look at its file, {AGAIN}"),
    "sqlite3.Error": _after("the data base fails", f"look at its file, {AGAIN}"),
    "dvc.DvcException": _after("DVC refuses"),
    "concurrent.BrokenExecutor": _after(
        "a process that helped was killed, most often for want of memory", MEMORY
    ),
}
