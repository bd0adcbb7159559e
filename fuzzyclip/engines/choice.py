"""Which engine runs the image tower: the one that is asked for, or the fastest that is equal.

    backbone = choose_engine(load_backbone(settings), "auto", images=3000)

`auto` never costs more than it brings. It measures where the work ahead is so long that measuring
is a small share of it, and keeps the answer for this tower, processor, number of threads and
packages; a kept answer is followed where opening the engine pays. Everything else is PyTorch's.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Self, get_args

import torch
from pydantic import ValidationError, model_validator

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.engines.equality import DRAWN, UnequalError, check_equal, draw_pixels
from fuzzyclip.engines.machine import describe_machine, find_free_memory, name_facts
from fuzzyclip.engines.measuring import ROUNDS, Clock, measure_turns
from fuzzyclip.engines.onnx_files import WRITERS, ExportError
from fuzzyclip.engines.runners import RUNNERS, Runner, count_pass_images
from fuzzyclip.engines.tower_files import (
    FACTS,
    FOLDER,
    count_bytes,
    count_parameters,
    find_folder,
    keep_tower,
    read_json,
)
from fuzzyclip.utils.extras import MissingExtraError, import_extra
from fuzzyclip.utils.files import write_json
from fuzzyclip.utils.settings import NonNegative, Positive, Record, Runtime

log = logging.getLogger(__name__)

TORCH = "torch"
#: Times as fast as PyTorch that another engine must be to be taken. Below it the next measurement
#: may say the opposite.
LEAST_RATIO = 1.1
#: Share of the work ahead that measuring may take. An engine of `LEAST_RATIO` brings twice as much
#: of it back.
SHARE = 0.05
#: Seconds that making the tower's file takes, estimated: for any tower, and for a million of its
#: parameters.
MAKING_SECONDS, MAKING_SECONDS_A_MILLION = 30.0, 0.2


#: Times the bytes of the tower that must be free in memory to measure, with all engines open, and
#: to run one of them; and bytes for what they hold besides.
MEASURING_MEMORY, RUNNING_MEMORY, SPARE_MEMORY = 5.0, 2.5, 2**29


class EngineError(ValueError):
    """The engine that is asked for can not run this tower here."""


class Answer(Record):
    """What was measured of a tower on a machine.

    Attributes:
        seconds: an image, by engine; PyTorch's among them.
        opening: seconds until an engine is ready, by engine.
        refused: why an engine is out of question, by engine.
    """

    seconds: dict[str, Positive]
    opening: dict[str, NonNegative]
    refused: dict[str, str]

    @model_validator(mode="after")
    def _check_compared(self) -> Self:
        others = self.seconds.keys() - {TORCH}
        if TORCH not in self.seconds or others != self.opening.keys() or others - RUNNERS.keys():
            raise ValueError("seconds: they are of PyTorch and of engines that were opened")
        return self

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """A kept answer; None where there is none, or anything else."""
        facts = read_json(path)
        try:
            return None if facts is None else cls.model_validate(facts.get("answer"))
        except ValidationError:
            return None

    @property
    def fastest(self) -> str:
        """The engine to take: the fastest one, if it is clearly faster than PyTorch."""
        name = min(self.seconds, key=lambda each: self.seconds[each])
        return name if self.compare(name) >= LEAST_RATIO else TORCH

    def compare(self, name: str) -> float:
        """Times as fast as PyTorch."""
        return self.seconds[TORCH] / self.seconds[name]

    def pays(self, images: int | None, making: float = 0.0) -> bool:
        """Whether the fastest engine saves more than it takes to make and open it.

        Args:
            images: that are ahead; None where nobody knows, which counts as many.
            making: seconds before it can be opened.
        """
        name = self.fastest
        saved = self.seconds[TORCH] - self.seconds[name]
        return images is None or images * saved > self.opening.get(name, 0.0) + making


def choose_engine(
    backbone: Backbone,
    runtime: Runtime = "auto",
    images: int | None = None,
    *,
    clock: Clock = time.perf_counter,
) -> Backbone:
    """The backbone with the engine that is to run its image tower; a line of the log says which.

    Args:
        backbone: by PyTorch.
        runtime: `torch`; `onnx` or `openvino`, which are then made and compared whatever that
            costs; or `auto`. A backbone of int8 stays with its own engine.
        images: how many are ahead, which `auto` weighs against the time that measuring takes; None
            where nobody knows: it then follows a kept answer and measures nothing.
        clock: seconds.

    Raises:
        EngineError: the engine that is asked for can not run this tower, or is not equal.
        MissingExtraError: it is not installed.
        ValueError: there is no such runtime.
    """
    if runtime not in get_args(Runtime):
        raise ValueError(f"runtime must be one of {', '.join(get_args(Runtime))}, not {runtime!r}")
    if backbone.is_int8 and runtime in (TORCH, "auto"):
        return backbone  # its engine is a part of what it is
    if runtime == TORCH:
        return backbone if backbone.engine is None else replace(backbone, engine=None)
    obstacle = _find_obstacle(backbone)
    if runtime != "auto":
        if obstacle:
            raise EngineError(f"runtime {runtime}: {obstacle}; take auto or torch")
        engine = open_engine(backbone, runtime)
        log.info("image tower by %s, as asked for", engine.label)
        return replace(backbone, engine=engine)
    if obstacle or not (installed := list_installed()):
        return backbone
    answer = Answer.read(find_answer(backbone))
    if answer is None:
        if images is None or not is_worth_measuring(backbone, images, len(installed), clock):
            return backbone
        answer = measure(backbone, installed, clock)
    return _follow(answer, backbone, images)


def _find_obstacle(backbone: Backbone) -> str:
    """Why no engine can run a tower, in words; empty where one may."""
    if backbone.device.type != "cpu":
        return f"other engines run on the CPU, the image tower is on {backbone.device}"
    if backbone.settings.precision != "float32":
        return f"other engines compute in float32, the backbone in {backbone.settings.precision}"
    if backbone.settings.merge:
        return "which tokens are merged hangs on last digits, which other engines change"
    return "torch.compile runs the image tower (machine.compile)" if backbone.compiled else ""


def list_installed() -> list[str]:
    """Engines whose packages, and those that write their file, are there; none is imported."""
    if not all(map(_is_there, WRITERS)):
        return []
    return [name for name, runner in RUNNERS.items() if _is_there(runner.package)]


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # another module was put in its place
        return False


def _follow(answer: Answer, backbone: Backbone, images: int | None) -> Backbone:
    """The backbone by the fastest engine of an answer, where it pays; by PyTorch where it fails."""
    name = answer.fastest
    is_made = (find_folder(backbone) / FOLDER / FACTS).is_file()
    if name == TORCH or not answer.pays(images, 0.0 if is_made else estimate_making(backbone)):
        return backbone
    if not has_memory(backbone, RUNNING_MEMORY):
        log.info("image tower by PyTorch: memory is too short for another engine")
        return backbone
    try:
        engine = open_engine(backbone, name)
    except (EngineError, MissingExtraError) as error:
        log.warning("image tower by PyTorch: %s", error)
        return backbone
    ratio = answer.compare(name)
    log.info("image tower by %s: %.2f times as fast as PyTorch here", engine.label, ratio)
    return replace(backbone, engine=engine)


def open_engine(backbone: Backbone, name: str) -> Runner:
    """An engine that gives PyTorch's features; compared once on a machine, and again with its file.

    Raises:
        EngineError: it does not, or can not be made; says why.
        MissingExtraError: it is not installed.
    """
    import_extra(RUNNERS[name].package)
    with _explaining(name):
        path, digits = keep_tower(backbone)
        engine = _open(backbone, name, path)
        _require_equal(backbone, engine, digits)
    return engine


@contextmanager
def _explaining(name: str) -> Iterator[None]:
    """What keeps an engine from running, as an EngineError that says what to do."""
    try:
        yield
    except (ExportError, OSError, RuntimeError, MemoryError, UnequalError) as error:
        raise EngineError(f"runtime {name}: {error}; take auto or torch") from error


def _open(backbone: Backbone, name: str, path: Path) -> Runner:
    rows, columns = backbone.grid
    return RUNNERS[name](path, backbone.blocks, rows * columns, torch.get_num_threads())


def _require_equal(backbone: Backbone, engine: Runner, digits: str) -> None:
    """Refuse, as an UnequalError, an engine that was not, and is not, equal with this file."""
    machine = describe_machine()
    place = find_folder(backbone) / f"equal-{engine.name}-{name_facts(machine)}.json"
    known = read_json(place)
    if known is None or known.get("file") != digits:
        difference = check_equal(engine, backbone, engine.label)
        with suppress(OSError):  # then it is compared again the next time
            write_json(place, {"file": digits, "difference": difference, "machine": machine})


def find_answer(backbone: Backbone) -> Path:
    """Where the answer for a tower on this machine is kept."""
    return find_folder(backbone) / f"fastest-{name_facts(describe_machine())}.json"


def is_worth_measuring(
    backbone: Backbone, images: int, engines: int, clock: Clock = time.perf_counter
) -> bool:
    """Whether measuring so many engines takes a small enough share of the work ahead.

    One pass of the tower is timed for that, where the number of images alone does not decide.
    """
    passes = 1 + (ROUNDS + 1) * (1 + engines)  # to see this; then one to warm up, and turns
    count = passes * count_images(backbone) + 2 * DRAWN * engines
    if images * SHARE <= count or not has_memory(backbone, MEASURING_MEMORY):
        return False
    seconds = measure_turns({TORCH: _prepare(backbone, None)}, 1, clock)[TORCH]
    seconds /= count_images(backbone)
    return (images * SHARE - count) * seconds > estimate_making(backbone)


def has_memory(backbone: Backbone, times: float) -> bool:
    """Whether so many times the tower is free in memory; taken for granted where nobody says."""
    free = find_free_memory()
    return free is None or free > times * count_bytes(backbone) + SPARE_MEMORY


def count_images(backbone: Backbone) -> int:
    """Images that engines send through the tower at a time."""
    rows, columns = backbone.grid
    return count_pass_images(rows * columns)


def estimate_making(backbone: Backbone) -> float:
    """Seconds that making the tower's file is likely to take."""
    return MAKING_SECONDS + MAKING_SECONDS_A_MILLION * count_parameters(backbone) / 1e6


def measure(backbone: Backbone, engines: Sequence[str], clock: Clock = time.perf_counter) -> Answer:
    """Make, compare and time engines side by side with PyTorch; the answer.

    It is kept, unless a full disk or short memory had a part in it: the next run may not meet them.
    """
    log.info("measuring once which runs the image tower fastest: torch, %s", ", ".join(engines))
    ways = {TORCH: _prepare(backbone, None)}
    opening: dict[str, float] = {}
    refused: dict[str, str] = {}
    lasts = True
    for name in engines:
        try:
            with _explaining(name):
                path, digits = keep_tower(backbone)
                start = clock()
                engine = _open(backbone, name, path)
                ready = clock() - start
                _require_equal(backbone, engine, digits)
        except (EngineError, MissingExtraError) as error:
            refused[name] = str(error)
            lasts &= not isinstance(error.__cause__, OSError | MemoryError)
            log.info("%s", error)
        else:
            ways[name], opening[name] = _prepare(backbone, engine), ready
    for run in ways.values():
        run()  # the first pass reserves memory
    spent = measure_turns(ways, ROUNDS, clock)
    seconds = {name: each / count_images(backbone) for name, each in spent.items()}
    answer = Answer(seconds=seconds, opening=opening, refused=refused)
    facts = {"machine": describe_machine(), "answer": answer.model_dump()}
    if lasts:
        with suppress(OSError):  # then it is measured again the next time
            write_json(find_answer(backbone), facts)
    ratios = [f"{name} {answer.compare(name):.2f}" for name in seconds if name != TORCH]
    log.info("times as fast as PyTorch: %s", ", ".join(ratios) or "nothing to compare")
    return answer


def _prepare(backbone: Backbone, engine: Runner | None) -> Callable[[], object]:
    """A pass of the tower on drawn images, by an engine or by PyTorch."""
    pixels = draw_pixels(backbone.image_size)[:1].repeat(count_images(backbone), 1, 1, 1)
    return partial(encode_images, replace(backbone, engine=engine), pixels)
