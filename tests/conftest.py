"""A CLIP small enough for unit tests, and a pipeline that has run; both made once for all tests.

`make test` runs what lies outside of folders named slow, `make test-all` everything.
"""

import json
import os
import random
import signal
import sys
from contextlib import nullcontext
from unittest.mock import patch

import properties  # noqa: F401  (registers how many examples are tried)
import pytest
from filelock import FileLock
from threads import use_one_thread

# Behind a shell's `&` a process is born deaf to Ctrl-C, and so are its children: tests that send
# one would wait for nothing.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def is_slow(path):
    """True for a file that belongs to `make test-all` alone."""
    return "slow" in path.parts


def pytest_configure(config):
    """The mark of tests that need a GPU; `python benchmarks/gpu.py` runs them."""
    config.addinivalue_line("markers", "gpu: computes on CUDA, and is skipped where there is none")


def pytest_runtest_setup(item):
    """Without a GPU, its tests are skipped before any of their fixtures is made."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("PyTorch finds no CUDA GPU")


def pytest_collection_modifyitems(items):
    """Long files first, so that no worker is left with one at the end.

    The first that waits for the pipeline makes it, the others come when it is likely to be there.
    """
    waiting = list(dict.fromkeys(item.path for item in items if "pipeline" in item.fixturenames))

    def rank(item):
        if item.path in waiting[:1]:
            return 0
        return (1 if is_slow(item.path) else 3) + (item.path in waiting)

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def same_every_time():
    """What a test draws and sees of the environment does not depend on the tests before it.

    MLflow, for one, keeps the store that was used last in the environment.
    """
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
    with patch.dict(os.environ):
        yield


@pytest.fixture(autouse=True)
def one_thread(request):
    """Slow tests take what they are given."""
    small = "torch" in sys.modules and not is_slow(request.path)
    with use_one_thread() if small else nullcontext():
        yield


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    """Path of the tiny model's configuration."""
    from tiny_models import TINY

    path = tmp_path_factory.mktemp("tiny") / "model.json"
    path.write_text(json.dumps(TINY))
    return path


@pytest.fixture(scope="session")
def load_tiny(tiny_config):
    """`load_clip` for the tiny model; keyword arguments change the defaults."""
    from backbones import load_clip

    def load(model=tiny_config, weights="random", **changes):
        return load_clip(model, weights, **{"blocks": (1, 2, 4)} | changes)

    return load


@pytest.fixture(scope="session")
def tiny(load_tiny):
    """The tiny CLIP: 4 x 4 patches, three taken blocks, embedding width 32. Do not change it."""
    return load_tiny()


@pytest.fixture(scope="session")
def packaged(tmp_path_factory, tiny_config):
    """The directory of a small trained model. Copy it before you change it."""
    from tiny_models import make_model

    return make_model(tmp_path_factory.mktemp("packaged"), tiny_config)[0]


@pytest.fixture
def pixels():
    """A batch of three inputs for `tiny`, (3, 3, 32, 32)."""
    import torch

    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory, worker_id):
    """A repository in which the small pipeline has run and is committed, and what DVC printed.

    Workers share it: tests/stages/test_pipeline.py works in it, all others take a copy of their own
    (`copy_pipeline` of `kept_pipeline`, or `clone_repository` where they run DVC).
    """
    from pipelines import DONE, commit, copy_pipeline, make_repository, run, shrink

    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    folder, printed = shared / "pipeline", shared / "pipeline.txt"
    with FileLock(shared / "pipeline.lock"):
        if not printed.is_file():
            folder.mkdir()
            make_repository(folder, shrink)
            output = run(folder, "dvc", "repro")
            commit(folder, "results")
            run(folder, "git", "branch", DONE)
            copy_pipeline(folder, folder.with_name("pipeline-kept"))
            printed.write_text(output)
    return folder, printed.read_text()


@pytest.fixture(scope="session")
def kept_pipeline(pipeline):
    """The same, as it was when it had run: a folder to be copied, in which nobody works."""
    return pipeline[0].with_name("pipeline-kept")
