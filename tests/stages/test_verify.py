"""`fuzzyclip tables verify`: every known number is found where results are, and judged."""

import copy
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from finished_runs import PAPER, find_folder, locate, write_table
from imports import ROOT
from typer.testing import CliRunner

from fuzzyclip.evaluation.metrics import METRICS
from stages import paths
from stages.experiments import __main__ as command
from stages.experiments.catalog import CatalogError, read_catalog
from stages.experiments.facts import collect_facts, name_experiments, read_expected
from stages.experiments.plan import plan_runs
from stages.experiments.results import Results
from stages.experiments.verify import Measured, summarise, verify

CATALOG, EXPECTED = read_catalog(), read_expected()
FACTS = collect_facts(CATALOG, EXPECTED)
EXPERIMENTS = name_experiments(FACTS, EXPECTED)
RUNS = [run for name in EXPERIMENTS for run in plan_runs(CATALOG, name, PAPER)]
CLUSTERS = {
    "mvtec": [[f"c{i}" for i in range(15)]],
    "visa": [["pcb1", "pcb2", "pcb3", "pcb4"], list("abcdefgh")],
}


def find_table(place):
    """The file that holds a number."""
    folder = Path()
    if place.experiment and place.method == "fuzzyclip":
        keys = [(run.experiment, run.row.label) for run in RUNS]
        folder = find_folder(RUNS[keys.index((place.experiment, place.label))])
    return folder / paths.method_metrics(place.method, place.dataset)


def list_numbers():
    """Table -> variant -> category (None for the mean) -> metric -> a value that fits its facts."""
    bounds = {}
    for fact in FACTS:
        place = fact.place
        key = (find_table(place), place.variant, place.category, place.metric)
        low, high = bounds.get(key, (-1e9, 1e9))
        bounds[key] = (
            max(low, fact.value - fact.tolerance),
            min(high, fact.value + fact.tolerance),
        )
    tables = {}
    for (path, variant, category, metric), (low, high) in bounds.items():
        assert low < high, f"facts of {path}, {variant}, {metric} exclude one another"
        variants = tables.setdefault(path, {})
        variants.setdefault(variant, {}).setdefault(category, {})[metric] = (low + high) / 2
    return tables


def write_means(path, variants):
    """Results by category whose means are those asked for; one category where none is known."""
    complete = {}
    for variant, categories in variants.items():
        means = dict.fromkeys(METRICS, 50.0) | categories.get(None, {})
        known = {name: means | line for name, line in categories.items() if name is not None}
        complete[variant] = known or {"all": means}
    write_table(path, complete)


def write_facts(path, **changes):
    facts = {"tested": {"source": "official", "complete": True}, "random": False, "auxiliary": None}
    facts["settings"] = {"as": "published"}
    path.with_suffix(".json").write_text(json.dumps(facts | changes))


def write_clusters(clusters):
    for run in RUNS:
        if run.experiment == "figure-4":
            for name, partition in clusters.items():
                path = find_folder(run) / paths.csp_scores(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"clusters": partition}))


@pytest.fixture
def complete(tmp_path, monkeypatch):
    """Results of every run and method, made of the facts: the tables that hold them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "locate", locate)
    Path("params.yaml").write_text(yaml.safe_dump(PAPER))
    tables = list_numbers()
    for path, variants in tables.items():
        write_means(path, variants)
        write_facts(path)
    for run in RUNS:
        for dataset in run.row.tests:
            path = find_folder(run) / paths.method_facts("fuzzyclip", dataset)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_facts(path)
    write_clusters(CLUSTERS)
    return tables


def call(*arguments, code=0):
    result = CliRunner().invoke(command.app, ["verify", *arguments])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def test_every_printed_number_is_a_fact():
    """Counted in the paper: 6 + 84 + 75 + 9 + 156 + 6 + 12 + 30, of Tables 1 to 4 and 6 to 9."""
    printed = [fact for fact in FACTS if fact.source.startswith("the paper's")]
    counts = pd.Series([fact.group for fact in printed]).value_counts().to_dict()
    assert counts == {
        "table-1": 6, "table-2": 84, "table-3": 75, "table-4": 9, "table-6": 156, "table-7": 6,
        "table-8": 12, "table-9": 30,
    }  # fmt: skip
    assert sum(fact.group.endswith("categories") for fact in FACTS) == 27 * 4 * 2
    assert len({fact.name for fact in FACTS}) == len(FACTS)


def test_doubts_are_where_two_tables_of_the_paper_exclude_one_another():
    """C11: Table 3's pixel values against Table 6's of two clusters, the same model."""
    values = {
        (fact.group, fact.place.dataset, fact.place.metric): fact
        for fact in FACTS
        if (fact.group, fact.place.label) in {("table-3", "FuzzyCLIP"), ("table-6", "VisA, k=2")}
    }
    for (group, dataset, metric), fact in values.items():
        if group == "table-3" and metric.startswith("pixel"):
            other = values["table-6", dataset, metric]
            apart = abs(fact.value - other.value) > fact.tolerance
            assert apart == (fact.doubt == "C11"), fact


def test_a_complete_run_passes(complete):
    output = call()
    assert "FAILED" not in output
    assert "DOUBT" not in output
    measured = Measured(locate(RUNS), Results("workspace"))
    frame = summarise(list(verify(FACTS, EXPECTED.clusters, measured)))
    assert set(frame["verdict"]) == {"passed"}
    assert frame["passed"].sum() == frame["facts"].sum() == len(FACTS) + 2
    assert list(frame["facts of"]) == [
        "table-1", "table-2", "table-3", "table-4", "table-6", "table-7", "table-8", "table-9",
        "anomaly_clip, categories", "winclip, categories", "figure-4",
    ]  # fmt: skip


def test_each_number_that_is_altered_fails_and_is_named(complete):
    """Through the files; only facts of the altered file are judged again."""
    beside = {}
    for fact in FACTS:
        beside.setdefault(find_table(fact.place), []).append(fact)
    runs = locate(RUNS)
    for path, facts in beside.items():
        for fact in facts:
            place, altered = fact.place, copy.deepcopy(complete[path])
            categories = altered[place.variant]
            # what moves a mean is each of its categories
            moved = [place.category] if place.category else [*categories]
            for category in moved:
                categories[category][place.metric] = fact.value + fact.tolerance + 0.02
            write_means(path, altered)
            verdicts = list(verify(facts, [], Measured(runs, Results("workspace"))))
            outside = {v.name: v.outcome for v in verdicts if v.outcome != "passed"}
            assert outside[fact.name] == ("in doubt" if fact.doubt else "failed"), fact
            same = [known.name for known in facts if is_same(known.place, place)]
            assert set(outside) <= set(same), fact
        write_means(path, complete[path])


def is_same(place, other):
    """True of two places that hold one number, or a mean and one of its categories."""
    return (place.variant, place.metric) == (other.variant, other.metric)


@pytest.mark.parametrize(
    ("visa", "shown"),
    [
        ([["pcb1", "pcb2", "pcb3", "a"], ["pcb4", *"bcdefgh"]], "sizes [8, 4], others together"),
        ([[*"abcdefgh", "pcb1", "pcb2", "pcb3", "pcb4"]], "sizes [12], others together"),
    ],
)
def test_another_partition_fails(complete, visa, shown):
    write_clusters({"visa": visa})
    assert f"FAILED  figure-4, clusters of visa: {shown}, expected sizes [8, 4]" in call(code=1)


def test_output_names_value_tolerance_source_and_table(complete):
    (fact,) = [fact for fact in FACTS if fact.name == "table-2, SAA+ on visa/mean: pixel_ap"]
    path = find_table(fact.place)
    complete[path]["saa"][None]["pixel_ap"] = 24.5
    write_means(path, complete[path])
    output = call(code=1)
    assert (
        "FAILED  table-2, SAA+ on visa/mean: pixel_ap: 24.50, expected 22.4 ± 1 "
        "(the paper's table-2; training_free)" in output
    )
    (line,) = [line.split() for line in output.splitlines() if line.split()[:1] == ["table-2"]]
    assert line[1:] == ["87", "86", "1", "0", "0", "FAILED"]


def test_a_number_that_the_paper_contradicts_is_named_with_its_note_and_fails_nothing(complete):
    (fact,) = [fact for fact in FACTS if fact.doubt == "C12" and fact.value == 21.9]
    assert fact.place.metric == "image_auroc"  # headed AP
    path = find_table(fact.place)
    complete[path]["april_gan"][None]["image_auroc"] = 73.7
    write_means(path, complete[path])
    output = call()
    (line,) = [line for line in output.splitlines() if line.startswith("IN DOUBT")]
    assert "table-3, APRIL-GAN on btad/mean: image_auroc: 73.70, expected 21.9 ± 2.5" in line
    assert "there headed image_ap" in line
    assert "; C12: " in line


def test_a_metric_that_a_finished_run_lacks_fails(complete):
    path = find_table(FACTS[0].place)
    table = pd.read_csv(path)
    table.assign(image_auroc=float("nan")).to_csv(path, index=False)
    output = call(code=1)
    assert "table-1, Precise Prompt (precise) on mvtec/mean: image_auroc: nothing" in output
    table[table["variant"] != "precise"].to_csv(path, index=False)
    assert "table-1, Precise Prompt (precise) on mvtec/mean: image_ap: nothing" in call(code=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"random": True},
        {"settings": {"as": "mended"}},
        {"auxiliary": "mvtec"},
        {"tested": {"source": "official", "complete": False}},
        {"tested": {"source": "sample", "complete": True}},
    ],
)
def test_other_methods_count_where_their_setting_is_the_papers(complete, changes):
    write_facts(paths.method_metrics("saa", "mvtec"), **changes)
    output = call()
    (line,) = [line.split() for line in output.splitlines() if line.split()[:1] == ["table-2"]]
    assert line[1:] == ["87", "81", "0", "0", "6", "not", "all", "run"]
    assert output.endswith("\nnot all was run: dvc repro baselines\n")


def test_runs_that_are_missing_are_named_each_seed_too(complete):
    assert "not all was run" not in call()
    remedies = [f"fuzzyclip tables run {name} --seeds 2" for name in EXPERIMENTS]
    assert call("--seeds", "2").endswith(f"\nnot all was run: {', '.join(remedies)}\n")
    for run in plan_runs(CATALOG, "table-8", PAPER):
        shutil.rmtree(find_folder(run))
    assert call().endswith("\nnot all was run: fuzzyclip tables run table-8\n")


def test_seeds_widen_the_tolerance(complete, monkeypatch):
    """Mean and twice the standard deviation over three seeds of the same numbers."""
    place = next(fact.place for fact in FACTS if fact.group == "table-8")
    runs = plan_runs(CATALOG, "table-8", PAPER, seeds=3)[:3]
    for run, value in zip(runs, (80.0, 86.0, 92.0), strict=True):
        path = find_folder(run) / paths.method_metrics("fuzzyclip", "visa")
        write_means(path, {"fuzzyclip": {None: {"pixel_aupro": value}}})
        write_facts(path)
    (fact,) = [fact for fact in FACTS if fact.place == place]
    spread = Measured(locate(runs), Results("workspace")).read(place)
    assert (spread.mean, spread.deviation, spread.runs) == (86.0, 6.0, 3)
    (verdict,) = verify([fact], [], Measured(locate(runs), Results("workspace")))
    assert (verdict.expected, verdict.outcome) == ("89.8 ± 14.5", "passed")
    write_means(path, {"fuzzyclip": {None: {"pixel_aupro": float("nan")}}})  # of the last seed
    (verdict,) = verify([fact], [], Measured(locate(runs), Results("workspace")))
    assert (verdict.measured, verdict.outcome) == ("nothing", "failed")


def test_nothing_is_compared_in_another_setting(complete):
    small = yaml.safe_load((ROOT / "params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(small))
    result = CliRunner().invoke(command.app, ["verify"])
    assert result.exit_code == 1
    assert "data.source: official" in result.stderr


def test_runs_of_a_part_of_the_data_are_refused(complete):
    run = next(run for run in RUNS if run.experiment == "table-8")
    path = find_folder(run) / paths.method_metrics("fuzzyclip", "visa")
    write_facts(path, tested={"source": "official", "complete": False})
    result = CliRunner().invoke(command.app, ["verify"])
    assert result.exit_code == 1
    assert "all of the data" in result.stderr


def test_expectations_that_fit_nothing_are_refused():
    doubt = EXPECTED.doubts[0].model_copy(update={"labels": ["APRIL"]})
    stale = EXPECTED.model_copy(update={"doubts": [doubt]})
    with pytest.raises(CatalogError, match=r"no printed number fits .*APRIL"):
        collect_facts(CATALOG, stale)
    without = {k: v for k, v in EXPECTED.tolerances.items() if k != "untrained"}
    with pytest.raises(CatalogError, match="'precise' stands in 0 of the tolerances' rows"):
        collect_facts(CATALOG, EXPECTED.model_copy(update={"tolerances": without}))
