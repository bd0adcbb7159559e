"""dvc.yaml, the stages' modules, params.yaml, the Makefile and the README say the same."""

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml
from imports import PLUMBING, REGISTRY, ROOT, close, leave_plumbing, list_external, list_imports

from fuzzyclip.baselines.registry import METHODS as METHOD_NAMES
from fuzzyclip.baselines.registry import build_method, list_settings
from fuzzyclip.datasets import REGISTRY as DATASETS
from stages.method_code import describe
from stages.method_setup import choose_settings
from stages.params import read_params
from stages.schema import Params
from stages.setting import is_paper_setting

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
DATA_PAGE = (ROOT / "docs/datasets.md").read_text()
#: Folder of the methods, a module each.
METHODS = "fuzzyclip/baselines"
#: Modules of the datasets, one each.
KINDS = {f"fuzzyclip/datasets/{name}.py" for name in DATASETS}
#: What of tracker and configuration the library knows: a model's own card and its CLIP's
#: configuration, checked as they are read, and MLflow where a model is fetched from it or served by
#: it.
LIBRARY_KNOWS = {
    "fuzzyclip/clip/config_schema.py": {"pydantic"},
    "fuzzyclip/clip/model_configs.py": {"pydantic"},
    "fuzzyclip/model/card.py": {"pydantic"},
    "fuzzyclip/model/threshold.py": {"pydantic"},
    "fuzzyclip/model/addresses.py": {"mlflow"},
    "fuzzyclip/deploy/mlflow_model.py": {"mlflow"},
    "fuzzyclip/deploy/pyfunc.py": {"mlflow"},
    "fuzzyclip/deploy/request.py": {"pydantic"},
    "fuzzyclip/utils/schemas.py": {"pydantic"},
}
#: What of the stages may import MLflow: the last one, and what it is made of.
MLFLOW_ONLY = {
    "stages/baselines.py",
    "stages/model_log.py",
    "stages/track.py",
    "stages/tracker.py",
}


def body(name):
    return STAGES[name].get("do", STAGES[name])


def code_dependencies(name):
    """Modules and packages of ours that a stage depends on."""
    deps = body(name).get("deps", [])
    return {dep for dep in deps if dep.startswith("fuzzyclip/") or re.match(r"stages/.*py$", dep)}


def find_cover(module, listed):
    """The dependency that a module is or lies in, or None."""
    places = [module, *(path.as_posix() for path in Path(module).parents)]
    return next((place for place in places if place in listed), None)


@pytest.mark.parametrize("name", STAGES)
def test_declared_params_are_the_modules_own(name):
    declared = body(name)["params"]
    declared = [*declared[0]] if isinstance(declared[0], dict) else declared
    declared = [one.replace("${item.", "${") for one in declared]  # of a matrix
    assert list(importlib.import_module(f"stages.{name}").PARAMS) == declared


#: Its code is what `method_code` looks at.
BY_DIGEST = "method_test"


@pytest.mark.parametrize("name", [name for name in STAGES if name != BY_DIGEST])
def test_every_imported_module_is_a_dependency(name):
    reached = close(f"stages/{name}.py")
    uses_registry = REGISTRY in reached
    if uses_registry:  # what the datasets' modules share; they themselves are reached by name
        reached |= set().union(*map(close, KINDS)) - KINDS
    needed = {module for module in reached - PLUMBING if not module.endswith("__init__.py")}
    if uses_registry:  # its own dataset's module, so that another's change does not rerun it
        needed.add("fuzzyclip/datasets/${item.kind}.py")
    if name == "method_code":
        needed |= list_method_code()
    listed = code_dependencies(name)
    covers = {module: find_cover(module, listed) for module in needed}
    assert not [module for module, cover in covers.items() if cover is None]
    assert listed - set(covers.values()) <= {METHODS}
    for package in (one for one in listed - {METHODS} if not one.endswith(".py")):
        modules = [path.name for path in (ROOT / package).glob("*.py") if path.stem != "__init__"]
        used = [module for module, cover in covers.items() if cover == package]
        assert len(used) >= len(modules) / 2, f"{name} uses few modules of {package}"
    assert not [one for one in listed if find_cover(one, listed - {one})]


def list_method_code():
    """What methods and their stage reach outside the folder of methods, which is one dependency."""
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / METHODS).glob("*.py")]
    reached = close(f"stages/{BY_DIGEST}.py", *modules)
    return {one for one in leave_plumbing(reached) if not one.startswith(f"{METHODS}/")}


def test_methods_depend_on_the_digest_of_their_own_code():
    assert not code_dependencies(BY_DIGEST)
    assert "metrics/method_code/${item.method}.json" in body(BY_DIGEST)["deps"]
    for method in METHOD_NAMES:
        kept = json.loads((ROOT / f"metrics/method_code/{method}.json").read_text())
        clip = kept.pop("backbone")
        assert kept == describe(method), f"{method}: run `dvc repro method_code`"
        assert clip["key"] in read_params(ROOT / "params.yaml").backbones
        assert f"{METHODS}/{method}.py" in kept["modules"]
        others = {f"{METHODS}/{other}.py" for other in METHOD_NAMES} - {f"{METHODS}/{method}.py"}
        shared = others & set(kept["modules"])
        assert len(shared) <= 1, f"{method} reruns with {shared}"


def test_params_hold_every_setting_of_every_method():
    params = read_params(ROOT / "params.yaml")
    assert list(params.methods) == list(METHOD_NAMES)
    for name, block in params.methods.items():
        assert set(block.settings) == set(list_settings(name)), name
        for key, default in list_settings(name).items():
            chosen = choose_settings(name, block.settings, "visa", "official")[key]
            plain = chosen if chosen is not None else default
            assert build_method(name, {key: plain}) == build_method(name), f"{name}.{key}"


@pytest.mark.parametrize("name", STAGES)
def test_commands_run_the_snapshots_code(name):
    """A console script or a path would run the live checkout inside a queued experiment."""
    assert body(name)["cmd"] == f"python -m stages.{name}"  # no key: a shell would read it
    assert body(name)["desc"].strip()


def test_what_is_named_by_keys_waits_until_they_are_checked():
    """Directly: a key that is a path may have nothing else before it."""
    (checked,) = STAGES["check"]["outs"]
    named = [name for name in STAGES if "foreach" in STAGES[name] or "matrix" in STAGES[name]]
    assert len(named) == 10
    for name in (*named, "method_code"):
        assert checked in body(name)["deps"], name
    for section in ("datasets", "auxiliary", "pairs", "methods"):
        assert section in STAGES["check"]["params"]
    recipes = re.findall(r"^(repro|methods): .*\n\tpython -m stages.check$", MAKEFILE, flags=re.M)
    assert recipes == ["repro", "methods"]


def test_library_knows_no_stage_and_no_tracker():
    for path in (ROOT / "fuzzyclip").rglob("*.py"):
        module = path.relative_to(ROOT).as_posix()
        assert not [one for one in list_imports(module) if one.startswith("stages/")], module
        assert not list_external(module) & {"tools", "benchmarks"}, module
        known = list_external(module) & {"mlflow", "dvc", "yaml", "pydantic"}
        assert known <= LIBRARY_KNOWS.get(module, set()), module


def test_only_the_last_stage_knows_the_tracker():
    for path in (ROOT / "stages").glob("*.py"):
        module = path.relative_to(ROOT).as_posix()
        assert ("mlflow" in list_external(module)) == (module in MLFLOW_ONLY), module


@pytest.mark.parametrize("name", ["track", "baselines"])
def test_tracking_stages_have_no_outs(name):
    """DVC would restore them from its cache and record nothing."""
    assert not {"outs", "metrics", "plots"} & set(STAGES[name])


def test_raw_data_is_never_pushed():
    outs = body("download")["outs"]
    raw = next(out for out in outs if isinstance(out, dict) and "data/raw/${key}" in out)
    assert raw["data/raw/${key}"]["push"] is False


def test_what_stages_make_is_ignored_by_git_or_tracked_by_git():
    ignored = (ROOT / ".gitignore").read_text().split()
    for name in STAGES:
        for out in body(name).get("outs", []) + body(name).get("metrics", []):
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            top = f"/{Path(path).parts[0]}/"
            assert (top in ignored) != (options.get("cache") is False), path


def test_readme_names_stages_and_parameters_that_exist():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key in re.findall(r"-S ['\"]?([a-z_0-9.]+)=", README):
        value = params
        for part in key.split("."):
            assert part in value, f"README sets {key}, which params.yaml does not have"
            value = value[part]
    for stage in STAGES:
        assert f"`{stage}`" in README, f"README does not name the stage {stage}"
    for target in re.findall(r"^make ([a-z-]+)", README, flags=re.M):
        assert re.search(rf"^{target}:", MAKEFILE, flags=re.M), target
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / path).exists(), f"README links to {path}"


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
    assert is_paper_setting(valid, tested)
    assert not is_paper_setting(valid, tested | {"sdd": {"complete": False}})
    assert not is_paper_setting(read_params(ROOT / "params.yaml"), tested)


def test_no_file_is_too_long():
    for folder in ("fuzzyclip", "stages"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name.endswith("recipes.py"):  # tables of data
                continue
            assert len(path.read_text().splitlines()) <= 300, path


def test_committed_parameters_are_valid():
    assert set(read_params(ROOT / "params.yaml").pairs) == {
        "mvtec", "visa", "btad", "mpdd", "dagm", "sdd", "dtd"
    }  # fmt: skip


def test_the_data_page_says_what_the_code_holds():
    for name, spec in DATASETS.items():
        if spec.archives:
            assert f"| `{name}` |" in DATA_PAGE
            assert spec.archives[0].filename in DATA_PAGE
            for protocol in spec.protocols:
                assert f"`{protocol}`" in DATA_PAGE, (name, protocol)
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", DATA_PAGE):
        assert (ROOT / "docs" / path).exists(), f"docs/datasets.md links to {path}"


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
