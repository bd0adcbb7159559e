"""The text cache gives the tower's own bits, asks it once a string, and survives its file."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from backbones import save_weights
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from safetensors import SafetensorError

from fuzzyclip.clip import text_cache
from fuzzyclip.clip.encoding import encode_text
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.prompts import PromptTooLongError
from fuzzyclip.clip.text_cache import TextCache
from fuzzyclip.method import VARIANTS
from fuzzyclip.method.csp import compute_points
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.efa_training import encode_targets
from fuzzyclip.method.fuzzyclip import FuzzyClip, join_parts
from fuzzyclip.method.interface import Target

PROMPTS = ["a photo of a bottle.", "pcb1 without flaw", "object", "x", "a photo of a bottle."]


@pytest.fixture
def cache(tiny, tmp_path):
    return TextCache(tmp_path / "deep" / "texts", tiny)


@pytest.fixture
def passes(tiny):
    """Sets of distinct token rows, one a pass of the tower; holes repeat a row of their pass."""
    seen = []

    def keep(_, given, __):
        seen.append({tuple(row.tolist()) for row in given[0]})

    hook = tiny.text_tower.module.token_embedding.register_forward_hook(keep)
    yield seen
    hook.remove()


def count(passes):
    return sum(map(len, passes))


def test_what_is_kept_is_what_the_tower_gives(cache, tiny, passes):
    expected = encode_text(tiny, PROMPTS)
    passes.clear()
    assert torch.equal(cache.encode(PROMPTS), expected)
    assert count(passes) == 4  # two of the five are equal
    passes.clear()
    again = TextCache(cache.path.parent, tiny)
    assert torch.equal(again.encode(PROMPTS[::-1]), expected.flip(0))
    assert not passes
    assert torch.equal(again.encode(["new", *PROMPTS])[1:], expected)
    assert count(passes) == 1
    assert again.encode([]).shape == (0, tiny.embed_dim)


@try_examples(20)
@given(st.lists(st.lists(st.text(max_size=12), max_size=6), min_size=1, max_size=4))
def test_no_history_changes_a_bit(tiny, tmp_path_factory, history):
    folder = tmp_path_factory.mktemp("cache")
    for prompts in history:
        assert torch.equal(TextCache(folder, tiny).encode(prompts), encode_text(tiny, prompts))


def test_a_long_prompt_is_refused_and_nothing_kept(cache, passes):
    with pytest.raises(PromptTooLongError):
        cache.encode(["nut", "a " * 80])
    cache.encode(["nut"])
    assert count(passes) == 1


def test_only_what_the_text_tower_depends_on_separates_features(tiny, load_tiny, tmp_path):
    path = tmp_path / "weights.safetensors"
    sha256 = save_weights(tiny, path)

    def name_file(**changes):
        backbone = load_tiny(weights=path, **{"sha256": sha256} | changes)
        return TextCache(tmp_path, backbone).path.name

    own = name_file()
    assert name_file(blocks=(2,)) == name_file(image_size=48) == own
    assert name_file(mean=(0.1, 0.2, 0.3), position_embedding="bilinear") == own
    assert name_file(activation="quickgelu") != own != name_file(precision="bfloat16")
    # random weights are drawn after the image tower's: another image size, another text tower
    drawn = [TextCache(tmp_path, load_tiny(image_size=size)).path for size in (32, 48)]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("part", ["config", "weights_sha256", "vocabulary_sha256"])
def test_another_model_shares_nothing(tiny, tmp_path, part):
    changed = {"config": tiny.identity["config"] | {"quick_gelu": True}}.get(part, "other")
    other = replace(tiny, identity=tiny.identity | {part: changed})
    assert TextCache(tmp_path, other).path != TextCache(tmp_path, tiny).path


def test_damage_anywhere_is_named_and_never_taken_for_a_feature(cache, tiny, caplog):
    prompts = [f"nut {number}" for number in range(40)]
    expected = cache.encode(prompts)
    whole, rng = cache.path.read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        start = rng.randrange(len(damaged))
        damaged[start : start + rng.choice((1, 8, 900))] = rng.randbytes(1)
        cache.path.write_bytes(damaged)
        assert torch.equal(TextCache(cache.path.parent, tiny).encode(prompts), expected)
        assert cache.path.read_bytes() == whole  # made anew
    cache.path.write_bytes(b"")
    assert torch.equal(TextCache(cache.path.parent, tiny).encode(prompts), expected)
    assert f"{cache.path} is broken" in caplog.text


def test_a_place_where_no_file_can_be_only_costs_time(cache, tiny, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    cache.path.mkdir(parents=True)
    for other in (cache, TextCache(tmp_path / "file", tiny)):
        assert torch.equal(other.encode(PROMPTS), encode_text(tiny, PROMPTS))
        assert f"text cache {other.path}: " in caplog.text
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_full_disk_and_a_lock_that_another_holds_only_cost_time(cache, tiny, monkeypatch):
    monkeypatch.setattr(text_cache, "PATIENCE", 0.05)
    cache.path.parent.mkdir(parents=True)
    with FileLock(cache.path.with_suffix(".lock")):
        assert torch.equal(cache.encode(PROMPTS), encode_text(tiny, PROMPTS))
    assert not cache.path.exists()

    def fill(*_):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(text_cache, "write_tensors", fill)
    assert torch.equal(cache.encode(["new"]), encode_text(tiny, ["new"]))


def test_many_writers_at_once(cache, tiny, passes):
    groups = [[f"nut {number}" for number in range(start, start + 30)] for start in range(6)]
    expected = [encode_text(tiny, group) for group in groups]
    folder = cache.path.parent
    with ThreadPoolExecutor(6) as pool:
        encoded = list(pool.map(lambda group: TextCache(folder, tiny).encode(group), groups))
    assert all(map(torch.equal, encoded, expected))
    passes.clear()
    for group, embeds in zip(groups, expected, strict=True):
        assert torch.equal(cache.encode(group), embeds)
    assert not passes


def test_no_string_reaches_the_tower_twice_in_all_stages(tiny, tmp_path, passes):
    """What csp, efa, rpl and evaluate encode, one after the other, in one folder."""
    names, clusters = ["nut", "cable", "grid"], [["nut", "cable"], ["grid"]]

    def start():
        return NameEncoder(tiny, TextCache(tmp_path / "texts", tiny).encode)

    for points in ("normal", "both", "bare"):
        compute_points(start(), names, points, lambda: None)
    for cluster in clusters:
        encode_targets(start(), "object", cluster, None)
        encode_targets(start(), "stacked", cluster, None)
    start()(names)  # what rpl does
    heads = Heads(len(tiny.blocks), tiny.vision_width, tiny.embed_dim).state_dict()
    learned = join_parts(
        {"names": names, "clusters": [{"names": cluster} for cluster in clusters]},
        {f"cluster{number}.{k}": v for number in range(2) for k, v in heads.items()},
        {"text_embed": torch.eye(2, tiny.embed_dim)},
        14.0,
    )
    method = FuzzyClip(variants=tuple(VARIANTS))
    for category in ("nut", "bolt"):
        method.build_variants(start(), Target(category, ["nut", "bolt"]), learned)
    prompts = [prompt for group in passes for prompt in group]
    assert len(prompts) == len(set(prompts)) > 9 * 420
