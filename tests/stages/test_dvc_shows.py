"""What DVC's own commands show of a finished pipeline."""

import csv
import io
import json
import re
import shlex

import pandas as pd
import pytest
import yaml
from imports import ROOT
from pipelines import change_params, clone_repository, run

from fuzzyclip.report.tables import HEADLINE

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    """A clone of the finished pipeline, to be changed."""
    return clone_repository(pipeline[0], tmp_path_factory.mktemp("shows") / "clone")


def test_every_plot_is_drawn_and_nothing_else_is_seen_or_warned_of(folder):
    output = run(folder, "dvc", "plots", "show")
    assert re.fullmatch(r"file://\S+/dvc_plots/index.html\n", output)
    page = (folder / "dvc_plots/index.html").read_text()
    shown = re.findall(r'<div id ?= ?"([^"]+)"', page.replace("\n", " "))
    titles = [re.sub(r"\W", "_", next(iter(plot))) for plot in PIPELINE["plots"]]
    assert shown[: len(titles)] == titles
    assert all(name.startswith("metrics_") for name in shown[len(titles) :])
    assert 'div[id^="metrics_"] { display: none; }' in page
    specs = re.findall(r"var spec = (\{.*\});", page)
    for title, plot, spec in zip(titles, PIPELINE["plots"], specs, strict=False):
        assert "<DVC_METRIC" not in spec, title
        (definition,) = plot.values()
        ((file, y),) = definition["y"].items()
        points = pd.read_csv(folder / file)
        drawn = json.loads(spec)["data"]["values"]
        assert len(drawn) == len(points) > 0
        assert {definition["x"], y} <= {*points.columns}


def test_metrics_are_the_headline_alone(folder):
    metrics = json.loads(run(folder, "dvc", "metrics", "show", "--json"))
    (files,) = [revision["data"] for revision in metrics.values()]
    assert [*files] == ["metrics/headline.json"]
    headline = files["metrics/headline.json"]["data"]
    dataset = json.loads((folder / "metrics/datasets/sdd.json").read_text())
    assert headline == {metric: dataset[metric] for metric in HEADLINE}  # one dataset
    asked = run(folder, "dvc", "metrics", "show", "--json", "metrics/datasets/sdd.json")
    assert json.loads(asked)[""]["data"]["metrics/datasets/sdd.json"]["data"] == dataset


def test_experiments_begin_with_the_headline_and_fit_a_terminal(folder):
    (command,) = re.findall(r"dvc (exp show --only-changed .*?) +#", README)
    change_params(folder, lambda params: params["csp"].update(penalty=0.05))
    headline = json.loads((folder / "metrics/headline.json").read_text())
    changed = {metric: value - 1 for metric, value in headline.items()}
    (folder / "metrics/headline.json").write_text(json.dumps(changed))
    (folder / "metrics/tables/summary.md").write_text("other\n")
    try:
        run(folder, "dvc", "commit", "-f")
        run(folder, "dvc", "exp", "save", "-n", "other")
        everything, shown = (
            next(csv.reader(io.StringIO(run(folder, "dvc", *shlex.split(line), "--csv"))))
            for line in ("exp show", command)
        )
    finally:
        run(folder, "git", "checkout", "-q", "--", ".")
    identity = ["Experiment", "rev", "typ", "Created"]
    assert shown == [*identity, *HEADLINE, "csp.penalty"]
    start = everything.index("Created")
    assert [name for name in everything[start:] if name in HEADLINE] == [*HEADLINE]
    assert everything[everything.index(HEADLINE[0]) - 1] in ("Created", "parent")


def test_a_packaged_model_is_got_by_its_name(folder, tmp_path):
    names = {name: artifact["path"] for name, artifact in PIPELINE["artifacts"].items()}
    assert names["fuzzyclip-visa"] == "models/visa/fuzzyclip"
    run(folder, "git", "-c", "tag.gpgSign=false", "tag", "-a", "fuzzyclip-visa@v1.0.0", "-m", "1")
    out = tmp_path / "got"
    run(folder, "dvc", "artifacts", "get", str(folder), "fuzzyclip-visa", "-o", str(out))
    kept = folder / names["fuzzyclip-visa"]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in kept.iterdir()
    }
