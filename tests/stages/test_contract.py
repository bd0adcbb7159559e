"""What dvc.yaml, params.yaml, README and the code say of one another; each asks for "at least"."""

import re
from pathlib import Path

import pytest
import yaml
from imports import REGISTRIES, ROOT, close, list_external, list_imports

from fuzzyclip.baselines.registry import BASELINES, build_method, list_settings
from fuzzyclip.datasets import REGISTRY as DATASETS
from fuzzyclip.evaluation.category import COLUMNS
from fuzzyclip.report.tables import is_paper_setting
from stages.params import read_params, resolve
from stages.schema import Params
from stages.yaml_file import parse_yaml

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
README = (ROOT / "README.md").read_text()
PIPELINE_PAGE = (ROOT / "docs/pipeline.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
DATA_PAGE = (ROOT / "docs/datasets.md").read_text()
HOUSE = (ROOT / "docs/architecture.md").read_text()
PAPERS = ("mvtec", "visa", "btad", "mpdd", "dagm", "sdd", "dtd")
#: Reached by stages, and no dependency of any: files, threads and ranges; the same work on Ray.
CARELESS = ("fuzzyclip/utils", "fuzzyclip/distributed", "fuzzyclip/__init__.py", *REGISTRIES)
#: Reads params.yaml, finds files and starts stages: followed by nobody.
FRAME = {
    f"stages/{name}.py" for name in ("params", "paths", "run", "schema", "values", "yaml_file")
}
#: What a stage reaches and does not depend on, with the reason.
APART = {
    # features are bound to their kind's version; what else a method does changes none of them
    "views": {"fuzzyclip/method"},
    # real archives are not fetched again for it; KolektorSDD's cut is stored without loss
    "download": {"fuzzyclip/images"},
    # archives have the same names whatever is changed in how they are fetched
    "sample": {"fuzzyclip/datasets", "fuzzyclip/images"},
    # what is recorded is a result that is there
    "track": {"fuzzyclip"},
    "baselines": {"fuzzyclip"},
}
#: What of the library may know the tracker, DVC or YAML.
LIBRARY_KNOWS = {
    "fuzzyclip/model/fetched.py": {"mlflow"},
    "fuzzyclip/deploy/mlflow_model.py": {"mlflow"},
    "fuzzyclip/deploy/pyfunc.py": {"mlflow"},
}


def body(name):
    return STAGES[name].get("do", STAGES[name])


def module_of(name):
    """The module that a stage runs."""
    return body(name)["cmd"].removeprefix("python -m ").replace(".", "/") + ".py"


def list_keys(name):
    """Keys of a stage as params.yaml has them, with their values; one that is empty for none."""
    each = STAGES[name].get("foreach")
    if each is None:
        return {"": None}
    return yaml.safe_load((ROOT / "params.yaml").read_text())[each[2:-1]]


def fill(text, key, item):
    """A dependency with its key and item, as DVC fills them in."""
    for name, value in item.items() if isinstance(item, dict) else ():
        text = text.replace("${item." + name + "}", str(value))
    return text.replace("${key}", key).replace("${item}", str(item))


def list_code(name, key, item):
    """Modules and packages of ours that an instance of a stage depends on."""
    deps = [fill(dep, key, item) for dep in body(name)["deps"]]
    return {dep for dep in deps if dep.startswith(("fuzzyclip/", "stages/"))}


def is_covered(module, places):
    return any(module == place or module.startswith(f"{place}/") for place in places)


def reach(name, key, item):
    """All that an instance reaches, its own dataset's or method's module included."""
    own = [
        f"fuzzyclip/{package}/{word}{end}"
        for word in filter(None, (key, item.get("kind") if isinstance(item, dict) else item))
        for package, end in (("datasets", ".py"), ("baselines", "/__init__.py"))
        if (ROOT / f"fuzzyclip/{package}/{word}{end}").is_file() and is_keyed(name, package)
    ]
    return close(module_of(name), *own, stop=FRAME)


def is_keyed(name, package):
    """Whether a stage's key or item names a module of a package."""
    return any(f"fuzzyclip/{package}/${{" in dep for dep in body(name)["deps"])


@pytest.mark.parametrize("name", STAGES)
def test_every_module_that_is_reached_is_a_dependency(name):
    """Stages' own helpers pass files on; another stage's module that is used is depended on."""
    apart = (*CARELESS, *APART.get(name, ()))
    for key, item in list_keys(name).items():
        code, reached = list_code(name, key, item), reach(name, key, item)
        library = {module for module in reached if module.startswith("fuzzyclip/")}
        stages = {module_of(other) for other in STAGES} & reached
        missing = [m for m in {*library, *stages} if not is_covered(m, (*code, *apart))]
        missing = [module for module in missing if not module.endswith("/__init__.py")]
        assert not missing, f"{name}@{key} reaches {sorted(missing)}"
        assert not [dep for dep in code if not (ROOT / dep).exists()]
        idle = [dep for dep in code if not any(is_covered(m, [dep]) for m in reached)]
        idle = [dep for dep in idle if not dep.endswith((".yaml", "baselines/shared"))]
        assert not idle, f"{name}@{key} does not reach {idle}"


def test_what_is_touched_often_reruns_nothing_that_is_dear():
    """Drawing toys never fetches; pages and tables never train; looking never encodes."""
    dear = ("download", "features", "csp", "efa", "rpl", "train")
    for name in dear:
        code = body(name)["deps"]
        for package in ("report", "evaluation", "sample", "model", "deploy", "cli", "health"):
            assert f"fuzzyclip/{package}" not in code, (name, package)
    assert not [dep for dep in body("download")["deps"] if dep.startswith("fuzzyclip/images")]
    assert "fuzzyclip/datasets" not in [dep for name in STAGES for dep in body(name)["deps"]]


def test_a_forced_partition_or_another_metric_retrains_no_more_than_it_must():
    """Clusters decide the layers and no prompts; what is shown and how decides no model."""
    trained = ("features", "auxiliary", "csp", "efa", "rpl", "package", "train")

    def list_readers(section):
        params = {name: [str(param) for param in body(name)["params"]] for name in trained}
        return [name for name in trained if {section} & {p.split(".")[0] for p in params[name]}]

    assert (list_readers("csp"), list_readers("evaluation")) == (["csp"], [])
    assert "models/${key}/partition.json" in body("efa")["deps"]
    assert not [dep for dep in body("rpl")["deps"] if dep.startswith("models/")]
    assert set(body("evaluate")["params"]) >= {"evaluation", "efa.test"}


def test_the_house_is_small_enough():
    """dvc.yaml is read as the architecture; each line of dvc.lock is written after each stage."""
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 350
    lock = (ROOT / "dvc.lock").read_text()  # grows with each dataset and method of one's own
    assert len(lock.splitlines()) <= 100 * len(parse_yaml(lock, "dvc.lock")["stages"])


def test_params_hold_every_setting_of_every_method():
    """At least those of the paper's tables; one's own may stand beside them."""
    params = read_params(ROOT / "params.yaml")
    assert {*BASELINES} <= {*params.methods}
    for name, block in params.methods.items():
        known = list_settings(name)
        assert set(known) >= set(block.settings), name
        for key in set(known) & set(block.settings) if name in BASELINES else ():
            chosen = resolve(block.settings, "visa", "official", f"methods.{name}")[key]
            plain = chosen if chosen is not None else known[key]
            assert build_method(name, {key: plain}) == build_method(name), f"{name}.{key}"
        if name in BASELINES:
            assert set(known) == set(block.settings), name


@pytest.mark.parametrize("name", STAGES)
def test_commands_run_the_snapshots_code(name):
    """A console script or a path would run the live checkout inside a queued experiment."""
    assert re.fullmatch(r"python -m stages\.[a-z_]+", body(name)["cmd"])  # a shell reads it
    assert body(name)["desc"].strip()


def test_what_is_named_by_keys_waits_until_they_are_checked():
    """A key that is a path must be refused before DVC removes what it leads to."""
    (checked,) = STAGES["check"]["outs"]
    made = {out: name for name in STAGES for out in list_outs(name)}
    for name in (name for name in STAGES if "foreach" in STAGES[name]):
        waits, todo = set(), [name]
        while todo:
            deps = body(todo.pop())["deps"]
            if checked in deps:
                break
            before = {made[dep] for dep in deps if dep in made} - waits
            waits |= before
            todo += before
        else:
            pytest.fail(f"{name} does not wait for {checked}")
    recipes = re.findall(r"^(repro|methods): .*\n\tpython -m stages.check$", MAKEFILE, flags=re.M)
    assert recipes == ["repro", "methods"]


def list_outs(name):
    """Outputs of a stage, and the folders that they lie in."""
    made = [out for kind in ("outs", "metrics", "plots") for out in body(name).get(kind, [])]
    outs = [next(iter(out)) if isinstance(out, dict) else out for out in made]
    folders = [str(Path(out).parent) for out in outs if "$" in out]
    return [*outs, *folders]


def test_library_knows_no_stage_and_no_tracker():
    for path in (ROOT / "fuzzyclip").rglob("*.py"):
        module = path.relative_to(ROOT).as_posix()
        ours = list_imports(module)
        assert not [name for name in ours if name.startswith(("stages/", "tools/", "benchmarks/"))]
        known = list_external(module) & {"mlflow", "dvc", "yaml"}
        assert known <= LIBRARY_KNOWS.get(module, set()), module


#: The packages in the order of the flow: each knows those before it.
FLOW = ("utils", "images", "datasets", "sample", "clip", "towers", "engines", "features",
        "method", "baselines", "evaluation", "report", "model", "deploy", "distributed", "health",
        "cli")  # fmt: skip


def test_packages_know_those_before_them_alone():
    folders = {path.name for path in (ROOT / "fuzzyclip").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(FLOW)
    assert [p.name for p in (ROOT / "fuzzyclip").glob("*.py")] == ["__init__.py"]
    for path in (ROOT / "fuzzyclip").rglob("*/*.py"):
        module = path.relative_to(ROOT).as_posix()
        own = FLOW.index(module.split("/")[1])
        later = [name for name in list_imports(module) if name.count("/") > 1]
        later = [name for name in later if FLOW.index(name.split("/")[1]) > own]
        assert not later, f"{module} knows {later}"


def test_only_the_last_stage_knows_the_tracker():
    rooms = {"stages/track.py", "stages/tracking/runs.py", "stages/tracking/store.py"}
    for path in (ROOT / "stages").rglob("*.py"):
        module = path.relative_to(ROOT).as_posix()
        assert ("mlflow" in list_external(module)) == (module in rooms), module


@pytest.mark.parametrize("name", ["track", "baselines"])
def test_tracking_stages_have_no_outs(name):
    """DVC would restore them from its cache and record nothing."""
    assert not {"outs", "metrics", "plots"} & set(STAGES[name])


def test_raw_data_is_never_pushed():
    assert {"data/raw/${key}": {"push": False}} in body("download")["outs"]


#: Run again where others come from the run cache: they take seconds.
QUICK = ("report", "method_tables")


def test_what_stages_make_is_ignored_by_git_or_tracked_by_git():
    """DVC keeps no run of a stage in its run cache that has `outs` outside of its cache."""
    ignored = (ROOT / ".gitignore").read_text().split()
    for name in STAGES:
        for kind in ("outs", "metrics", "plots"):
            for out in body(name).get(kind, []):
                path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
                kept = options.get("cache") is False
                assert (f"/{Path(path).parts[0]}/" in ignored) == (not kept), path
                assert kept or kind == "outs", path
                assert not kept or kind != "outs" or name in QUICK, path
                assert (options.get("template") == "none") == (kind == "plots"), path


def test_pages_name_stages_and_parameters_that_exist():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key in re.findall(r"-S ['\"]?([a-z_0-9.]+)=", README):
        value = params
        for part in key.split("."):
            assert part in value, f"README sets {key}, which params.yaml does not have"
            value = value[part]
    for stage in STAGES:
        assert f"| `{stage}` |" in PIPELINE_PAGE, f"docs/pipeline.md does not name {stage}"
    for target in re.findall(r"^make ([a-z-]+)", README, flags=re.M):
        assert re.search(rf"^{target}:", MAKEFILE, flags=re.M), target


def test_the_papers_setting_in_the_readme_is_valid_and_is_the_papers():
    (command,) = re.findall(r"^dvc exp run (.*vit_l_14_336.*)$", README, flags=re.M)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in re.findall(r"-S ([a-z_0-9.]+)=(\S+)", command):
        *parents, last = key.split(".")
        target = params
        for parent in parents:
            target = target[parent]
        target[last] = yaml.safe_load(value)
    valid = Params.model_validate(params)
    tested = {name: {"complete": True} for name in valid.datasets}

    def is_papers(run, tested):
        clip = run.backbones[run.backbone]
        return is_paper_setting(run.data.source, clip, run.pairs, tested)

    assert is_papers(valid, tested)
    assert not is_papers(valid, tested | {"sdd": {"complete": False}})
    assert not is_papers(read_params(ROOT / "params.yaml"), tested)


def test_the_data_page_says_what_the_code_holds():
    for name in PAPERS:
        assert f"| `{name}` |" in DATA_PAGE
        assert DATASETS[name].archives[0].filename in DATA_PAGE
        for protocol in DATASETS[name].protocols:
            assert f"`{protocol}`" in DATA_PAGE, (name, protocol)


def test_the_block_for_own_images_is_valid():
    """The block on the data page, put into params.yaml as it stands there."""
    (block,) = re.findall(r"```yaml\n(.*?)```", DATA_PAGE, flags=re.S)
    added = yaml.safe_load(block)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section in ("datasets", "pairs"):
        params[section] |= added[section]
    valid = Params.model_validate(params)
    assert set(added["datasets"]["parts"]) == set(params["datasets"]["mvtec"])
    assert valid.pairs["parts"] == "visa"


def test_the_page_of_the_house_names_what_there_is():
    """A name alone, `efa.py`, lies in the folder of the path before it."""
    quoted = " ".join(re.findall(r"`([^`\n]+)`", HOUSE))
    places = re.findall(r"(?:fuzzyclip|stages|tools|benchmarks|tests)/[\w./]+|\b\w+\.py\b", quoted)
    folder = Path()
    for place in places:
        path = Path(place) if "/" in place else folder / place
        assert (ROOT / path).exists(), f"docs/architecture.md names {path}"
        folder = path.parent
    assert len(places) > 30
    packages = {path.name for path in (ROOT / "fuzzyclip").iterdir() if path.is_dir()}
    unnamed = [name for name in packages - {"__pycache__"} if f"{name}`" not in HOUSE]
    assert not unnamed, f"docs/architecture.md has no place for {unnamed}"


def test_the_glossarys_words_are_those_of_the_tables():
    glossary = (ROOT / "docs/glossary.md").read_text()
    words = {
        word for line in re.findall(r"^\| (.*?) \|", glossary, re.M) for word in line.split(", ")
    }
    assert {"variant", "category", "normal", "anomalous"} <= words & {*COLUMNS}
    assert not {"good", "bad", "row"} & {*words, *COLUMNS}
