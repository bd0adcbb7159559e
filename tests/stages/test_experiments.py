"""The paper's experiments: transcription, plans, costs, tables, verification."""

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from finished_runs import PAPER, find_folder, locate, write_table
from imports import ROOT
from typer.main import get_command
from typer.testing import CliRunner

from fuzzyclip.baselines.registry import BEYOND
from fuzzyclip.cli.tables import tables
from fuzzyclip.evaluation.metrics import METRICS
from stages import method_tables, paths
from stages.experiments import __main__ as command
from stages.experiments.catalog import Catalog, CatalogError, read_catalog
from stages.experiments.plan import estimate, plan_runs
from stages.experiments.remarks import describe_run
from stages.experiments.results import Results
from stages.experiments.show import AVERAGE, collect_values, layout
from stages.method_tables import (
    check_pairs,
    collect_comparison,
    list_method_notes,
    read_facts,
)
from stages.params import read_params
from stages.schema import Params

BASE = yaml.safe_load((ROOT / "params.yaml").read_text())
CATALOG = read_catalog()
NAMES = [*(f"table-{n}" for n in range(1, 10)), "contradictions", "figure-1", "figure-3",
         "figure-4", "figure-5", *(f"figure-{n}" for n in range(6, 14))]  # fmt: skip
#: Rows of a result of FuzzyCLIP.
VARIANTS = ("precise", "stacked", "stacked_auxiliary", "fuzzyclip")


def printed(name, label):
    return next(row for row in CATALOG.get(name).rows if row.label == label).printed


def test_tables_takes_what_the_experiments_take():
    """Each command of theirs by its name, and each of its options and arguments."""

    def list_names(group):
        return {
            name: {(type(each).__name__, *each.opts) for each in typed.params if each.opts}
            for name, typed in get_command(group).commands.items()
        }

    def name_places(options):  # arguments go over by their place
        flags = {each for each in options if each[0] == "TyperOption"}
        return flags, len(options) - len(flags)

    ours, theirs = list_names(tables), list_names(command.app)
    assert {name: name_places(each) for name, each in ours.items()} == {
        name: name_places(each) for name, each in theirs.items()
    }


def test_every_table_and_figure_is_there():
    assert list(CATALOG.experiments) == NAMES
    with pytest.raises(CatalogError, match="no experiment 'table-10'; there are table-1"):
        CATALOG.get("table-10")


def test_table_6_gives_the_averages_that_the_paper_prints():
    """Its last column, which is not in the file: thirty checks of the transcription."""
    averages = {
        "VisA, k=1": (85.6, 40.9, 45.6), "VisA, k=2": (85.0, 43.4, 47.8),
        "MVTec_MPDD, k=1": (86.0, 44.3, 48.1), "MVTec_MPDD, k=2": (86.1, 45.5, 49.4),
        "MVTec_DTD, k=1": (82.0, 35.3, 41.3), "MVTec_DTD, k=2": (84.3, 33.7, 40.0),
        "MVTec_DTD, k=3": (84.7, 35.6, 41.5), "MVTec_DAGM, k=1": (89.2, 41.8, 47.4),
        "MVTec_DAGM, k=2": (90.1, 41.5, 47.5), "MVTec_DAGM, k=3": (90.5, 43.3, 48.2),
    }  # fmt: skip
    for label, expected in averages.items():
        values = np.array(list(printed("table-6", label).values()), float)
        assert values.mean(axis=0) == pytest.approx(expected, abs=0.0501)


def test_tables_that_print_the_same_run_agree():
    ours = printed("table-2", "FuzzyCLIP")
    assert ours["mvtec"][:3] == printed("table-6", "VisA, k=2")["mvtec"]
    assert ours["visa"][:3] == printed("table-8", "Test_obj+cluster")["visa"]
    assert ours["visa"][3:] == printed("table-7", "w RPL")["visa"]
    april = printed("table-2", "APRIL-GAN")
    assert april["mvtec"][:3] == printed("table-4", "Precise Prompt")["mvtec"]
    assert april["mvtec"][3:] == printed("table-1", "Precise Prompt")["mvtec"]
    assert printed("table-4", "Stacked Fuzzy Prompt") == {
        "mvtec": printed("table-6", "VisA, k=1")["mvtec"]
    }


@pytest.mark.parametrize("base", [BASE, PAPER], ids=["sample", "paper"])
@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_a_valid_run_of_what_it_needs(name, base):
    for run in plan_runs(CATALOG, name, base, seeds=2):
        params = Params.model_validate(run.params)
        assert params.pairs == run.row.tests
        trained = {member for members in params.auxiliary.values() for member in members}
        assert set(params.datasets) == trained | set(params.pairs)
        assert run.row.variant in (*params.evaluation.variants, "fuzzyclip")
        for dotted, value in run.row.set.items():
            place = run.params
            for part in dotted.split("."):
                place = place[part]
            assert place == value
        assert run.name.isascii()
        assert len(run.name) < 100


def test_what_decides_a_runs_identity():
    (run,) = plan_runs(CATALOG, "figure-6", BASE)
    changed = copy.deepcopy(BASE)
    changed["machine"]["workers"] = 7
    changed["datasets"]["dagm"]["names"] = "readable"  # not of this run
    assert plan_runs(CATALOG, "figure-6", changed)[0].identity == run.identity
    changed["csp"]["penalty"] = 0.3
    (other,) = plan_runs(CATALOG, "figure-6", changed)
    assert other.identity != run.identity
    assert other.name != run.name
    (same,) = plan_runs(CATALOG, "figure-13", BASE)
    assert same.identity == run.identity  # one run gives all heatmap strips
    seeds = plan_runs(CATALOG, "figure-6", BASE, seeds=3)
    assert len({run.identity for run in seeds}) == len({run.name for run in seeds}) == 3
    assert [run.params["seed"] for run in seeds] == [111, 112, 113]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tests": {"mvtec": "coco"}}, "coco"),
        ({"variant": "precize"}, "precize"),
        ({"printed": {"mvtec": [1.0]}}, "mvtec"),
        ({"printed": {"visa": [1, 2, 3]}}, "printed"),
        ({"lable": "x"}, "lable"),
    ],
)
def test_a_wrong_catalog_is_refused(change, message):
    data = yaml.safe_load((ROOT / "stages/experiments/paper.yaml").read_text())
    data["experiments"]["table-1"]["rows"][0] |= change
    with pytest.raises(ValueError, match=message):
        Catalog.model_validate(data)


def test_a_missing_dataset_or_key_is_named():
    small = copy.deepcopy(BASE)
    del small["rpl"]["template"]
    with pytest.raises(CatalogError, match=r"no key rpl\.template"):
        plan_runs(CATALOG, "table-9", small)
    del small["datasets"]["visa"]
    with pytest.raises(CatalogError, match="no datasets visa"):
        plan_runs(CATALOG, "table-1", small)


def test_costs_in_the_papers_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no index here: published numbers count
    paper = copy.deepcopy(PAPER)
    cost = estimate(plan_runs(CATALOG, "table-2", paper))
    assert cost.images == 1725 + 2162
    token_bytes = 4 * 37 * 37 * 1024 * 2
    assert cost.disk == cost.images * (token_bytes + 4 * 768)
    assert cost.mosaics == round(0.2 * 2 * 1725)  # of MVTec-AD alone
    assert (cost.runs, cost.heads, cost.prompts) == (1, 3, 2)
    # a tower of timm's: 32 x 32 patches of 768
    paper["backbones"]["vit_l_14_336"] |= {"model": "ViT-B-16-SigLIP2-512", "image_size": 512}
    image = estimate(plan_runs(CATALOG, "table-2", paper)).disk / cost.images
    assert image == 4 * 32 * 32 * 768 * 2 + 4 * 768
    table = estimate(plan_runs(CATALOG, "table-9", PAPER))
    assert (table.runs, table.prompts, table.heads) == (15, 15, 1)


def finish(run, value, within=Path()):
    """Leave a run's results as it would: every metric `value`, plus one for each category."""
    folder = within / find_folder(run)
    for dataset in run.row.tests:
        variants = {
            variant: {f"{dataset}{i}": dict.fromkeys(METRICS, value + i + shift) for i in range(3)}
            for shift, variant in enumerate(VARIANTS)
        }
        write_table(folder / paths.method_metrics("fuzzyclip", dataset), variants)
        tested = {"title": dataset.upper(), "source": "official", "complete": True}
        path = folder / paths.method_facts("fuzzyclip", dataset)
        path.write_text(json.dumps({"tested": tested}))
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder in the paper's setting; what `finish` left there is done."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PAPER))
    monkeypatch.setattr(command, "locate", locate)
    return tmp_path


def test_values_are_means_over_categories_and_seeds(workplace):
    runs = plan_runs(CATALOG, "table-1", PAPER, seeds=3)
    for run, value in zip(runs[:3], (80.0, 82.0, 87.0), strict=True):
        finish(run, value)
    values = collect_values(CATALOG.get("table-1"), locate(runs)).set_index(["label", "metric"])
    line = values.loc["Precise Prompt", "image_auroc"]
    assert line["ours"] == pytest.approx((80 + 82 + 87) / 3 + 1)
    assert line["spread"] == pytest.approx(np.std([80, 82, 87], ddof=1))
    assert line["seeds"] == 3
    assert line["difference"] == pytest.approx(line["ours"] - 86.1)
    assert values.loc["Fuzzy Prompt", "image_auroc"]["ours"] == pytest.approx(line["ours"] + 1)
    text = layout(values.reset_index(), {"mvtec": "MVTec"})
    assert text.loc[0, "Image (AUROC, AP, F1-max): ours"].startswith("(84.0 ± 3.6, ")
    assert text.loc[2, "paper "] == "-"


def test_several_datasets_are_averaged_where_all_have_values(workplace):
    runs = plan_runs(CATALOG, "table-6", PAPER)
    finish(runs[0], 50.0)
    values = collect_values(CATALOG.get("table-6"), locate(runs)).query("metric == 'pixel_ap'")
    values = values.set_index(["label", "dataset"])
    average = values.loc["VisA, k=1", AVERAGE]
    assert (average["ours"], average["paper"]) == pytest.approx((54.0, 40.9), abs=0.05)
    assert np.isnan(values.loc["VisA, k=2", AVERAGE]["ours"])


def call(*arguments, code=0):
    result = CliRunner().invoke(command.app, list(arguments))
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def test_show_says_what_is_missing_and_what_is_contradicted(workplace):
    output = call("show", "table-8")
    assert "4 run(s) are not done: fuzzyclip tables run table-8" in output
    assert "C7: Table 8 is headed AUROC" in output
    assert "(89.8, 28.0, 34.2)" in output
    for suffix in ("md", "csv"):
        assert (workplace / f"experiments/table-8.{suffix}").stat().st_size > 0
    assert "table-9" in call("list")


def change_facts(folder, dataset, **facts):
    """Add to the facts of a run's result."""
    path = folder / paths.method_facts("fuzzyclip", dataset)
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_a_table_tells_the_lengths_that_ran(workplace):
    lengths = {
        "[cluster]": {"words": [12, 12], "deep_tokens": 20, "depth": 9},
        "object": {"words": [9, 9], "deep_tokens": 9, "depth": 9},
        "inserted": {"words": [9, 9], "deep_tokens": 20, "depth": 9},
    }
    for run in plan_runs(CATALOG, "table-9", PAPER):
        kind = [kind for kind in lengths if kind in run.row.label][-1]
        change_facts(finish(run, 80.0), "visa", lengths=lengths[kind])
    lines = [line for line in call("show", "table-9").splitlines() if line.startswith("| ")]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    labels = [row.label for row in CATALOG.get("table-9").rows]
    cuts = [""] * 5 + [": E=9 in place of 12, L=9 in place of 20"] * 5
    cuts += [": E=9 in place of 12"] * 5
    assert rows == [f"{label}{cut}" for label, cut in zip(labels, cuts, strict=True)]
    values = pd.read_csv(workplace / "experiments/table-9.csv", keep_default_na=False)
    assert set(values["ran"]) == {cut.removeprefix(": ") for cut in cuts}


def test_lengths_are_told_where_they_are_what_a_row_is_about(workplace):
    runs = plan_runs(CATALOG, "table-8", PAPER)
    for run in runs:
        change_facts(finish(run, 80.0), "visa", lengths={"words": [9, 9], "deep_tokens": 9})
    assert {describe_run(run) for run in locate(runs)} == {""}
    (run,) = [run for run in plan_runs(CATALOG, "figure-5", PAPER) if run.row.label == "L=5"]
    assert describe_run(run) == ""  # not run yet
    run.params["rpl"]["layout"] = "template_ctx"  # its template decides how many words are learned
    change_facts(finish(run, 80.0), "visa", lengths={"words": [3, 4], "deep_tokens": 4, "depth": 8})
    (run,) = locate([run])
    assert describe_run(run) == "L=4 in place of 5, M=8 in place of 9"


def test_table_5_names_the_clusters(workplace):
    clusters = [["candle", "fryum"], ["pcb1", "pcb2", "pcb3", "pcb4"]]
    for run in plan_runs(CATALOG, "table-5", PAPER):
        path = finish(run, 80.0) / paths.csp_scores("visa")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"clusters": clusters}))
    output = call("show", "table-5")
    assert "| Cluster 1: candle, fryum alone |" in output
    assert "| Cluster 2: pcb1, pcb2, pcb3, pcb4 alone |" in output
    assert "| EFA |" in output
    assert "| Baseline, all in one |" in output


def test_contradicting_settings_are_rows():
    rows = {row.label: row.set for row in CATALOG.get("contradictions").rows}
    assert rows["8 layers of 29"] == {"rpl.depth": 8, "rpl.deep_tokens": 29, "rpl.epochs": 1}
    assert rows["rate 1e-4, 2 epochs"] == {"rpl.learning_rate": 1e-4, "rpl.epochs": 2}


def test_table_2_has_the_partition_of_table_6():
    for name in ("table-2", "table-3"):
        (row,) = [row for row in CATALOG.get(name).rows if row.label == "FuzzyCLIP"]
        (other,) = [row for row in CATALOG.get("table-6").rows if row.label == "VisA, k=2"]
        assert row.set == other.set == {"csp.partition": "paper"}


def test_differences_are_formed_only_in_the_papers_setting(workplace):
    for run in plan_runs(CATALOG, "table-8", PAPER):
        finish(run, 86.0)
    assert "(+0.2, +63.5, +57.0)" in call("show", "table-8")
    (workplace / "params.yaml").write_text(yaml.safe_dump(BASE))
    for run in plan_runs(CATALOG, "table-8", BASE):
        finish(run, 86.0)
    output = call("show", "table-8")
    assert "+0.2" not in output
    assert "no number compares with a printed one" in output


@pytest.mark.parametrize(("name", "printed"), [("table-2", 7), ("table-3", 3)])
def test_comparisons_are_complete_from_the_committed_results(name, printed, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert "not there yet" not in call("show", name, "--out", str(tmp_path))
    values = pd.read_csv(tmp_path / f"{name}.csv")
    assert values["label"].nunique() == 12 + len(BEYOND)
    own = values.groupby(["label", "dataset"])["ours"].apply(lambda ours: ours.notna().any())
    assert own.all()
    assert values.dropna(subset="paper")["label"].nunique() == printed
    text = (tmp_path / f"{name}.md").read_text()
    assert f"csp.partition: paper, is made by fuzzyclip tables run {name}" in text
    assert ("average rank, as printed" in text) == (name == "table-3")
    assert all(f"- {note}" in text for note in CATALOG.list_notes(CATALOG.get(name)))
    assert re.search(r"SAA\+: tiny random models .*; random weights take no rank", text)
    assert re.search(r"^\| SAA\+ \|.*\| - \| [^|]+ \|$", text, re.MULTILINE)
    assert re.search(r"Mutual scoring .*: uses the unlabelled batch; .* without a rank", text)
    assert re.search(r"^\| Mutual scoring \(batch\) \|.*\| - \| - \|$", text, re.MULTILINE)
    dataset = "visa" if name == "table-2" else "dtd"
    mean = pd.read_csv(paths.method_metrics("winclip", dataset))["pixel_ap"].mean()
    shown = values.set_index(["label", "dataset", "metric"])["ours"]
    assert shown["WinCLIP", dataset, "pixel_ap"] == pytest.approx(mean, abs=1e-3)


def test_a_comparison_shows_the_run_of_its_own_row(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (run,) = plan_runs(CATALOG, "table-2", BASE)
    done = replace(run, results=Results("run", folder=finish(run, 10.0, within=tmp_path)))
    monkeypatch.setattr(command, "locate", lambda runs: [done])
    call("show", "table-2", "--out", str(tmp_path))
    values = pd.read_csv(tmp_path / "table-2.csv").query("dataset == 'mvtec'")
    shown = values.set_index(["label", "metric"])["ours"]
    assert shown["FuzzyCLIP", "pixel_ap"] == 14.0
    committed = pd.read_csv(paths.method_metrics("winclip", "mvtec"))["pixel_ap"].mean()
    assert shown["WinCLIP", "pixel_ap"] == pytest.approx(committed, abs=1e-3)
    assert "FuzzyCLIP is a run with csp.partition: paper." in (tmp_path / "table-2.md").read_text()


def test_the_committed_tables_have_their_notes(tmp_path, monkeypatch):
    (tmp_path / "metrics").symlink_to(ROOT / "metrics")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "METHOD_TABLES", Path("made"))
    monkeypatch.setattr(
        method_tables, "load_params", lambda stage: read_params(ROOT / "params.yaml")
    )
    method_tables.main()
    for name in method_tables.TABLES:
        text = (tmp_path / f"made/{name}.md").read_text()
        assert all(f"- {note}" in text for note in CATALOG.list_notes(CATALOG.get(name)))
        assert ("average rank, as printed" in text) == (name == "table-3")


def test_a_comparison_is_refused_where_pairs_are_others(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = read_params(ROOT / "params.yaml")
    changed = params.model_copy(update={"pairs": params.pairs | {"mvtec": "other"}})
    with pytest.raises(CatalogError, match=r"table-2 tests mvtec .* visa; .*pairs.mvtec: other"):
        check_pairs("table-2", CATALOG, changed)


def test_one_function_reads_the_results_of_all_methods(workplace):
    methods = {"clip": {"random": False}, "saa": {"random": True}, "mine": {}, "fuzzyclip": {}}
    for value, (method, random) in enumerate(methods.items(), start=50):
        path = paths.METHOD_METRICS / method / "mvtec.csv"
        path.parent.mkdir(parents=True)
        line = {"variant": method, "category": "bottle", "normal": 9, "anomalous": 9, "tied": 0}
        pd.DataFrame([line | dict.fromkeys(METRICS, value)]).to_csv(path, index=False)
        facts = {"title": method.upper(), "settings": {"tiny_seed": None}} | random
        path.with_suffix(".json").write_text(json.dumps(facts))
    facts = read_facts(["clip", "saa", "mine", "absent"])
    values = collect_comparison(CATALOG.get("table-2"), facts)
    shown = values.query("dataset == 'mvtec' and metric == 'pixel_ap'").set_index("label")
    assert shown["ours"].dropna().to_dict() == {"CLIP": 50, "SAA+": 51, "MINE": 52, "FuzzyCLIP": 53}
    assert list(shown.index[shown["random"]]) == ["SAA+"]
    assert list_method_notes(facts) == ["SAA: random weights take no rank"]
