"""The served model without a server: in this process, and what it refuses to read."""

import base64

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from schemas import SENSELESS, list_unbounded
from scipy.special import expit
from serving_cases import GOOD, draw, encode, expect
from tiny_models import break_scorer, make_model

from fuzzyclip import FuzzyCLIP
from fuzzyclip.deploy import serving
from fuzzyclip.deploy.mlflow_model import INPUTS, OUTPUTS, PARAMS, describe_model
from fuzzyclip.deploy.request import Limits, Options, RequestError, read_content
from fuzzyclip.deploy.serving import Responder
from fuzzyclip.model.card import Calibration, Threshold
from fuzzyclip.model.storing import store


def test_the_schemas_say_what_is_taken_and_given():
    assert tuple(INPUTS.input_names()) == serving.INPUTS
    assert tuple(OUTPUTS.input_names()) == serving.OUTPUTS
    assert {param.name: param.default for param in PARAMS} == Options().model_dump()


def test_it_runs_in_process_and_the_example_is_answered(model, folder, detector):
    loaded = mlflow.pyfunc.load_model(str(model))
    example = loaded.input_example
    (answer,) = loaded.predict(example).to_dict("records")
    content = base64.b64decode(example["image"][0])
    assert answer == expect(detector(content, "gear"))
    assert answer["probability"] == pytest.approx(expit(answer["image_score"]))
    assert list(
        loaded.predict(pd.DataFrame({"image": [GOOD], "path": [None], "category": ["gear"]}))[
            "error"
        ]
    ) == [None]
    with pytest.raises(MlflowException, match="no images"):
        loaded.predict(pd.DataFrame({"image": []}, dtype=str))
    metadata = loaded.metadata.metadata
    assert metadata["model"] == "drawn"
    assert metadata["backbone_fingerprint"] == detector.backbone.fingerprint


def test_a_model_without_weights_is_logged_and_loaded_with_them(tmp_path, tiny_config):
    made = make_model(tmp_path, tiny_config, copy=False)[0]
    with describe_model(made) as described:
        mlflow.pyfunc.save_model(str(tmp_path / "logged"), **described)
    environment = {"FUZZYCLIP_WEIGHTS": str(tmp_path / "weights.safetensors")}
    artifact = next((tmp_path / "logged/artifacts").iterdir())
    responder = Responder.start(artifact, environment | {"FUZZYCLIP_DEVICE": "cpu"})
    (answer,) = responder.answer([{"image": GOOD}], Options())
    loaded = FuzzyCLIP.load(made, device="cpu", weights=tmp_path / "weights.safetensors")
    assert answer == expect(loaded(draw()))
    with pytest.raises(ValueError, match="does not hold the weights"):
        Responder.start(artifact, {})


def test_another_method_is_served_as_it_predicts(tiny, tmp_path):
    """WinCLIP without any training; and what compares with good parts says that it has none."""
    for method, made in (("winclip", tmp_path / "first"), ("nearest", tmp_path / "second")):
        FuzzyCLIP.build(tiny, method).save(made)
    with describe_model(tmp_path / "first") as described:
        mlflow.pyfunc.save_model(str(tmp_path / "logged"), **described)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "logged"))
    rows = pd.DataFrame({"image": [GOOD], "path": [None], "category": ["gear"]})
    (answer,) = loaded.predict(rows).to_dict("records")
    own = FuzzyCLIP.load(tmp_path / "first", device="cpu")
    assert answer == expect(own(draw(), "gear"))
    assert loaded.metadata.metadata["datasets"] == ""
    responder = Responder.start(tmp_path / "second", {"FUZZYCLIP_DEVICE": "cpu"})
    (answer,) = responder.answer([{"image": GOOD, "category": "gear"}], Options())
    assert answer["error"].startswith("nothing is known of 'gear'")


def test_a_model_of_links_is_saved_as_files(tmp_path, tiny_config):
    """As DVC leaves it where `cache.type` is symlink; MLflow takes no link out of the folder."""
    for name in ("models", "cache"):
        (tmp_path / name).mkdir()
    made = make_model(tmp_path / "models", tiny_config)[0]
    for path in made.iterdir():
        path.rename(tmp_path / "cache" / path.name)
        path.symlink_to(tmp_path / "cache" / path.name)
    with describe_model(made) as described:
        mlflow.pyfunc.save_model(str(tmp_path / "logged"), **described | {"input_example": None})
    saved = tmp_path / "logged/artifacts" / made.name
    assert {path.name for path in saved.iterdir()} == {path.name for path in made.iterdir()}
    assert not any(path.is_symlink() for path in saved.iterdir())
    (made / "circle").symlink_to(".")
    with pytest.raises(ValueError, match="circle: a link to a folder"), describe_model(made):
        pass


@pytest.mark.parametrize("part", ["compute_map", "compute_score"])
def test_a_score_that_is_no_number_is_an_error_and_no_number(folder, monkeypatch, part):
    break_scorer(monkeypatch, part)
    responder = Responder.start(folder, {"FUZZYCLIP_DEVICE": "cpu"})
    for options in (Options(), Options(threshold=0.0), Options(tile=32, mask=True, threshold=0)):
        (answer,) = responder.answer([{"image": GOOD, "category": "gear"}], options)
        assert "not finite numbers" in answer["error"]
        assert [key for key, value in answer.items() if value is not None] == ["error"]


def test_a_category_is_the_calibrated_one_or_refused(tmp_path, tiny_config, folder):
    """A model of gears and strips answers nothing else; one of gears alone needs not be told."""
    threshold = Threshold(value=0.25, method="quantile")
    alone = make_model(tmp_path, tiny_config)[0]
    store(alone, "gear", Calibration(image=threshold, pixel=threshold))
    rows = [{"image": GOOD} | more for more in ({}, {"category": "GEAR"}, {"category": "nut"})]
    several, single = (
        Responder.start(source, {"FUZZYCLIP_DEVICE": "cpu"}).answer(rows, Options(map="none"))
        for source in (folder, alone)
    )
    assert [row["category"] for row in several] == [None, "gear", None]
    assert [row["category"] for row in single] == ["gear", "gear", None]
    assert "say which, this model is calibrated for 'gear', 'strip'" in several[0]["error"]
    assert "'nut' is not calibrated, but 'gear'" in single[2]["error"]
    assert single[2]["error"].endswith(", or give a threshold")
    assert {row["threshold"] for row in (*several, *single)} == {0.25, None}


def test_a_score_is_the_calibrated_or_the_asked_one_and_no_other(tmp_path, tiny_config):
    threshold = Threshold(value=0.25, method="quantile")
    made = make_model(tmp_path, tiny_config)[0]
    store(made, "gear", Calibration(image=threshold, pixel=threshold, score="map"))
    responder, own = Responder.start(made, {"FUZZYCLIP_DEVICE": "cpu"}), FuzzyCLIP.load(made)
    rows = [{"image": GOOD, "category": "gear"}]
    for asked in (None, "map"):
        assert responder.answer(rows, Options(score=asked)) == [expect(own(draw(), score="map"))]
    (refused,) = responder.answer(rows, Options(score="class"))
    assert "was calibrated for the score 'map', not for 'class'" in refused["error"]
    given = responder.answer(rows, Options(score="class", threshold=0.5))
    assert given == [expect(own(draw(), score="class", threshold=0.5))]
    assert given[0]["image_score"] != own(draw()).image_score
    with pytest.raises(RequestError, match=r"params\.score: .*'class', 'map' or 'both'"):
        Options.read({"score": "mean"})


def test_limits_come_from_the_environment_and_wrong_ones_are_named():
    assert Limits.read({}) == Limits()
    assert Limits.read({"FUZZYCLIP_MAX_IMAGES": "3", "FUZZYCLIP_MAX_BYTES": ""}).images == 3
    for value in ("0", "-1", "many", "1.5"):
        with pytest.raises(ValueError, match="FUZZYCLIP_MAX_PIXELS: Input should be"):
            Limits.read({"FUZZYCLIP_MAX_PIXELS": value})


def test_every_number_of_a_request_has_bounds():
    assert list_unbounded(Options) == list_unbounded(Limits) == []
    for name in ("threshold", "tile", "overlap", "white"):
        for value in SENSELESS:
            with pytest.raises(RequestError, match=rf"params\.{name}: "):
                Options.read({name: value})


def test_without_a_folder_no_path_is_read_and_a_missing_folder_is_refused(detector, tmp_path):
    (tmp_path / "part.png").write_bytes(encode(draw()))
    with pytest.raises(ValueError, match="FUZZYCLIP_IMAGE_ROOT is not set"):
        read_content({"path": str(tmp_path / "part.png")}, 1000, None)
    with pytest.raises(OSError, match="missing"):
        Responder(detector, image_root=tmp_path / "missing")


def test_a_request_is_refused_before_any_image_is_looked_at(detector):
    responder = Responder(detector, Limits(images=1))
    for rows in ([], [{"image": GOOD}] * 2):
        with pytest.raises(RequestError):
            responder.answer(rows, Options())
