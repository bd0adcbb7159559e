"""`fuzzyclip export` as typed: what is written agrees with the model, and what is refused."""

import base64

import mlflow
import pandas as pd
from command import export, run

from fuzzyclip import FuzzyCLIP


def test_a_folder_for_mlflow_answers_like_the_model(model, parts, tmp_path):
    out = tmp_path / "served"
    done = run("export", "--model", model, "--format", "mlflow", "--out", out)
    assert done.exit_code == 0, done.output
    image = base64.b64encode(parts[0].read_bytes()).decode()
    served = mlflow.pyfunc.load_model(str(out))
    rows = served.predict(pd.DataFrame({"image": [image], "category": ["gear"]}))
    (row,) = pd.DataFrame(rows).to_dict("records")
    own = FuzzyCLIP.load(model, device="cpu")(parts[0], "gear")
    assert row["image_score"] == own.image_score
    assert (row["threshold"], row["decision"]) == (0.25, own.decision)


def test_what_can_not_be_is_refused_and_nothing_is_written(model, parts, tmp_path):
    taken = tmp_path / "taken.onnx"
    taken.write_text("mine")
    for arguments, code, message in (
        (("--out", taken, "--check", parts[0]), 1, "exists already"),
        (("--out", tmp_path / "a.onnx"), 2, "--check"),
        (("--out", tmp_path / "a.txt", "--check", parts[0]), 1, "ends in .onnx"),
        (("--out", tmp_path / "a.onnx", "--check", tmp_path / "absent"), 1, "absent"),
        (("--out", tmp_path / "a.xml", "--format", "tensorrt"), 2, "tensorrt"),
        (("--out", tmp_path / "a", "--format", "mlflow", "--score", "map"), 2, "--score"),
        (
            ("--out", tmp_path / "a.onnx", "--check", parts[0], "--score", "map"),
            1,
            "calibrated for the score 'class'",
        ),
        (
            ("--out", tmp_path / "a.onnx", "--check", parts[0], "--reference", parts[1]),
            1,
            "calibrated with other reference images",
        ),
        (
            ("--out", tmp_path / "a.onnx", "--check", parts[0], "--category", "nut"),
            1,
            "'nut' is not calibrated, but 'gear'",
        ),
    ):
        done = export(model, *arguments)
        assert done.exit_code == code, done.output
        assert message in done.stderr
        assert "Traceback" not in done.output
        assert "threshold" not in done.stderr  # export takes none
    assert taken.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {"parts", "taken.onnx", "cache"}
