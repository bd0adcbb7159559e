"""Parts of the GPU's check that need none: rows, the card's peak, and parts that fail."""

import math
import subprocess
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu, gpu_setup, gpu_table
from benchmarks.gpu_table import (
    LONGEST,
    Row,
    bound_gap,
    check_finite,
    compare_rate,
    find_card,
    tell_failure,
    write_table,
)
from benchmarks.scale_page import UNMEASURED, build_page
from fuzzyclip.clip.attention import FusedAttention
from fuzzyclip.clip.encoding import encode_images

CPU = SimpleNamespace(device=torch.device("cpu"), turn=1.0)


def test_a_table_says_what_was_compared_and_why_a_number_is_missing():
    rows = [
        compare_rate("fast", 1500.0, "images/s", "slow", 1000.0),
        compare_rate("alone", 2.0, "steps/s", "computed", None),
        tell_failure("broken", RuntimeError("a | b\nand more")),
    ]
    assert write_table("Head", rows) == (
        "Head\n\n"
        "| measurement | value | compared with | ratio |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| fast | 1,500 images/s | slow: 1,000 | 1.5 |\n"
        "| alone | 2 steps/s | computed: peak not known |  |\n"
        "| broken | failed: RuntimeError a / b |  |  |\n"
    )
    assert [row.failed for row in rows] == [False, False, True]
    assert len(tell_failure("x", ValueError("y" * 999)).unit) < LONGEST + 30


def test_a_difference_beyond_its_bound_fails_and_keeps_its_number():
    near, far = bound_gap("x", 0.01, 0.02), bound_gap("x", 0.03, 0.02)
    assert (near.failed, near.against, near.ratio) == (False, "at most 0.02", 0.5)
    assert (far.failed, far.against, far.value) == (True, "at most 0.02: **failed**", 0.03)


@pytest.mark.parametrize("wild", [math.nan, math.inf])
def test_numbers_that_are_none_fail_a_part(wild):
    rows = [Row("fine", 1.0), Row("missing", None)]
    assert check_finite(rows) == rows
    with pytest.raises(ValueError, match="not finite: wild, bare"):
        check_finite([*rows, Row("wild", wild), Row("bare", 1.0, ratio=wild)])


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", "H100, bf16"),
        ("NVIDIA H100 80GB HBM3", "float32", "H100, fp32"),
        ("NVIDIA H200", "TF32", "H200, TF32"),
        ("NVIDIA GeForce RTX 3090", "bf16", "RTX 3090, fp16"),
        ("NVIDIA GeForce RTX 3090", "float32", None),
        ("NVIDIA GeForce RTX 3090 Ti", "bf16", None),
        ("NVIDIA H100 PCIe", "bf16", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
        ("NVIDIA GH200 480GB", "bf16", None),
        ("Tesla T4", "TF32", None),
    ],
)
def test_a_card_is_compared_with_its_own_peak_or_with_none(name, precision, expected):
    card = find_card(name, precision)
    assert (card and card.name) == expected


def test_ways_are_measured_by_their_median_and_once_at_least(monkeypatch):
    seconds = iter([9.0, 1.0, 3.0, 2.0])  # the first decides how many calls fill a turn
    monkeypatch.setattr(gpu_setup, "time_passes", lambda *given: next(seconds))
    later = time.monotonic() + 1000
    assert gpu_setup.measure_ways({"x": lambda: None}, CPU, later) == {"x": 2.0}
    seconds = iter([9.0, 5.0])
    assert gpu_setup.measure_ways({"x": lambda: None}, CPU, -math.inf) == {"x": 5.0}


def test_ways_on_a_batch_do_the_same_work(tiny):
    """The bare tower is open_clip's own, of the same weights, and nothing of it stays unfilled."""
    bare, pixels = gpu.build_bare(tiny), torch.randn(2, 3, 32, 32)
    assert not any(part.is_meta for part in (*bare.parameters(), *bare.buffers()))
    assert not any(type(part) is FusedAttention for part in bare.modules())
    with torch.no_grad():
        assert torch.allclose(bare(pixels), encode_images(tiny, pixels)[0], atol=1e-5)
    assert [*gpu.list_ways(tiny, 2)] == ["bare", "features", "maps"]
    settings = tiny.settings.model_copy(update={"precision": "bfloat16"})
    ways = gpu.list_ways(replace(tiny, settings=settings), 2)
    assert [*ways] == ["bare", "bare, rounded", "features", "maps"]
    for run in ways.values():
        run()


def test_more_images_a_pass_are_tried_until_memory_ends(monkeypatch, capsys):
    def measure(ways, check, deadline):
        if ways["batch"] == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"bare": {1: 0.5, 2: 2.0}[ways["batch"]]}

    monkeypatch.setattr(gpu, "list_ways", lambda backbone, batch: {"batch": batch})
    monkeypatch.setattr(gpu, "measure_ways", measure)
    check = SimpleNamespace(batches=(1, 2, 4, 8))
    assert gpu.find_best(check, None, math.inf) == {"bare": (2.0, 1)}
    assert "no memory for 4 images a pass" in capsys.readouterr().err
    with pytest.raises(torch.OutOfMemoryError):
        gpu.find_best(SimpleNamespace(batches=(4,)), None, math.inf)


def test_a_part_that_fails_is_told_and_the_others_go_on(capsys):
    def fail(check, deadline):
        raise RuntimeError("no such kernel")

    parts = [
        ("first", fail, 1),
        ("second", lambda check, deadline: [Row("wild", math.nan)], 1),
        ("third", lambda check, deadline: [Row("steps", 3.0)], 1),
    ]
    table = gpu.run_parts(CPU, parts)
    assert [row.name for row in table] == ["first", "second", "steps", "peak memory, third"]
    assert table[0].unit == "failed: RuntimeError no such kernel"
    assert table[1].unit == "failed: ValueError not finite: wild"
    assert [row.failed for row in table] == [True, True, False, False]
    assert "no such kernel" in capsys.readouterr().err  # with its place in the code


def test_a_failed_test_is_named(monkeypatch):
    output = "FAILED tests/gpu/test_x.py::test_y - assert 1\n1 failed, 7 passed, 1 skipped in 3s\n"
    done = SimpleNamespace(stdout=output, stderr="", returncode=1)
    monkeypatch.setattr(subprocess, "run", lambda *given, **named: done)
    (row,) = gpu.run_tests(CPU, time.monotonic() + 10)
    assert row.failed
    assert (row.value, row.unit) == (7, "of 9 passed")
    assert row.against == "**failed**: pytest ended with 1, test_x.py::test_y"


@pytest.mark.parametrize(("kind", "failed"), [("cpu", False), ("cuda", True)])
def test_skipped_tests_are_a_failure_where_there_is_a_gpu(monkeypatch, kind, failed):
    done = SimpleNamespace(stdout="9 skipped in 8.75s\n", stderr="", returncode=0)
    monkeypatch.setattr(subprocess, "run", lambda *given, **named: done)
    check = SimpleNamespace(device=torch.device(kind))
    (row,) = gpu.run_tests(check, time.monotonic() + 10)
    assert (row.unit, row.against) == ("of 9 passed", "9 skipped without a GPU")
    assert row.failed == failed


def test_what_is_said_of_a_card(monkeypatch):
    """By functions of PyTorch's that are put in their place here: no GPU is at hand."""
    device = torch.device("cuda")
    answers = {
        "get_device_name": "NVIDIA H200",
        "max_memory_allocated": 3 * 2**30,
        "get_device_properties": SimpleNamespace(total_memory=12 * 2**30),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: answer)
    monkeypatch.setattr(gpu_table, "read_driver", lambda: "570.1")
    head = gpu_table.describe_machine(device, "ViT-L-14-336 at 518 px")
    assert head.startswith("**NVIDIA H200**, driver 570.1, CUDA ")
    assert head.endswith("; ViT-L-14-336 at 518 px, random weights.")
    assert gpu_table.find_peak(device, "bf16").name == "H200, bf16"
    row = gpu_setup.read_peak(device, "throughput")
    assert (row.value, row.unit, row.against, row.ratio) == (3, "GiB", "the card's: 12", 0.25)


def test_the_page_tells_how_to_measure_and_that_nobody_has_yet():
    page = build_page()
    section = page[page.index("## On a GPU") :]
    assert "python benchmarks/gpu.py" in section
    measured = gpu.ROOT / "benchmarks/gpu.md"
    assert (measured.read_text().strip() if measured.is_file() else UNMEASURED) in section
