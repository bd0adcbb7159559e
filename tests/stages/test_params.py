"""params.yaml: what is committed is valid, and what is wrong is refused by its key."""

import copy
from functools import reduce

import pytest
import yaml
from imports import ROOT
from pydantic import ValidationError
from schemas import SENSELESS, list_numbers, list_unbounded, put

from fuzzyclip.utils.settings import (
    CspSettings,
    EfaTest,
    EfaTraining,
    EvaluationSettings,
    RplSettings,
    TextSettings,
)
from stages.params import (
    ParamsError,
    choose_settings,
    list_declared,
    load_params,
    read_params,
    resolve,
)
from stages.schema import Params

COMMITTED = yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.fixture
def read(tmp_path):
    """Read the committed parameters with changes: dotted keys to values."""

    def read_changed(**changes):
        data = copy.deepcopy(COMMITTED)
        for key, value in changes.items():
            put(data, key.split("."), value)
        return write(tmp_path, yaml.safe_dump(data))

    return read_changed


def write(tmp_path, text):
    """Read a params.yaml that is written like this."""
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return read_params(path)


def test_the_committed_file_is_valid_and_its_defaults_are_the_papers_settings():
    params = read_params(ROOT / "params.yaml")
    assert (params.csp.penalty, params.csp.form) == (0.1, "sum")
    assert params.csp == CspSettings()
    assert params.text == TextSettings()
    assert params.evaluation == EvaluationSettings()
    for auxiliary, rate, mosaic in (("visa", 1e-3, 0.0), ("mvtec", 1e-4, 0.2)):
        settings = resolve(params.rpl, auxiliary, "official")
        assert RplSettings(**settings) == RplSettings()
        assert RplSettings(**resolve(params.rpl, auxiliary, "sample")).epochs == 5
        assert EfaTest(**resolve(params.efa.test, auxiliary, "official")) == EfaTest()
        training = EfaTraining(**resolve(params.efa.train, auxiliary, "official"))
        assert training == EfaTraining(learning_rate=rate, mosaic=mosaic)
    assert params.pairs == dict.fromkeys(params.datasets, "visa") | {"visa": "mvtec"}
    large = params.backbones["vit_l_14_336"]
    assert (large.image_size, large.blocks) == (518, (6, 12, 18, 24))


@pytest.mark.parametrize("key", ["csp.penalti", "efa.train.lr", "typo", "datasets.visa.splits"])
def test_unknown_keys_are_refused_by_name(read, key):
    with pytest.raises(ParamsError, match=rf"(?s)not valid:.*  {key}: Extra inputs"):
        read(**{key: 1})


@pytest.mark.parametrize(
    "key", ["seed", "csp", "pairs", "csp.form", "text.separator", "rpl.words", "efa.test.sigma"]
)
def test_missing_keys_are_refused_by_name(tmp_path, key):
    data = copy.deepcopy(COMMITTED)
    *sections, last = key.split(".")
    del reduce(dict.get, sections, data)[last]
    with pytest.raises(ParamsError, match=f"  {key}: Field required"):
        write(tmp_path, yaml.safe_dump(data))


HOSTILE = [
    "x; touch PWNED; echo ", "$(touch PWNED)", "`touch PWNED`", "x' ; touch PWNED ; '",
    "a\ntouch b", "", ".", "..", "../x", "a/b", "/a", "a.b", "a b", "a@b", "-m", "größe",
    "a\\b", "a\0", "a" * 65, "a\n",
]  # fmt: skip


@pytest.mark.parametrize("section", ["datasets", "auxiliary", "pairs", "backbones", "methods"])
def test_keys_are_names_of_files(tmp_path, section):
    for key in HOSTILE:
        data = copy.deepcopy(COMMITTED)
        table = data[section]
        table[key] = next(iter(table.values()))
        with pytest.raises(ParamsError, match=r"can not be a key") as caught:
            write(tmp_path, yaml.safe_dump(data, allow_unicode=True))
        assert f"  {section}.{key}: " in str(caught.value)


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("my parts", "for example my_parts"),
        ("v1.2", "for example v1_2"),
        ("a@b", "for example a_b"),
        ("../mine", "for example mine"),
        (2024, "in quotes it is, '2024'"),
    ],
)
@pytest.mark.parametrize("section", ["datasets", "auxiliary", "methods"])
def test_a_refused_key_is_told_how_to_write_it(tmp_path, section, key, advice):
    data = copy.deepcopy(COMMITTED)
    data[section][key] = next(iter(data[section].values()))
    with pytest.raises(ParamsError, match=r"can not be a key") as caught:
        write(tmp_path, yaml.safe_dump(data))
    (line,) = [line for line in str(caught.value).splitlines() if f"{section}.{key}: " in line]
    assert line.endswith(advice)


@pytest.mark.parametrize("key", ["parts", "Parts-2024", "01", "_x", "a" * 64])
def test_plain_keys_are_taken(tmp_path, key):
    data = copy.deepcopy(COMMITTED)
    data["datasets"][key] = data["datasets"]["visa"] | {"kind": "folder", "path": "/data"}
    data["auxiliary"][key] = ["visa"]
    data["backbones"][key] = data["backbones"]["sample"]
    assert key in write(tmp_path, yaml.safe_dump(data)).datasets


def test_keys_that_are_one_folder_on_some_systems_are_refused(read):
    block = COMMITTED["datasets"]["visa"]
    with pytest.raises(ParamsError, match=r"  datasets: .*[Pp]arts differ by capitals alone"):
        read(**{"datasets.parts": block, "datasets.Parts": block})


@pytest.mark.parametrize("name", ["..", "../up", "a/b", "", "a\0b"])
def test_categories_are_names_of_folders(read, name):
    with pytest.raises(ParamsError, match=r"datasets.visa.categories.0: .*is no name of a folder"):
        read(**{"datasets.visa.categories": [name]})


def test_all_faults_are_listed_at_once(read):
    with pytest.raises(ParamsError) as caught:
        read(**{"seed": -1, "rpl.depth": 0, "text.ensemble": "half"})
    assert all(key in str(caught.value) for key in ("seed", "rpl.depth", "text.ensemble"))


def test_a_number_without_a_point_is_understood(tmp_path):
    """`1e-3` is a string to PyYAML and a number to DVC."""
    text = (ROOT / "params.yaml").read_text()
    line = "learning_rate: 0.001"
    assert text.count(line) > 1
    changed = text.replace(line, "learning_rate: 1e-3")
    assert yaml.safe_load(changed)["rpl"]["learning_rate"] == "1e-3"
    params = write(tmp_path, changed)
    assert RplSettings(**resolve(params.rpl, "visa", "sample")).learning_rate == 0.001
    assert params.methods["april_gan"].settings["learning_rate"] == 0.001


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("csp.partition", 0),
        ("csp.partition", "best"),
        ("csp.penalty", -0.1),
        ("rpl.layout", "suffix"),
        ("efa.test.prompt", "cluster+test"),
        ("efa.train.mosaic", {"default": 1.5}),
        ("efa.train.learning_rate", {"default": 0}),
        ("backbones.sample.blocks", [0, 1]),
        ("features.shard_size", 1.5),
        ("machine.workers", 0),
    ],
)
def test_values_out_of_range_are_refused(read, key, value):
    with pytest.raises(ParamsError, match=key):
        read(**{key: value})


def fill():
    """The committed parameters with a number where some have none."""
    tree = copy.deepcopy(COMMITTED)
    tree["machine"]["ray"]["actors"] = 2
    tree["backbones"]["sample"] |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    tree["evaluation"]["shots"] = [1]
    tree["csp"]["partition"] = tree["rpl"]["text_weight"] = tree["efa"]["test"]["weights"] = 1
    return tree


#: A method's own settings are tried in tests/baselines/test_methods.py.
PLACES = [place for place in list_numbers(fill()) if place[0] != "methods"]


def test_every_number_of_the_schema_has_bounds():
    for model in (Params, EfaTraining, EfaTest, RplSettings):
        assert list_unbounded(model) == []


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_numbers_that_nobody_means_and_yes_and_no_are_refused_by_their_key(place):
    tree = fill()
    Params.model_validate(tree)
    for value in (*SENSELESS, "1e400", "-1e400", True, False):
        put(tree, place, value)
        with pytest.raises(ValidationError) as caught:
            Params.model_validate(tree)
        keys = [
            tuple(part for part in fault["loc"] if part in place) for fault in caught.value.errors()
        ]
        assert set(keys) == {place}


def test_yamls_own_infinity_is_refused_as_it_is_written(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    assert text.count("penalty: 0.1") == 1
    for value in (".inf", "-.inf", ".nan", "1.0e+400", "1e400", "1e308"):
        with pytest.raises(ParamsError, match=r"csp\.penalty: Input should be"):
            write(tmp_path, text.replace("penalty: 0.1", f"penalty: {value}"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"machine.runtime": "tensorrt"}, r"machine\.runtime: Input should be 'auto', 'torch', "),
        ({"machine.runtime": "onnx", "machine.compile": True}, "'onnx': compile is of PyTorch; "),
        ({"machine.runtime": "openvino", "machine.device": "cuda:1"}, "'cuda:1': it runs on the C"),
        ({"machine.runtime": "onnx", "machine.engine": "ray"}, "the engine ray runs PyTorch; take"),
    ],
)
def test_a_runtime_stands_alone(read, changes, message):
    with pytest.raises(ParamsError, match=message):
        read(**changes)
    assert read(**changes | {"machine.runtime": "auto"}).machine.runtime == "auto"
    assert read(**{"machine.runtime": "onnx", "machine.device": "cpu"}).machine.runtime == "onnx"


def test_a_model_never_meets_its_own_data(read):
    message = "auxiliary set 'visa' contains visa; a model is never evaluated on data it was"
    with pytest.raises(ParamsError, match=message):
        read(**{"pairs.visa": "visa"})
    merged = {"mvtec_mpdd": ["mvtec", "mpdd"], **COMMITTED["auxiliary"]}
    with pytest.raises(ParamsError, match=r"pairs\.mpdd: auxiliary set 'mvtec_mpdd' contains mpdd"):
        read(**{"auxiliary": merged, "pairs.mpdd": "mvtec_mpdd"})
    assert read(**{"auxiliary": merged, "pairs.visa": "mvtec_mpdd"}).pairs["visa"] == "mvtec_mpdd"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("backbone", "vit_b", "'vit_b' is not a key of backbones"),
        ("auxiliary.sample", ["visa"], r"auxiliary\.sample: in tables this key means something"),
        ("auxiliary.default", ["visa"], r"auxiliary\.default: in tables this key means"),
        ("auxiliary.visa", ["visa", "visa"], "must name distinct keys of datasets"),
        ("auxiliary.visa", [], "must name distinct keys of datasets"),
        ("auxiliary.visa", ["vsia"], "must name distinct keys of datasets"),
        ("pairs.mvtec", "vsia", "'vsia' is not a key of auxiliary"),
        ("pairs.mvtek", "visa", r"pairs\.mvtek: not a key of datasets"),
        ("evaluation.variants", ["precise", "magic"], r"evaluation\.variants\.1"),
        ("methods.my-clip", {}, "methods.my-clip: not the name of a folder"),
        ("methods.clip.features", "windos", r"clip\.features: 'windos' is no key of views"),
        ("methods.clip.tower", "vit_b", r"clip\.tower: 'vit_b' is no key of towers"),
        ("towers.openai", {"vit_b": {}}, r"towers\.openai: 'vit_b' is not a key of backbones"),
        ("towers.openai.sample", {"activation": "relu"}, r"towers\.openai\.sample\.activation"),
        ("towers.openai.sample", {"size": 3}, r"towers\.openai\.sample\.size: Extra inputs"),
        ("towers.own", {"sample": {}}, r"towers\.own: this is the run's CLIP as it is"),
        ("views.vv", "surgery", r"views\.vv: 'surgery' is not a key of methods"),
        ("views.tokens", "clip", r"views\.tokens: so the run's own features are called"),
    ],
)
def test_names_must_point_at_something(read, key, value, message):
    with pytest.raises(ParamsError, match=message):
        read(**{key: value})


def test_what_is_no_yaml_is_refused_with_its_path(tmp_path):
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        write(tmp_path, "seed: [1")
    with pytest.raises(ParamsError, match="absent"):
        read_params(tmp_path / "absent")
    with pytest.raises(ParamsError, match=r"\(whole file\)"):
        write(tmp_path, "")


@pytest.fixture
def declare(tmp_path, monkeypatch):
    """Load the committed parameters for a stage `look@sdd` that declares these."""

    def load_declared(*params, also=()):
        stages = {"look": {"foreach": "${pairs}", "do": {"params": [*params]}}}
        (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
        (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
        monkeypatch.chdir(tmp_path)
        return load_params("look", "sdd", also)

    return load_declared


def test_a_stage_sees_only_what_it_declares(declare):
    declared = "data seed csp.penalty backbones.${backbone} pairs.${key} auxiliary.${item}"
    params = declare(*declared.split(), also=["datasets.sdd"])
    assert params.data.source == COMMITTED["data"]["source"]
    assert params.seed == COMMITTED["seed"]
    assert params.csp.penalty == COMMITTED["csp"]["penalty"]
    assert params.backbones["sample"].image_size == 144
    assert params.pairs["sdd"] == "visa"
    assert params.auxiliary["visa"] == ["visa"]
    assert params.datasets["sdd"].kind == "sdd"
    assert params.machine.workers  # decides nothing about results
    for read, name in (
        (lambda: params.csp.form, r"csp\.form"),
        (lambda: params.rpl, "rpl"),
        (lambda: params.backbones["vit_l_14_336"], r"backbones\.vit_l_14_336"),
        (lambda: params.pairs["visa"], r"pairs\.visa"),
        (lambda: params.datasets["visa"], r"datasets\.visa"),  # `data` begins alike
    ):
        with pytest.raises(
            ParamsError, match=rf"reads the parameter '{name}' but does not declare"
        ):
            read()


@pytest.mark.parametrize("foreach", [["visa"], {"visa": "visa"}])
def test_keys_of_a_stage_may_be_written_out(tmp_path, monkeypatch, foreach):
    params = [{"other.yaml": ["seed"]}, "auxiliary.${item}", "pairs.${key}"]
    stages = {"look": {"foreach": foreach, "do": {"params": params}}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    monkeypatch.chdir(tmp_path)
    declared = list_declared(read_params(ROOT / "params.yaml"), "look", "visa")
    assert declared == ["auxiliary.visa", "pairs.visa"]


BLOCK = {"rate": {"visa": 1, "sample": 2, "default": 3}, "sigma": 0.5, "names": {"visa": "a"}}


@pytest.mark.parametrize(
    ("auxiliary", "source", "rate"),
    [("visa", "sample", 2), ("visa", "official", 1), ("mvtec", "sample", 2), ("x", "official", 3)],
)
def test_the_sources_entry_or_an_auxiliary_sets_or_the_default(auxiliary, source, rate):
    settings = resolve(BLOCK, auxiliary, source)
    assert settings == BLOCK | {"rate": rate}


@pytest.mark.parametrize(
    ("auxiliary", "source", "rate"),
    [("mvtec", "sample", 4), ("visa", "sample", 2), ("visa", "official", 1), ("x", "x", 3)],
)
def test_a_sources_entry_may_be_a_table_by_auxiliary_set(read, auxiliary, source, rate):
    table = {"visa": 1, "sample": {"default": 2, "mvtec": 4}, "default": 3}
    assert resolve({"rate": table}, auxiliary, source) == {"rate": rate}
    with pytest.raises(ParamsError, match=r"  efa\.train\.epochs\.sample\.mvtec: "):
        read(**{"efa.train.epochs": table | {"sample": {"default": 2, "mvtec": -1}}})


def test_a_third_table_is_refused_by_its_key(read):
    third = {"default": 1, "visa": {"default": 1, "sample": {"default": 2}}}
    assert resolve({"rate": third}, "mvtec", "sample") == {"rate": 1}
    with pytest.raises(ValueError, match=r"^methods\.coop\.rate\.visa\.sample: tables stand in"):
        resolve({"rate": third}, "visa", "sample", "methods.coop")
    with pytest.raises(ParamsError, match=r"methods\.coop: .*words\.visa\.sample: tables stand"):
        read(**{"methods.coop.words": third})
    with pytest.raises(ParamsError, match=r"  rpl: .*epochs\.3\.default: tables stand"):
        read(**{"rpl.epochs": {"default": 1, 3: {"default": {"default": 1}}}})
    with pytest.raises(ParamsError, match=r"  rpl\.epochs\.sample: .*needs the key `default`"):
        read(**{"rpl.epochs": {"default": 1, "sample": {"mvtec": 2}}})


@pytest.mark.parametrize("key", ["efa.train.epochs", "efa.test.temperature", "rpl.batch_size"])
def test_every_value_of_efa_and_rpl_may_be_a_table(read, key):
    table = {"default": 1, "visa": 2, "official": 3, "sample": 4}
    section, name = key.rsplit(".", 1)
    kind = {"efa.train": EfaTraining, "efa.test": EfaTest, "rpl": RplSettings}[section]
    unsaid = {entry: value for entry, value in table.items() if entry != "sample"}
    for written, chosen in ((table, {"visa": 4, "mvtec": 4}), (unsaid, {"visa": 2, "mvtec": 1})):
        params = read(**{key: written})
        for auxiliary, expected in chosen.items():
            assert getattr(choose_settings(kind, params, section, auxiliary), name) == expected
    for entry in table:
        for value in (-1, True, "many", {"default": {"default": 1}}):
            with pytest.raises(
                ParamsError, match=rf"  {key}\.{entry}: |{name}\.{entry}\.default: tables"
            ):
                read(**{key: table | {entry: value}})
    with pytest.raises(ParamsError, match=rf"  {key}: .*needs the key `default`"):
        read(**{key: {"sample": 5, "official": 1}})
