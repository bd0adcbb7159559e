"""Work on Ray: the same bytes as without, and nothing lost with a machine that is killed."""

import hashlib
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml
from backbones import load_clip
from imports import ROOT
from PIL import Image
from ray_jobs import LIMIT, Cluster, build_detector, build_held, wait_for

from fuzzyclip.distributed.engine import encode_shards_on_ray
from fuzzyclip.distributed.inference import detect_on_ray
from fuzzyclip.features.encode import encode_shards
from fuzzyclip.features.store import plan_category
from fuzzyclip.images.index_file import COLUMN_TYPES, INDEX_COLUMNS
from fuzzyclip.model.inference import detect_files

IMAGES, SHARD, BATCH = 48, 3, 2


@pytest.fixture(scope="module")
def cluster():
    running = Cluster()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise images in two folders."""
    root, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for number in range(IMAGES):
        path = root / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def build(tiny_config):
    """What an actor builds its backbone with."""
    return partial(load_clip, tiny_config, blocks=(1, 2, 4))


@pytest.fixture
def gate(tmp_path):
    """A folder in which held actors wait for a file."""
    (tmp_path / "gate").mkdir()
    return tmp_path / "gate"


def plan(target, root, backbone):
    """Shards of all images."""
    paths = sorted(root.rglob("*.png"))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    rows = pd.DataFrame({"image_path": paths, "sha256": digests})
    return plan_category(target, rows, backbone, shard_size=SHARD)


def read_bytes(target):
    return {path.name: path.read_bytes() for path in target.glob("*.safetensors")}


def kill_half_way(cluster, job, gate, is_half_way):
    """Kill the second machine when both have worked, then let the held actors go on to the end."""

    def both_work():
        assert job.poll() is None, job.communicate()[0]  # nothing to wait for
        machines = {path.stem for path in gate.glob("*.*")}
        return len(machines) == 2 and is_half_way()

    wait_for(both_work, "both machines at work")
    cluster.kill_second()
    (gate / "open").touch()
    output = job.communicate(timeout=LIMIT)[0]
    assert job.returncode == 0, output
    return output


def test_a_machine_is_killed_while_features_are_cached_and_nothing_is_lost(
    cluster, folder, build, tiny, tmp_path, gate
):
    encode_shards(plan(tmp_path / "local", folder, tiny), tiny, batch_size=BATCH)
    shards, held = plan(tmp_path / "ray", folder, tiny), partial(build_held, build, gate)
    cluster.ensure_second()
    job = cluster.start_job(
        "encode", shards=shards, build=held, batch_size=BATCH, actors=2, threads=3
    )
    output = kill_half_way(cluster, job, gate, lambda: len(read_bytes(tmp_path / "ray")) >= 2)
    assert "image/s" not in output  # no bars off a terminal
    assert len(read_bytes(tmp_path / "local")) == IMAGES // SHARD
    assert read_bytes(tmp_path / "ray") == read_bytes(tmp_path / "local")


def test_a_machine_is_killed_in_batch_inference_and_nothing_is_lost(
    cluster, folder, build, tmp_path, gate
):
    noise, out = shutil.copytree(folder, tmp_path / "noise"), tmp_path / "out"
    broken = noise / "a" / "99.jpg"
    broken.write_bytes(b"no image")
    detector = partial(build_detector, build, score="both")
    cluster.ensure_second()
    job = cluster.start_job(
        "detect",
        source=noise.as_uri(),
        build=partial(build_held, detector, gate),
        out=out.as_uri(),
        batch_size=BATCH,
        actors=2,
        batches_per_part=2,
    )
    output = kill_half_way(cluster, job, gate, lambda: any(out.glob("*.parquet")))
    assert f"images={IMAGES + 1}, unreadable=1" in output
    paths = sorted(path for path in noise.rglob("*.*") if path.is_file())
    expected = list(detect_files(paths, detector(), batch_size=BATCH))
    lines = pd.concat(map(pd.read_parquet, sorted(out.glob("*.parquet"))))
    assert len(lines) == len(expected) == IMAGES + 1
    for line, detection in zip(lines.itertuples(), expected, strict=True):
        assert line.path == f"file://{detection.item}"
        assert line.error.replace("file://", "") == detection.error
        if detection.error:
            assert detection.item == str(broken)
            assert pd.isna(line.image_score)
            assert line.map is None
            continue
        assert np.float32(line.image_score) == np.float32(detection.score)
        assert line.map == detection.map.astype(np.float16).tobytes()
        assert detection.map.shape == (line.side, line.side)


def test_a_broken_image_stops_the_work_in_the_same_words(cluster, folder, build, tiny, tmp_path):
    """On a Ray that is started for the work and stopped again."""
    shards = plan(tmp_path / "ray", folder, tiny)
    digests = ("0" * 64, *shards[-1].digests[1:])
    header = shards[-1].header | {"images": list(digests)}
    shards[-1] = type(shards[-1])(shards[-1].path, shards[-1].images, digests, header)
    with pytest.raises(OSError, match="not the file that was indexed") as local:
        encode_shards(shards[-1:], tiny, batch_size=BATCH)
    job = cluster.start_job(
        "encode", shards=shards, build=build, batch_size=BATCH, actors=1, address=None
    )
    output = job.communicate(timeout=LIMIT)[0]
    assert output.splitlines()[-1] == f"OSError: {local.value}"
    assert len(read_bytes(tmp_path / "ray")) == len(shards) - 1  # what was done stays


def test_the_stage_makes_the_same_files_with_either_engine(cluster, folder, tmp_path):
    """Relative paths of params.yaml and of the stage mean the same to actors elsewhere."""
    shutil.copytree(folder, tmp_path / "data/raw/visa")
    shutil.copytree(ROOT / "fuzzyclip/sample/weights", tmp_path / "weights")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    write_small_index(tmp_path / "data/index/visa.csv", folder)
    stored = []
    for engine in ("local", "ray"):
        write_params(tmp_path / "params.yaml", engine, cluster.address)
        done = subprocess.run(
            [sys.executable, "-m", "stages.features", "visa"],
            cwd=tmp_path, env=cluster.environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made = tmp_path / "features/tokens/visa"
        stored.append({path.name: path.read_bytes() for path in made.glob("*/*")})
        shutil.rmtree(made)
    assert stored[0] == stored[1]
    assert len(stored[0]) == 3  # two shards and their index


def write_small_index(path, folder):
    """An index of the first four images."""
    images = [image.relative_to(folder).as_posix() for image in sorted(folder.rglob("*.png"))[:4]]
    digests = [hashlib.sha256((folder / image).read_bytes()).hexdigest() for image in images]
    known = {"image_path": images, "sha256": digests, "category": "noise", "split": "test"}
    sizes = [Image.open(folder / image).size for image in images]
    known |= {"width": [width for width, _ in sizes], "height": [height for _, height in sizes]}
    rest = dict.fromkeys(INDEX_COLUMNS, "") | dict.fromkeys(COLUMN_TYPES, 0)
    path.parent.mkdir(parents=True)
    pd.DataFrame(rest | known)[list(INDEX_COLUMNS)].to_csv(path, index=False)


def write_params(path, engine, address):
    """The committed parameters with weights beside them, small shards and an engine."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["machine"] |= {"engine": engine, "ray": {"address": address, "actors": 1}}
    params["features"]["shard_size"] = 2
    for part, name in (("model", "model.json"), ("weights", "model.safetensors")):
        params["backbones"]["sample"][part] = f"weights/{name}"
    path.write_text(yaml.safe_dump(params))


def test_without_ray_the_extra_is_named(folder, build, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    works = (
        partial(encode_shards_on_ray, plan(tmp_path, folder, tiny), build),
        partial(detect_on_ray, folder, partial(build_detector, build), tmp_path),
    )
    for work in works:
        with pytest.raises(ValueError, match=r"pip install -e '\.\[ray\]'"):
            work(batch_size=BATCH)


def test_results_of_another_run_are_not_mixed_with(folder, build, tmp_path):
    (tmp_path / "000000.parquet").touch()
    with pytest.raises(ValueError, match="already holds Parquet files"):
        detect_on_ray(folder, partial(build_detector, build), tmp_path, batch_size=BATCH)
    with pytest.raises(ValueError, match="no images in"):
        detect_on_ray([], partial(build_detector, build), tmp_path / "new", batch_size=BATCH)
