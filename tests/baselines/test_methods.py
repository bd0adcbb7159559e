"""Every method through the one interface: features, training, maps and scores on a small CLIP."""

import json
import re
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from drawn_embeds import hold_images
from tiny_models import TINY

from fuzzyclip import baselines
from fuzzyclip.baselines.registry import (
    BASELINES,
    BEYOND,
    METHODS,
    build_method,
    list_settings,
    read_settings,
)
from fuzzyclip.clip.encoding import encode_text
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.prompts import PromptTooLongError
from fuzzyclip.method import training
from fuzzyclip.method.interface import Target, Trained
from fuzzyclip.method.scorer import score_batch
from fuzzyclip.utils.settings import TextSettings

#: What makes a training short, and stands for SAA+'s models, which are read from folders.
SHORT = {"epochs": 1, "batch_size": 2, "tiny_seed": 0}
TRAINED = ("april_gan", "sdp_plus", "coop", "cocoop", "anomaly_clip")
LEARNING_PROMPTS = ("coop", "cocoop", "anomaly_clip")
#: Of the numbers among settings, those that may be 0.
MAY_BE_ZERO = {
    *("sigma", "factor", "pixel_weight", "strength", "deep_tokens"),
    *("box_threshold", "text_threshold", "mosaic", "own_image"),
}
#: Those whose published form has known faults.
TWO_FORMS = ("winclip", "clip_surgery", "sdp", "sdp_plus", "anomaly_clip", "saa")


def make(name, **settings):
    short = {key: SHORT[key] for key in SHORT if key in list_settings(name)}
    return build_method(name, short | settings)


@pytest.fixture(scope="module")
def encode(tiny):
    return NameEncoder(
        tiny, lambda prompts: encode_text(tiny, prompts), TextSettings(ensemble="single")
    )


def make_set(method, backbone):
    """Four images, two of them with a defect."""
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(4, 32, 32, dtype=torch.bool)
    masks[2:, 4:20, 4:20] = True
    return hold_images(*method.kind.encode(backbone, pixels), masks, ["nut", "bolt"] * 2)


def test_methods_of_one_kind_share_their_features_and_have_titles_of_their_own():
    methods = [make(name) for name in BASELINES]
    assert len({method.title for method in methods}) == len(methods)
    assert tuple(method.name for method in methods if method.trains) == TRAINED
    kinds = {}
    for method in methods:
        kinds.setdefault(method.kind, []).append(method.name)
    assert {kind.name: names for kind, names in kinds.items()} == {
        "tokens": ["clip", "clip_ac", "april_gan", "coop", "cocoop"],
        "windows": ["winclip"],
        "vv": ["clip_surgery", "anomaly_clip"],
        "sdp-late": ["sdp", "sdp_plus"],
        "pixels": ["saa"],
    }


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in BASELINES),
        ("text_free", {}),
        ("fuzzyclip_plus", {"mosaic": 0.0}),  # mosaics are made of image files
        *((name, {"as": "mended"}) for name in TWO_FORMS),
        ("anomaly_clip", {"taps": (6, 12, 18, 24), "as": "mended"}),
    ],
)
def test_a_method_goes_from_images_to_maps_and_scores(name, settings, encode, pixels):
    method, backbone = make(name, **settings), encode.backbone
    images, model = make_set(method, backbone), backbone.model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    learned = method.fit(encode, images, seed=3)
    assert bool(learned.tensors) == bool(learned.curve) == method.trains
    again = method.fit(encode, images, seed=3, checkpoint=None)
    assert again.curve == learned.curve
    assert all(torch.equal(value, again.tensors[key]) for key, value in learned.tensors.items())
    assert not any(value.requires_grad for value in learned.tensors.values())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    image_embed, tokens = method.kind.encode(backbone, pixels)
    assert image_embed.shape == (3, method.kind.classes * backbone.embed_dim)
    assert (len(tokens), tokens.ndim) == (3, 4)
    ((variant, scorer),) = method.build_variants(encode, Target("gear"), learned).items()
    assert variant == name
    scores = score_batch(scorer, tokens, image_embed, backbone, method.sigma)
    assert (scores.maps.shape, scores.image_scores.shape) == ((3, 32, 32), (3,))
    assert scores.image_scores.std() > 0
    for row in range(3):  # an image's numbers are its own, whatever it is scored with
        alone = score_batch(
            scorer, tokens[row : row + 1], image_embed[row : row + 1], backbone, method.sigma
        )
        assert np.allclose(alone.maps[0], scores.maps[row], atol=1e-4)
        assert np.allclose(alone.image_scores[0], scores.image_scores[row], atol=1e-4)
    scorer = method.build(encode, "brush", learned)
    other = score_batch(scorer, tokens, image_embed, backbone)
    agnostic = name in ("anomaly_clip", "text_free")
    assert np.allclose(other.image_scores, scores.image_scores, atol=1e-7) == agnostic


def test_no_method_imports_the_folder_of_another():
    folder = Path(baselines.__file__).parent
    for name in (*BASELINES, *BEYOND):
        text = "".join(path.read_text() for path in (folder / name).rglob("*.py"))
        imported = set(re.findall(r"fuzzyclip\.baselines\.(\w+)", text))
        assert imported <= {name, "shared"}, name
    shared = "".join(path.read_text() for path in (folder / "shared").glob("*.py"))
    assert set(re.findall(r"fuzzyclip\.baselines\.(\w+)", shared)) == {"shared"}


@pytest.mark.parametrize("setting", ["lerning_rate", "title"])
@pytest.mark.parametrize("name", [*BASELINES, *BEYOND])
def test_unknown_settings_are_refused_by_name(name, setting):
    with pytest.raises(ValueError, match=rf"{name} has no setting {setting}"):
        build_method(name, {setting: 1})


@pytest.mark.parametrize("name", sorted({*BASELINES} - {"anomaly_clip", "saa"}))
def test_a_name_that_fits_no_prompt_is_refused(name, encode):
    method, long = make(name), "nut " * 80
    images = make_set(method, encode.backbone)
    learned = method.fit(encode, images, 0)
    with pytest.raises(PromptTooLongError, match="does not fit"):
        method.build(encode, long, learned)
    if method.trains:
        with pytest.raises(PromptTooLongError, match="does not fit"):
            method.fit(encode, replace(images, names=[long] * 4), 0)


TIMM = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear"}
OTHER_TOWERS = [
    TINY["vision_cfg"] | {"pool_type": "avg"},
    TINY["vision_cfg"] | {"attentional_pool": True},
    TIMM | {"image_size": 32},
]


@pytest.mark.parametrize(
    ("name", "message", "vision"),
    [
        *(("winclip", "reads a window by its class token", vision) for vision in OTHER_TOWERS),
        *(("sdp", "is defined for open_clip's own ViT", vision) for vision in OTHER_TOWERS),
        ("clip_surgery", "open_clip's own ViT", TINY["vision_cfg"] | {"block_type": "custom"}),
    ],
)
def test_a_tower_in_which_a_kind_is_not_defined_is_refused(
    name, message, vision, load_tiny, tmp_path
):
    path = tmp_path / "model.json"
    custom = {"custom_text": "timm_model_name" in vision}
    path.write_text(json.dumps(TINY | {"vision_cfg": vision} | custom))
    with pytest.raises(ValueError, match=message):
        make(name).kind.encode(load_tiny(path), torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("name", LEARNING_PROMPTS)
def test_prompts_are_not_learned_without_images_or_where_no_end_is_read(name, encode, monkeypatch):
    method = make(name)
    images = make_set(method, encode.backbone)
    none = replace(images, image_embed=torch.zeros(0, 32), labels=images.labels[:0], names=[])
    with pytest.raises(ValueError, match="at least one training image"):
        method.fit(encode, none, 0)
    monkeypatch.setattr(type(encode.backbone.text_tower), "reads_end", False)
    with pytest.raises(ValueError, match="prompts can not be learned with this model"):
        method.fit(encode, images, 0)


@pytest.mark.parametrize(
    "name",
    ["patchcore", "shared", "registry", "__init__", "", "../x", "os.path", "saa.parts", ".clip"],
)
def test_what_is_no_method_is_refused_with_a_list_of_those_there_are(name):
    message = rf"no method {name!r}; there are fuzzyclip, clip, .* saa, and any other .* METHOD = "
    for use in (build_method, list_settings):
        with pytest.raises(ValueError, match=message):
            use(name)


def test_a_method_whose_folder_lacks_a_package_says_which(monkeypatch, tmp_path):
    (tmp_path / "needy").mkdir()
    (tmp_path / "needy/__init__.py").write_text("import no_such_package\n")
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        build_method("needy")


@pytest.mark.parametrize("name", [*BASELINES, *BEYOND])
def test_every_default_may_be_written_in_yaml(name):
    settings = list_settings(name)
    read = yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(settings))))
    assert build_method(name, read) == build_method(name)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("coop", "epochs: 2.5", "coop: epochs must be a whole number, not 2.5"),
        ("coop", "epochs: true", "coop: epochs must be a whole number, not True"),
        ("sdp_plus", "learning_rate: 1e-4", "must be a number .*1.0e-4.*, not '1e-4'"),
        ("clip", "sigma: null", "clip: sigma must be a number .* not None"),
        ("winclip", "unit_prompts: 1", "unit_prompts must be true or false, not 1"),
        ("clip_surgery", "taps: 24", "clip_surgery: taps must be a list, not 24"),
        ("clip_surgery", "taps: [3]", "after blocks 6 to 24"),
        ("anomaly_clip", "taps: []", "after blocks 6 to 24"),
        ("anomaly_clip", "taps: [last]", r"taps \['last'\]"),
        ("winclip", "underscore: 3", "underscore"),
        ("april_gan", "mosaic: 1.5", "april_gan: mosaic must be from 0 to 1"),
        *((name, "as: fixed", f"{name}: as must be published or mended") for name in TWO_FORMS),
        ("cocoop", "init: [a, photo]", "init must be a text, empty for random words, not"),
    ],
)
def test_settings_of_another_type_are_refused_in_words(name, settings, message):
    with pytest.raises(ValueError, match=message):
        build_method(name, yaml.safe_load(settings))


@pytest.mark.parametrize("name", [*BASELINES, *BEYOND])
def test_numbers_that_nobody_means_are_refused_by_their_name(name):
    """Every number of every method, so that a new setting is tried by itself."""
    settings = list_settings(name)
    numbers = [key for key, value in settings.items() if type(value) in (int, float)]
    assert "sigma" in numbers
    for key in numbers:
        whole = type(settings[key]) is int
        refused = (10**18, -(10**18), -1) if whole else (inf, -inf, nan, 1e308, -1e308, -1.0)
        for value in refused if key in MAY_BE_ZERO else (*refused, 0):
            with pytest.raises(ValueError, match=rf"\b{key}\b"):
                build_method(name, {key: value})


@pytest.mark.parametrize("value", [inf, -inf, nan, 1e308, 0.0])
def test_such_numbers_inside_of_other_settings_are_refused(value):
    with pytest.raises(ValueError, match=r"test_density.*eps"):
        build_method("sdp", {"test_density": [value, 15]})
    with pytest.raises(ValueError, match=r"train_density.*eps"):
        build_method("sdp_plus", {"train_density": [value, 15]})
    with pytest.raises(ValueError, match="area"):
        build_method("saa", {"prompts": {"nut": {"area": value}}})


def test_whole_numbers_are_numbers_and_lists_are_tuples():
    settings = yaml.safe_load("{as: mended, sigma: 4, taps: [12, 24]}")
    method = build_method("anomaly_clip", settings)
    assert (method.sigma, method.taps) == (4, (12, 24))


def test_the_form_is_a_setting_by_the_name_as_of_the_methods_with_known_faults():
    assert tuple(name for name in BASELINES if "as" in list_settings(name)) == TWO_FORMS
    for name in TWO_FORMS:
        assert build_method(name).published
        mended = build_method(name, {"as": "mended"})
        assert not mended.published
        settings = read_settings(mended)
        assert settings["as"] == "mended"
        assert settings.keys() == list_settings(name).keys()
        assert build_method(name, settings) == mended


class Killed(RuntimeError):
    """Stands for a kill in the middle of a training."""


@pytest.mark.parametrize("name", [*TRAINED, "text_free"])
def test_a_killed_training_ends_with_the_same_bits(name, encode, tmp_path, monkeypatch):
    method = build_method(name, {"epochs": 4, "batch_size": 2})  # 8 steps
    images, checkpoint = make_set(method, encode.backbone), tmp_path / f"{name}.pt"
    whole = method.fit(encode, images, 3).tensors
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)  # one after every step

    def die(steps, **_):
        yield from steps[:5]
        raise Killed

    monkeypatch.setattr(training, "tqdm", die)
    with pytest.raises(Killed):
        method.fit(encode, images, 3, checkpoint)
    assert checkpoint.is_file()
    left = []
    monkeypatch.setattr(training, "tqdm", lambda steps, **_: left.extend(steps) or steps)
    resumed = method.fit(encode, images, 3, checkpoint=checkpoint).tensors
    assert len(left) == 3
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)
    other = method.fit(encode, images, 4).tensors
    assert not any(torch.equal(other[key], whole[key]) for key in whole)


def test_a_method_with_a_training_that_lacks_its_fit_is_refused():
    class Forgetful(Trained):
        build = None

    with pytest.raises(TypeError, match="fit"):
        Forgetful()


def test_fuzzyclip_is_made_by_the_same_registry():
    assert ("fuzzyclip", *BASELINES) == METHODS
    assert build_method("fuzzyclip", {"shots": [1, 2]}).shots == (1, 2)
    assert {"test", "variants", "shots"} <= set(list_settings("fuzzyclip"))
    with pytest.raises(ValueError, match="fuzzyclip has no setting words"):
        build_method("fuzzyclip", {"words": 3})


def test_other_images_are_not_looked_at_unless_they_are_given():
    with pytest.raises(ValueError, match="4 normal training images are asked for, and none are"):
        Target("nut").load_references(4)
    with pytest.raises(ValueError, match="2 images of a batch are asked for, and none are given"):
        Target("nut").batch.load([0, 1])
