"""`auto`: measures where that is a small share of the work ahead, keeps the answer, follows it.

Nothing here is timed: a clock that stands still is moved on by what runs.
"""

import json
import logging
from dataclasses import dataclass, field

import pytest

from fuzzyclip.engines import choice
from fuzzyclip.engines import machine as machine_module
from fuzzyclip.engines.choice import LEAST_RATIO, SHARE, TORCH, Answer, choose_engine, find_answer
from fuzzyclip.engines.equality import UnequalError
from fuzzyclip.engines.onnx_files import ExportError
from fuzzyclip.engines.tower_files import find_folder

#: Images that are enough for any of the towers below.
MANY = 10_000


@dataclass
class Machine:
    """What takes how long here, a clock that says so, and what has run."""

    seconds: dict[str, float] = field(
        default_factory=lambda: {TORCH: 3.0, "onnx": 1.5, "openvino": 2.0}
    )
    opening: float = 30.0
    making: float = 50.0
    now: float = 0.0
    ran: list[str] = field(default_factory=list)

    def run(self, backbone, pixels):
        name = TORCH if backbone.engine is None else backbone.engine.name
        self.ran.append(name)
        self.now += self.seconds[name] * len(pixels)

    def choose(self, backbone, images=MANY):
        """The name of what `auto` takes."""
        chosen = choose_engine(backbone, "auto", images, clock=lambda: self.now)
        return TORCH if chosen.engine is None else chosen.engine.name


@pytest.fixture
def machine(kept, monkeypatch):
    """Engines that open the tiny tower's real file, on a machine of another speed."""
    made, open_file = Machine(), choice._open

    def open_slowly(*given):
        made.now += made.opening
        return open_file(*given)

    monkeypatch.setattr(choice, "encode_images", made.run)
    monkeypatch.setattr(choice, "_open", open_slowly)
    monkeypatch.setattr(choice, "count_images", lambda backbone: 1)
    monkeypatch.setattr(choice, "estimate_making", lambda backbone: made.making)
    return made


def test_the_fastest_equal_engine_is_taken_and_the_answer_kept(machine, tiny, caplog):
    caplog.set_level(logging.INFO, logger="fuzzyclip")
    assert machine.choose(tiny) == "onnx"
    assert {*machine.ran} == {TORCH, "onnx", "openvino"}
    first = [record.message for record in caplog.records]
    assert first[0].startswith("measuring once which runs the image tower fastest: torch, onnx, o")
    assert first[-2] == "times as fast as PyTorch: onnx 2.00, openvino 1.50"
    assert first[-1].startswith("image tower by onnxruntime ")
    assert first[-1].endswith(": 2.00 times as fast as PyTorch here")
    caplog.clear()
    machine.ran.clear()
    assert [machine.choose(tiny), machine.choose(tiny, None)] == ["onnx", "onnx"]
    assert machine.ran == []
    assert [record.message for record in caplog.records] == first[-1:] * 2
    facts = json.loads(find_answer(tiny).read_text())
    assert facts["answer"] == {
        "seconds": machine.seconds, "opening": dict.fromkeys(("onnx", "openvino"), 30.0),
        "refused": {},
    }  # fmt: skip
    assert facts["machine"] == choice.describe_machine()


@pytest.mark.parametrize(("ratio", "taken"), [(LEAST_RATIO + 0.01, "openvino"), (1.09, TORCH)])
def test_an_engine_must_be_clearly_faster(ratio, taken, machine, tiny):
    machine.seconds |= {"onnx": 4.0, "openvino": machine.seconds[TORCH] / ratio}
    assert machine.choose(tiny) == taken
    machine.ran.clear()
    assert machine.choose(tiny) == taken
    assert machine.ran == []  # that PyTorch stays is an answer, too


def test_measuring_is_a_small_share_of_the_work_ahead(machine, tiny):
    """With every number of images at which it is measured, and the last at which it is not."""

    def spend(images):
        machine.now, machine.ran = 0.0, []
        for path in find_folder(tiny).glob("*.json"):
            path.unlink()
        name = machine.choose(tiny, images)
        return name, machine.now

    low, high = 0, MANY
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spend(middle)[0] == TORCH else (low, middle)
    name, spent = spend(high)
    assert name == "onnx"
    # what ran is counted here; comparing and making the file are not run by this clock
    compared = 2 * sum(machine.seconds[TORCH] + machine.seconds[n] for n in ("onnx", "openvino"))
    measured = spent - 3 * machine.opening + compared + machine.making
    assert measured <= SHARE * high * machine.seconds[TORCH]
    assert spend(low) == (TORCH, machine.seconds[TORCH])  # one pass was needed to see it
    assert high > 100


def test_few_images_and_quick_towers_are_pytorchs_without_a_trial(machine, tiny):
    assert machine.choose(tiny, 200) == TORCH
    assert machine.choose(tiny, None) == TORCH
    assert machine.ran == []
    machine.seconds = dict.fromkeys(machine.seconds, 0.01)
    assert machine.choose(tiny, MANY) == TORCH
    assert machine.ran == [TORCH]
    assert not find_answer(tiny).exists()


def test_a_kept_answer_is_followed_where_opening_pays(machine, tiny):
    machine.choose(tiny)
    assert [machine.choose(tiny, count) for count in (1, 20, 21)] == [TORCH, TORCH, "onnx"]
    (find_folder(tiny) / "tower/tower.json").unlink()  # so that it must be made again
    assert [machine.choose(tiny, count) for count in (53, 54)] == [TORCH, "onnx"]


def test_the_rest_is_measured_where_one_engine_is_refused(machine, tiny, monkeypatch, caplog):
    check = choice.check_equal

    def refuse(engine, *given):
        if engine.name == "onnx":
            raise UnequalError(f"{engine.label} differs")
        return check(engine, *given)

    monkeypatch.setattr(choice, "check_equal", refuse)
    caplog.set_level(logging.INFO, logger="fuzzyclip")
    assert machine.choose(tiny) == "openvino"
    assert "onnx" not in machine.ran
    assert any(record.message.startswith("runtime onnx: ") for record in caplog.records)
    answer = json.loads(find_answer(tiny).read_text())["answer"]
    assert [*answer["seconds"]] == [TORCH, "openvino"]
    assert "differs" in answer["refused"]["onnx"]


@pytest.mark.parametrize("lasts", [True, False])
def test_pytorch_stays_where_all_fail_and_is_asked_again_if_that_may_pass(
    lasts, machine, tiny, monkeypatch
):
    def fail(backbone):
        raise ExportError("no graph") if lasts else OSError("no room")

    monkeypatch.setattr(choice, "keep_tower", fail)
    assert machine.choose(tiny) == TORCH
    assert find_answer(tiny).exists() == lasts
    if lasts:
        assert Answer.read(find_answer(tiny)).refused.keys() == {"onnx", "openvino"}


def raise_full(backbone):
    raise OSError("no room")


def test_short_memory_is_left_alone(machine, tiny, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="fuzzyclip")
    free = [0]
    monkeypatch.setattr(choice, "find_free_memory", lambda: free[0])
    assert machine.choose(tiny) == TORCH
    assert machine.ran == []
    free[0] = 2**40
    assert machine.choose(tiny) == "onnx"
    free[0] = 0
    assert machine.choose(tiny) == TORCH
    assert caplog.messages[-1] == "image tower by PyTorch: memory is too short for another engine"


def test_memory_is_what_linux_and_the_container_leave(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    monkeypatch.setattr(machine_module, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(machine_module, "GROUP", tmp_path)
    assert machine_module.find_free_memory() == 4000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    for limit, free in (("3000\n", 2000), ("500\n", 0), ("max\n", 4000 * 1024)):
        (tmp_path / "memory.max").write_text(limit)
        assert machine_module.find_free_memory() == free
    (tmp_path / "meminfo").unlink()
    assert machine_module.find_free_memory() is None


def test_an_engine_that_fails_later_is_replaced_by_pytorch(machine, tiny, monkeypatch, caplog):
    assert machine.choose(tiny) == "onnx"
    monkeypatch.setattr(choice, "keep_tower", raise_full)
    assert machine.choose(tiny) == TORCH
    assert caplog.records[-1].message.startswith("image tower by PyTorch: runtime onnx: no room")


def test_another_machine_or_another_tower_is_another_answer(machine, tiny, load_tiny, monkeypatch):
    places = {find_answer(tiny), find_answer(load_tiny(seed=1))}
    facts = choice.describe_machine()
    for changes in (
        {"threads": 99},
        {"versions": facts["versions"] | {"onnxruntime": "9"}},
        {"processor": facts["processor"] | {"instructions": ["avx512_vnni"]}},
    ):
        changed = facts | changes
        monkeypatch.setattr(choice, "describe_machine", lambda changed=changed: changed)
        places.add(find_answer(tiny))
    assert len(places) == 5


@pytest.mark.parametrize(
    ("seconds", "opening"),
    [
        ("1", "{}"),
        ("{}", "{}"),
        ('{"onnx": 1}', '{"onnx": 1}'),
        ('{"torch": 1, "onnx": 0}', '{"onnx": 1}'),
        ('{"torch": 1, "onnx": 1}', "{}"),
        ('{"torch": 1, "tensorrt": 1}', '{"tensorrt": 1}'),
        ('{"torch": NaN}', "{}"),
    ],
)
def test_an_answer_that_can_not_be_read_is_measured_again(seconds, opening, machine, tiny):
    answer = f'{{"seconds": {seconds}, "opening": {opening}, "refused": {{}}}}'
    find_answer(tiny).write_text(f'{{"answer": {answer}}}')
    assert machine.choose(tiny) == "onnx"
    assert TORCH in machine.ran
    machine.ran.clear()
    assert machine.choose(tiny) == "onnx"
    assert machine.ran == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"answer": []}', '{"answer": {"secs": 1}}'])
def test_a_file_that_is_no_answer_is_none(text, kept, tiny):
    find_answer(tiny).write_text(text)
    assert Answer.read(find_answer(tiny)) is None


def test_an_answer_is_used_where_it_can_not_be_kept(machine, tiny, monkeypatch):
    place = find_answer(tiny)
    place.mkdir()  # nothing can be written there
    assert machine.choose(tiny) == "onnx"
    assert list(place.iterdir()) == []


def test_what_an_answer_says():
    answer = Answer(seconds={TORCH: 3.0, "onnx": 2.0}, opening={"onnx": 10.0}, refused={})
    assert (answer.fastest, answer.compare("onnx")) == ("onnx", 1.5)
    assert [answer.pays(count) for count in (10, 11, None)] == [False, True, True]
    assert not answer.pays(11, 5.0)
    assert Answer(seconds={TORCH: 1.0}, opening={}, refused={}).fastest == TORCH
