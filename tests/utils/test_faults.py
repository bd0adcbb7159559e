"""A line for each thing that libraries raise, and none for what is our own mistake."""

import errno
import io
import json
import os
import pickle
import sqlite3
import tarfile
import zipfile
import zlib

import pandas as pd
import pytest
import sqlalchemy
import torch
import yaml
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, RESOURCE_DOES_NOT_EXIST
from mlflow.utils.validation import _validate_metric_name
from pydantic import TypeAdapter
from safetensors import safe_open

from fuzzyclip.utils.faults import SYSTEM, UnreadableFileError, explain, is_misuse, naming
from fuzzyclip.utils.settings import CspSettings
from fuzzyclip.utils.tree import DatasetError


def catch(work, *arguments):
    """What a call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- any
        work(*arguments)
    return caught.value


def read(path, work):
    with naming(path):
        return work(path)


READERS = {
    "safetensors": lambda path: safe_open(str(path), "pt").__enter__(),
    "torch": lambda path: torch.load(io.BytesIO(b"PK\3\4" + path.read_bytes()), weights_only=True),
    "pickle": lambda path: pickle.loads(b"\x80\x04."[:2] + b"garbage."),
    "zip": zipfile.ZipFile,
    "tar": tarfile.open,
    "zlib": lambda path: zlib.decompress(path.read_bytes()),
    "json": lambda path: json.loads(path.read_text()),
    "yaml": lambda path: yaml.safe_load("a: [" + path.read_text()),
    "pandas": lambda path: pd.read_csv(io.StringIO("a,b\n1,2\n1,2,3\n")),
    "empty": lambda path: pd.read_csv(io.StringIO("")),
    "text": lambda path: b"a: 1\nb: M\xfcller\n".decode(),
    "schema": lambda path: CspSettings.model_validate({"penalti": 1}),
    "sqlite": lambda path: sqlite3.connect(path).execute("select * from x"),
}


@pytest.mark.parametrize("library", READERS)
def test_what_a_library_says_of_a_file_gets_the_files_name(tmp_path, library):
    path = tmp_path / "weights.bin"
    path.write_text("no such thing, and long enough to be looked at")
    error = catch(read, path, READERS[library])
    assert isinstance(error, UnreadableFileError)
    line = explain(error)
    assert str(path) in line
    assert "\n" not in line


def test_bytes_that_are_no_text_have_their_place_and_the_way_to_mend_them(tmp_path):
    line = explain(catch(read, tmp_path / "params.yaml", READERS["text"]))
    assert "params.yaml: line 2 is no UTF-8: byte 10 is 0xfc" in line
    assert "save the file as UTF-8" in line


@pytest.mark.parametrize("number", SYSTEM)
def test_what_the_system_refuses_is_said_in_words_with_the_file(number):
    line = explain(OSError(number, os.strerror(number), "out/x.png"))
    assert line == f"out/x.png: {SYSTEM[number]}"


def test_a_full_disk_under_pytorch_is_a_full_disk():
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
    error.__traceback__ = catch(torch.empty, -1).__traceback__  # as from within PyTorch
    assert "disk is full" in explain(error)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
)
def test_memory_and_devices_that_fail_are_no_fault_of_the_file_that_was_read(tmp_path, error):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught, naming(tmp_path / "efa.ckpt", wild=True):
        fail()
    assert caught.value is error
    assert f"while {tmp_path / 'efa.ckpt'} was read" in error.__notes__


def test_a_missing_device_says_which_to_take(monkeypatch):
    def fail(*arguments):
        raise AssertionError("Torch not compiled with CUDA enabled")

    assert "device cpu" in explain(catch(fail))


def test_our_own_errors_say_it_themselves_and_notes_come_along(tmp_path):
    error = DatasetError("nut: no images; name the folder with the images")
    error.add_note("see docs/datasets.md")
    assert explain(error) == f"{error}; see docs/datasets.md"


@pytest.mark.parametrize(
    "work",
    [
        lambda: {}["x"],
        lambda: [][0],
        lambda: None.x,
        lambda: 1 / 0,
        lambda: int("x"),
        lambda: torch.ones(2) @ torch.ones(3),
        lambda: torch.ones(2).view(3),
    ],
)
def test_a_mistake_of_the_code_has_no_line(tmp_path, work):
    assert explain(catch(work)) is None
    assert explain(catch(read, tmp_path, lambda path: work())) is None


def test_a_file_that_is_missing_stays_missing_for_who_asks(tmp_path):
    with pytest.raises(FileNotFoundError), naming(tmp_path / "x"):
        (tmp_path / "x").read_bytes()


def test_a_system_error_without_a_name_gets_one():
    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError) as caught, naming("out/x.pt"):  # noqa: PT011 -- looked at below
        fail()
    assert explain(caught.value) == f"out/x.pt: {SYSTEM[errno.ENOSPC]}"


def call_database(statement):
    return lambda: sqlite3.connect(":memory:").execute(statement)


def call_store(statement):
    engine = sqlalchemy.create_engine("sqlite://")
    return lambda: engine.connect().execute(sqlalchemy.text(statement))


def fail(error, cause=None):
    """Raise an error as a library does that has caught another."""

    def work():
        raise error from cause

    return work


MISTAKES = {
    "a record of wrong types": lambda: CspSettings(penalty="much"),
    "a call of wrong types": lambda: TypeAdapter(int).validate_python("x"),
    "a metric's name": lambda: _validate_metric_name("pixel_ap@0.3"),
    "no SQL": call_database("choose * from x"),
    "no SQL for sqlalchemy": call_store("choose * from x"),
    "too few values": call_database("select ?"),
    "a wrong call behind MLflow": lambda: fail(
        MlflowException("x", BAD_REQUEST), catch(call_database("select ?"))
    )(),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_values_of_our_own_that_a_library_refuses_are_our_mistake(tmp_path, name):
    error = catch(MISTAKES[name])
    assert is_misuse(error)
    assert explain(error) is None
    assert "x.yaml: " in explain(catch(read, tmp_path / "x.yaml", lambda _: MISTAKES[name]()))


REFUSALS = {
    "no such run": lambda: MlflowException("no run", RESOURCE_DOES_NOT_EXIST),
    "a store of an older MLflow": lambda: MlflowException("out-of-date database schema"),
    "a server's answer": lambda: RestException(
        {"error_code": "INVALID_PARAMETER_VALUE", "message": "too long for this server"}
    ),
    "a store in use": lambda: sqlite3.OperationalError("database is locked"),
    "no store": lambda: sqlite3.DatabaseError("file is not a database"),
    "a table is missing": lambda: catch(call_store("select * from runs")),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_a_store_or_server_refuses_has_a_line(name):
    error = REFUSALS[name]()
    error.__traceback__ = catch(torch.empty, -1).__traceback__  # as from within a library
    assert not is_misuse(error)
    assert "; look at " in explain(error)
