"""`mlflow models serve`, really started: right, wrong, huge and hostile requests.

One server answers all of them. After whatever was sent it must answer a right request as before.
"""

import base64
import json
import os
import socket
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import packages_distributions
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from imports import ROOT, list_external
from PIL import Image
from scipy.special import expit
from servers import start_server
from serving_cases import GOOD, TILED, draw, encode, expect, text

from fuzzyclip import FuzzyCLIP
from fuzzyclip.deploy import serving
from fuzzyclip.deploy.mlflow_model import PACKAGES, describe_model
from fuzzyclip.model.inference import Opener
from stages.track import name_model

#: Small, so that what is too much need not be large.
LIMITS = {"IMAGES": 8, "BYTES": 200_000, "PIXELS": 60_000, "REQUEST_PIXELS": 150_000, "TILES": 30}
PART = {"image": GOOD, "category": "gear"}


def make_bomb(width, height):
    """A PNG of a few kB whose header promises any number of pixels."""

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(1_000_000), 9))
    return b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Folder of images that may be asked for, with links inside, to the outside and in circles."""
    outer = tmp_path_factory.mktemp("outer")
    root = outer / "images"
    (root / "line 1").mkdir(parents=True)
    (root / "line 1/part.png").write_bytes(encode(draw(seed=1)))
    (root / "text.png").write_text("no image")
    (root / "large.png").write_bytes(bytes(LIMITS["BYTES"] + 1))
    (outer / "secret.png").write_bytes(encode(draw(seed=2)))
    (root / "linked.png").symlink_to(root / "line 1/part.png")
    (root / "out.png").symlink_to(outer / "secret.png")
    (root / "outside").symlink_to(outer)
    (root / "circle.png").symlink_to(root / "circle.png")
    os.mkfifo(root / "pipe.png")
    return root


@pytest.fixture(scope="module")
def started(model, images, tmp_path_factory):
    """A server with small limits, away from the checkout."""
    limits = {f"FUZZYCLIP_MAX_{name}": str(number) for name, number in LIMITS.items()}
    variables = limits | {"FUZZYCLIP_IMAGE_ROOT": str(images)}
    with start_server(model, tmp_path_factory.mktemp("server"), variables) as server:
        yield server


@pytest.fixture(scope="module")
def first_answer(started):
    return started.ask(PART)


@pytest.fixture
def server(started, first_answer):
    """The server, which still answers a right request when the test is over."""
    yield started
    assert started.process.poll() is None, started.log.read_text()
    assert started.ask(PART) == first_answer


def refused(answer):
    """A row's error, where all else is null."""
    assert list(answer) == list(serving.OUTPUTS)
    assert [key for key, value in answer.items() if value is not None] == ["error"]
    return answer["error"]


def test_answers_are_the_models_own_in_every_form(server, detector):
    parts = [draw(60, 33, seed=3), draw(32, 90, seed=4)]
    sent = [text(encode(part)) for part in parts]
    expected = [expect(detector(part, "gear")) for part in parts]
    records = [{"image": image, "category": "gear"} for image in sent]
    data = [["gear", image] for image in sent]
    bodies = [
        {"dataframe_records": records},
        {"dataframe_split": {"columns": ["category", "image"], "data": data}},
        {"inputs": records},
        {"inputs": {"image": sent, "category": ["gear", "gear"]}},
        {"instances": records},
    ]
    for body in bodies:
        answer = server.post(body)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"predictions": expected}, list(body)
    table = pd.DataFrame(records)
    for kind, body in (
        ("text/csv", table.to_csv(index=False)),
        ("application/vnd.apache.parquet", table.to_parquet()),
    ):
        assert server.post(body, kind).json() == {"predictions": expected}, kind
    assert expected[0]["label"] in (0, 1)
    assert expected[0]["probability"] == pytest.approx(expit(expected[0]["image_score"]))
    assert expected[0]["threshold"] == 0.25


def test_base64_a_data_address_and_a_path_give_the_same(server, detector, images):
    content = (images / "line 1/part.png").read_bytes()
    expected = expect(detector(content, "gear"))
    rows = [
        {"image": text(content)},
        {"image": f"data:image/png;base64,{text(content)}"},
        {"path": "line 1/part.png"},
        {"path": "./line 1//part.png"},
        {"path": str(images / "line 1/part.png")},
        {"path": "linked.png"},
    ]
    assert server.ask(*({"category": "Gear "} | row for row in rows)) == [expected] * len(rows)


def test_parameters_ask_for_masks_thresholds_and_no_map(server, detector):
    image = draw(70, 50)
    row = {"image": text(encode(image)), "category": "gear"}
    (bare,) = server.ask(row, map="none")
    assert bare == expect(detector(image, "gear"), ())
    (masked,) = server.ask(row, mask=True)
    assert masked == expect(detector(image, "gear"), ("map", "mask"))
    for threshold in (-30, 0.5, 30):
        (answer,) = server.ask(row, threshold=threshold)
        assert answer == expect(detector(image, "gear", threshold=threshold))
        assert answer["threshold_method"] == "given"


def test_tiles_are_those_of_the_calibration_or_of_the_request(server, detector):
    image = draw(100, 40)
    row = {"image": text(encode(image))}
    (strip,) = server.ask(row | {"category": "strip"})
    assert strip == expect(detector(image, "strip", tiling=TILED))
    assert strip["threshold"] == 0.75
    (asked,) = server.ask(row, tile=40, overlap=16, threshold=0.5)
    assert asked == expect(detector(image, tile=40, overlap=16, threshold=0.5))
    (quarter,) = server.ask(row, tile=40, threshold=0.5)
    assert quarter == expect(detector(image, tile=40, overlap=10, threshold=0.5))
    (whole,) = server.ask(row | {"category": "strip"}, tile=0)
    assert "was calibrated on tiles" in refused(whole)
    (given,) = server.ask(row | {"category": "strip"}, tile=0, threshold=0.5)
    assert given == expect(detector(image, "strip", threshold=0.5))


def test_the_score_may_see_the_map(server, detector):
    row = {"image": GOOD}
    for score in ("map", "both"):
        (answer,) = server.ask(row, score=score, threshold=0.5)
        assert answer == expect(detector(draw(), score=score, threshold=0.5))
    (other,) = server.ask(row | {"category": "gear"}, score="map")
    assert "calibrated for the score 'class', not for 'map'" in refused(other)


def test_more_bits_have_a_white(server, detector):
    values = np.random.default_rng(0).integers(0, 4096, (40, 40), dtype=np.uint16)
    content = encode(Image.fromarray(values))
    (own,) = detector.detect([content], "gear", opener=Opener(white=4095))
    row = {"image": text(content), "category": "gear"}
    assert server.ask(row, white=4095) == [expect(own)]
    assert server.ask(row) != [expect(own)]


def test_a_wrong_row_does_not_change_the_others(server, first_answer):
    wrong = {"image": text(b"no image")}
    answers = server.ask(wrong, PART, wrong, {"path": "missing.png"}, PART)
    assert answers[1] == answers[4] == first_answer[0]
    for place in (0, 2, 3):
        refused(answers[place])


def test_mlflow_makes_text_of_nulls_in_inputs_and_no_answer_is_made_of_it(server):
    answer = server.post({"inputs": [{"image": GOOD, "path": None}]})
    (row,) = answer.json()["predictions"]
    assert "both image and path" in refused(row)


def test_concurrent_requests_give_the_same_answers(server, first_answer):
    rows = [{"image": text(encode(draw(seed=seed))), "category": f"c{seed}"} for seed in range(6)]
    alone = [server.ask(row, threshold=0) for row in rows]
    with ThreadPoolExecutor(12) as pool:
        again = list(pool.map(lambda row: server.ask(row, threshold=0), rows * 4))
    assert again == alone * 4
    assert len(set(map(json.dumps, alone))) == 6


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"category": "nut"}, "neither image and path"),
        ({"image": GOOD, "path": "text.png"}, "both image and path"),
        ({"image": ""}, "the file is empty"),
        ({"image": "?" + GOOD}, "no base64"),
        ({"image": GOOD + "="}, "no base64"),
        ({"image": GOOD[:40] + "\n" + GOOD[40:]}, "no base64"),
        ({"image": "ä" + GOOD}, "no base64"),
        ({"image": "part.png"}, "no base64"),
        ({"image": text(b"just a text, no image")}, "not a readable image"),
        ({"image": text(base64.b64decode(GOOD)[:2000])}, "truncated"),
        ({"image": text(encode(draw(4, 40)))}, "at least 8 a side"),
        ({"image": f"data:text/html;base64,{GOOD}"}, "data address"),
        ({"image": f"data:image/png,{GOOD}"}, "data address"),
        ({"image": 5}, "must be text, not int"),
        ({"image": True}, "must be text, not bool"),
        ({"image": [GOOD]}, "must be text, not list"),
        ({"image": PART}, "must be text, not dict"),
        ({"image": GOOD, "category": 7}, "must be text, not int"),
        ({"image": GOOD, "category": " "}, "is not calibrated, but 'gear', 'strip'"),
        ({"image": GOOD, "category": "nut"}, "is not calibrated, but 'gear', 'strip'"),
        ({"path": "large.png"}, "more than the 200,000 bytes"),
        ({"path": "text.png"}, "not a readable image"),
        ({"path": "missing.png"}, "no such file"),
        ({"path": "line 1"}, "no such file"),
        ({"path": ""}, "no such file"),
        ({"path": "pipe.png"}, "no such file"),
    ],
)
def test_a_wrong_row_says_what_is_wrong(server, images, row, message):
    (answer,) = server.ask(row)
    error = refused(answer)
    assert message in error
    assert str(images.parent) not in error
    assert "bytes:" not in error


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"dataframe_records": []}, 400, "no images"),
        ({"dataframe_records": [{}]}, 400, "no images"),
        ({"dataframe_records": [{"imgae": GOOD}]}, 400, "rows with image, path, category"),
        ({"dataframe_records": PART}, 400, "list of records"),
        ({"dataframe_split": {"columns": ["image"]}}, 400, "must have 'data'"),
        ({"dataframe_split": {"columns": ["image"], "data": [[GOOD, 1]]}}, 400, "split"),
        ({"dataframe_split": {"columns": ["image"] * 2, "data": [[GOOD, GOOD]]}}, 400, "image"),
        ({"inputs": []}, 400, "no images"),
        ({"inputs": 5}, 400, "no images"),
        ({"inputs": GOOD}, 400, "no images"),
        ({"messages": [{"role": "user", "content": GOOD}]}, 400, "no images"),
        ({}, 400, "exactly one of the input fields"),
        ([PART], 400, "Received a list"),
        ("", 400, "JSON"),
        ("{", 400, "JSON"),
        (b"\xff\xfe\x00", 400, "JSON"),
        ("[" * 100_000, 500, "Internal Server Error"),  # MLflow's own parser gives up
        ('{"dataframe_records": ' + "[" * 100_000 + "]" * 100_000 + "}", 500, "Internal"),
    ],
)
def test_a_request_that_is_none_is_refused_as_a_whole(server, body, status, message):
    answer = server.post(body)
    assert (answer.status_code, message in answer.text) == (status, True), answer.text
    assert "Traceback" not in answer.text
    assert str(ROOT) not in answer.text


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"map": "jpeg"}, "params.map"),
        ({"map": 5}, "map"),
        ({"mask": "yes"}, "mask"),
        ({"threshold": "high"}, "threshold"),
        ({"threshold": float("nan")}, "params.threshold"),
        ({"tile": 31}, "tile: 31 pixels"),
        ({"tile": -1}, "params.tile"),
        ({"tile": 1.5}, "tile"),
        ({"overlap": 8}, "overlap: give a tile"),
        ({"tile": 40, "overlap": 21}, "at most half"),
        ({"white": 0}, "params.white"),
        ({"score": "mean"}, "params.score"),
        ([1], "must be a dictionary"),
    ],
)
def test_wrong_parameters_are_refused(server, params, message):
    answer = server.post({"dataframe_records": [PART], "params": params})
    assert answer.status_code == 400
    assert message in answer.json()["message"]


def test_other_methods_kinds_and_addresses_are_refused(server):
    assert requests.get(f"{server.address}/invocations", timeout=9).status_code == 405
    assert requests.put(f"{server.address}/invocations", timeout=9).status_code == 405
    assert server.post(base64.b64decode(GOOD), "image/png").status_code == 415
    assert requests.get(f"{server.address}/../../etc/passwd", timeout=9).status_code == 404


def test_too_many_images_are_refused_and_as_many_as_allowed_are_answered(server):
    rows = [PART] * LIMITS["IMAGES"]
    assert len(server.ask(*rows)) == len(rows)
    answer = server.post({"dataframe_records": [*rows, PART]})
    assert answer.status_code == 400
    assert "9 images, the limit of a request is 8" in answer.json()["message"]
    answer = server.post({"dataframe_records": [{"path": "x"}] * 100_000})
    assert answer.status_code == 400


@pytest.mark.parametrize("size", [(300, 201), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_an_image_of_too_many_pixels_is_not_decoded(server, size):
    (answer,) = server.ask({"image": text(make_bomb(*size))})
    assert "the limit is 60,000 in all" in refused(answer)


def test_the_images_of_a_request_have_a_limit_together(server):
    row = {"image": text(encode(Image.new("RGB", (300, 200)))), "category": "gear"}
    answers = server.ask(*[row] * 5, map="none")
    assert [bool(answer["error"]) for answer in answers] == [False, False, False, True, True]
    assert "150,000 pixels of a request" in refused(answers[3])


@pytest.mark.parametrize("extra", [1, 20_000_000])
def test_an_image_of_too_many_bytes_is_not_decoded(server, extra):
    (answer,) = server.ask({"image": text(bytes(LIMITS["BYTES"] + extra + 2))})
    assert "more than the 200,000 bytes" in refused(answer)


def test_too_many_tiles_are_refused(server):
    row = {"image": text(encode(Image.new("RGB", (300, 200)))), "category": "gear"}
    (answer,) = server.ask(row, tile=32)
    assert "the limit is 30" in refused(answer)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "line 1/../../secret.png",
        "line 1/../linked.png",  # stays inside, but no honest client needs it
        "/etc/passwd",
        "//etc/passwd",
        "/dev/zero",
        "/proc/self/environ",
        "out.png",
        "outside/secret.png",
        "outside/images/linked.png/../../secret.png",
        "circle.png",
        "~/.ssh/id_rsa",
        "$HOME/x.png",
        "linked.png\0.txt",
        "\0",
        "a" * 100_000,
        "a/" * 50_000,
        "..\\secret.png",
        "%2e%2e/secret.png",
        "*.png",
    ],
)
def test_no_path_leads_out(server, path):
    (answer,) = server.ask({"path": path})
    assert refused(answer) == "path: no such file below the server's folder of images"


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data/",
        "https://example.org/part.png",
        "s3://bucket/part.png",
        "FILE:/etc/passwd",
        "data:image/png;base64,AAAA",
        "runs:/0/model",
        "C:/Windows/win.ini",
    ],
)
def test_nothing_is_fetched(server, address):
    (answer,) = server.ask({"path": address})
    assert "nothing is fetched" in refused(answer)
    (answer,) = server.ask({"image": address})
    assert "image: no base64" in refused(answer) or "not a readable image" in refused(answer)


@pytest.mark.parametrize(
    "category",
    ["{0.__class__}", "{}", "%s%n", "'; DROP TABLE parts; --", "${jndi:ldap://x}", "<end_of_text>"],
)
def test_a_category_is_text_and_nothing_else(server, detector, category):
    (answer,) = server.ask({"image": GOOD, "category": category}, threshold=0.5)
    assert answer == expect(detector(draw(), category, threshold=0.5))


@pytest.mark.parametrize("category", ["x" * 100_000, "a" * 101, "nut\nbolt", "nut\0", "\u202enut"])
def test_a_category_that_is_no_name_is_refused(server, category):
    (answer,) = server.ask({"image": GOOD, "category": category})
    assert "category: a name of at most 100 characters" in refused(answer)


def test_more_categories_than_are_kept_are_answered(server, detector):
    kept = detector.build_scorer.cache_info().maxsize
    for first in range(0, kept + 8, 8):
        answers = server.ask(
            *[{"image": GOOD, "category": f"part {first + n}"} for n in range(8)],
            map="none",
            threshold=0,
        )
        assert not any(answer["error"] for answer in answers)


def test_numbers_that_are_none_and_lone_surrogates_do_no_harm(server):
    body = '{"dataframe_records": [{"image": NaN, "path": -Infinity}]}'
    (answer,) = server.post(body).json()["predictions"]
    assert "must be text, not float" in refused(answer)
    for row in ({"path": "\ud800.png"}, {"image": GOOD, "category": "\ud800"}):
        assert server.post({"dataframe_records": [row]}).status_code == 400


def test_many_hostile_requests_at_once_do_not_stop_it(server):
    bodies = [
        {"dataframe_records": [{"image": text(make_bomb(30_000, 30_000))}] * 8},
        {"dataframe_records": [{"image": "A" * 5_000_000}]},
        {"dataframe_records": [{"path": "../" * 1000}]},
        "[" * 50_000,
        {"inputs": {"image": ["A" * 100_000] + [""] * 7}},
    ]
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda body: server.post(body).status_code, bodies * 8))
    assert codes == [200, 200, 200, 500, 200] * 8


def test_a_client_that_hangs_up_or_lies_about_its_length_does_no_harm(server):
    host, port = server.address.removeprefix("http://").split(":")
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    lies = (b"Content-Length: 1000000\r\n\r\n{", b"Content-Length: -1\r\n\r\n{}", b"\0" * 99)
    for rest in (b"", *lies):
        with socket.create_connection((host, int(port)), timeout=9) as connection:
            connection.sendall(head + rest)


ALONE = """
import json, sys
import mlflow, pandas as pd
loaded = mlflow.pyfunc.load_model(sys.argv[1])
sent = pd.DataFrame({"image": [sys.argv[2]], "category": ["gear"]})
answer = loaded.predict(sent, params={"mask": True})
own = {name: module.__file__ for name, module in sys.modules.items()
       if name.split(".")[0] in ("fuzzyclip", "stages")}
print(json.dumps([answer.to_dict("records"), own]))
"""


def test_it_needs_no_checkout_and_only_the_packages_it_names(model, detector, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(model), GOOD],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "FUZZYCLIP_DEVICE": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (answer,), own = json.loads(done.stdout.splitlines()[-1])
    assert answer == expect(detector(draw(), "gear"), ("map", "mask"))
    assert len(own) > 10
    assert all(Path(file).is_relative_to(model / "code") for file in own.values()), own
    needed = set()
    for file in own.values():
        needed |= list_external(Path(file).relative_to(model / "code"))
    where = packages_distributions()
    for name in needed - sys.stdlib_module_names:
        assert {package.lower() for package in where[name]} & set(PACKAGES), name
    pinned = (model / "requirements.txt").read_text().split()
    assert {line.split("==")[0] for line in pinned} == set(PACKAGES)


@pytest.fixture
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("e")
    yield
    mlflow.set_tracking_uri(before)


def test_a_run_and_the_registry_give_the_model_back(own_store, folder, detector):
    with mlflow.start_run() as run, describe_model(folder) as described:
        mlflow.pyfunc.log_model(name=name_model("drawn.v2"), **described)
    own = detector(draw(), "gear")
    address = f"runs:/{run.info.run_id}/fuzzyclip-drawn_v2"
    registered = mlflow.register_model(address, "inspection")
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("inspection", "champion", registered.version)
    (linked,) = client.get_run(run.info.run_id).outputs.model_outputs
    for source in (
        address,
        f"models:/{linked.model_id}",
        "models:/inspection/1",
        "models:/inspection@champion",
    ):
        loaded = FuzzyCLIP.load(source, device="cpu")
        prediction = loaded(draw(), "gear")
        assert loaded.card == detector.card
        assert prediction.image_score == own.image_score
        np.testing.assert_array_equal(prediction.anomaly_map, own.anomaly_map)
    served = mlflow.pyfunc.load_model("models:/inspection@champion")
    answers = served.predict(pd.DataFrame({"image": [GOOD], "category": ["gear"]}))
    assert answers.to_dict("records") == [expect(own)]
