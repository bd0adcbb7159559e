"""The text cache gives the tower's own bits, asks it once a string, and survives its file."""

import random
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from imports import ROOT
from properties import try_examples
from safetensors.torch import save_file

from fuzzyclip.clip import text_cache
from fuzzyclip.clip.encoding import encode_text
from fuzzyclip.clip.prompts import PromptTooLongError
from fuzzyclip.clip.text_cache import TextCache
from fuzzyclip.method.efa import Heads
from fuzzyclip.settings import EfaTest
from fuzzyclip.utils.files import compute_sha256
from stages import efa
from stages.clip import encode_names
from stages.csp import compute_points
from stages.params import read_params
from stages.texts import SharedTexts

PROMPTS = ["a photo of a bottle.", "pcb1 without flaw", "object", "x", "a photo of a bottle."]


@pytest.fixture
def cache(tiny, tmp_path):
    return TextCache(tmp_path / "deep" / "texts.sqlite", tiny)


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
    again = TextCache(cache.path, tiny)
    assert torch.equal(again.encode(PROMPTS[::-1]), expected.flip(0))
    assert not passes
    assert torch.equal(again.encode(["new", *PROMPTS])[1:], expected)
    assert count(passes) == 1
    assert again.encode([]).shape == (0, tiny.embed_dim)


@try_examples(20)
@given(st.lists(st.lists(st.text(max_size=12), max_size=6), min_size=1, max_size=4))
def test_no_history_changes_a_bit(tiny, tmp_path_factory, history):
    cache = TextCache(tmp_path_factory.mktemp("cache") / "texts.sqlite", tiny)
    for prompts in history:
        assert torch.equal(cache.encode(prompts), encode_text(tiny, prompts))


def test_many_strings_are_looked_up_and_kept_in_pieces(cache, tiny, passes, monkeypatch):
    monkeypatch.setattr(text_cache, "CHUNK", 7)
    monkeypatch.setattr(text_cache, "LOOKUP", 3)
    prompts = [f"{word} {number}" for word in ("nut", "big nut") for number in range(20)]
    expected = encode_text(tiny, prompts)
    for _ in range(2):
        assert torch.equal(cache.encode(prompts), expected)
    assert count(passes) == 2 * len(prompts)  # the reference's, and one


def test_a_long_prompt_is_refused_and_nothing_kept(cache, passes):
    with pytest.raises(PromptTooLongError):
        cache.encode(["nut", "a " * 80])
    cache.encode(["nut"])
    assert count(passes) == 1


def read_keys(path):
    with sqlite3.connect(path) as db:
        return {key for (key,) in db.execute("SELECT key FROM texts")}


def test_only_what_the_text_tower_depends_on_separates_features(tiny, load_tiny, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({name: one.contiguous() for name, one in tiny.model.state_dict().items()}, path)
    sha256 = compute_sha256(path)

    def store(name, **changes):
        backbone = load_tiny(weights=path, **{"sha256": sha256} | changes)
        cache = TextCache(tmp_path / name, backbone)
        assert torch.equal(cache.encode(["nut"]), encode_text(backbone, ["nut"]))
        return read_keys(cache.path)

    own = store("own")
    assert store("blocks", blocks=(2,)) == store("size", image_size=48) == own
    assert store("mean", mean=(0.1, 0.2, 0.3), position_embedding="bilinear") == own
    for name, value in (("activation", "quickgelu"), ("precision", "bfloat16")):
        assert not store(name, **{name: value}) & own


def test_random_weights_are_drawn_after_the_image_towers(tiny, load_tiny, tmp_path):
    """Another image size draws another text tower."""
    other, path = load_tiny(image_size=48), tmp_path / "texts.sqlite"
    first = TextCache(path, tiny).encode(["nut"])
    second = TextCache(path, other).encode(["nut"])
    assert torch.equal(second, encode_text(other, ["nut"]))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("part", ["config", "weights_sha256", "vocabulary_sha256"])
def test_another_model_shares_nothing(tiny, tmp_path, passes, part):
    path = tmp_path / "texts.sqlite"
    TextCache(path, tiny).encode(["nut"])
    changed = {"config": tiny.identity["config"] | {"quick_gelu": True}}.get(part, "other")
    TextCache(path, replace(tiny, identity=tiny.identity | {part: changed})).encode(["nut"])
    assert count(passes) == 2


def make_foreign(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (key)")


def make_older(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE texts (other)")
        db.execute(f"PRAGMA application_id = {text_cache.APPLICATION}")


BROKEN = {
    "no database": lambda path: path.write_bytes(b"no database at all" * 100),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "of another program": lambda path: (path.unlink(), make_foreign(path)),
    "of another format": lambda path: (path.unlink(), make_older(path)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_moved_aside_and_begun_anew(cache, tiny, passes, caplog, name):
    expected = cache.encode(PROMPTS)
    BROKEN[name](cache.path)
    before = cache.path.read_bytes()
    passes.clear()
    assert torch.equal(cache.encode(PROMPTS), expected)
    assert count(passes) == 4
    assert "moved aside" in caplog.text
    assert cache.path.with_name("texts.sqlite.broken").read_bytes() == before
    assert torch.equal(cache.encode(PROMPTS), expected)
    assert count(passes) == 4


def test_an_empty_file_is_a_new_one(cache, passes):
    cache.path.parent.mkdir()
    cache.path.touch()
    cache.encode(["nut"])
    cache.encode(["nut"])
    assert count(passes) == 1


def test_damage_anywhere_is_never_taken_for_a_feature(cache, tiny):
    prompts = [f"nut {number}" for number in range(40)]
    expected = encode_text(tiny, prompts)
    cache.encode(prompts)
    whole, rng = cache.path.read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        start = rng.randrange(len(damaged))
        damaged[start : start + rng.choice((1, 8, 900))] = rng.randbytes(1)
        cache.path.write_bytes(damaged)
        assert torch.equal(cache.encode(prompts), expected)


def test_the_feature_of_another_string_is_damage(cache, tiny, passes):
    """A damaged index leads to a whole row, but not to that of the key."""
    expected = cache.encode(["nut", "bolt"])
    with sqlite3.connect(cache.path) as db:
        (one, first), (two, second) = db.execute("SELECT key, embed FROM texts").fetchall()
        for key, embed in ((one, second), (two, first)):
            db.execute("UPDATE texts SET embed = ? WHERE key = ?", (embed, key))
    passes.clear()
    assert torch.equal(cache.encode(["nut", "bolt"]), expected)
    assert count(passes) == 2
    assert torch.equal(cache.encode(["nut", "bolt"]), expected)
    assert count(passes) == 2


def test_a_damaged_description_of_the_table_is_begun_anew(cache, passes, caplog):
    expected = cache.encode(["nut"])
    whole = cache.path.read_bytes()
    cache.path.write_bytes(whole.replace(b"(key BLOB", b"(kex BLOB"))
    passes.clear()
    for _ in range(2):
        assert torch.equal(cache.encode(["nut"]), expected)
    assert count(passes) == 1
    assert "moved aside" in caplog.text


def connect_with(pragma):
    """sqlite3.connect whose connections carry a limit."""
    connect = sqlite3.connect

    def limited(*given, **settings):
        db = connect(*given, **settings)
        db.execute(pragma)
        return db

    return limited


@pytest.mark.parametrize(
    ("pragma", "reason"),
    [("PRAGMA query_only = 1", "readonly"), ("PRAGMA max_page_count = 4", "full")],
)
def test_a_file_that_takes_nothing_only_costs_time(
    cache, tiny, passes, caplog, monkeypatch, pragma, reason
):
    cache.encode(["known"])
    passes.clear()
    monkeypatch.setattr(sqlite3, "connect", connect_with(pragma))
    prompts = ["known", *(f"nut {number}" for number in range(100))]
    assert torch.equal(cache.encode(prompts), cache.encode(prompts))
    assert count(passes) == 2 * 100
    warnings = [one for one in caplog.messages if reason in one]
    assert len(warnings) == 1  # said once
    assert torch.equal(cache.encode(prompts), encode_text(tiny, prompts))


def test_a_place_where_no_file_can_be_only_costs_time(tiny, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "texts.sqlite", tmp_path / "folder"):
        cache = TextCache(path, tiny)
        assert torch.equal(cache.encode(PROMPTS), encode_text(tiny, PROMPTS))
        assert f"{path}: " in caplog.text
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_file_that_another_holds_is_not_waited_for_without_end(cache, tiny, monkeypatch):
    cache.encode(["known"])
    monkeypatch.setattr(text_cache, "PATIENCE", 0.05)
    db = sqlite3.connect(cache.path)
    db.execute("BEGIN EXCLUSIVE")
    assert torch.equal(cache.encode(PROMPTS), encode_text(tiny, PROMPTS))
    db.close()
    assert not cache.path.with_name("texts.sqlite.broken").exists()


def test_many_writers_at_once(cache, tiny, passes):
    groups = [[f"nut {number}" for number in range(start, start + 30)] for start in range(6)]
    expected = [encode_text(tiny, group) for group in groups]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda group: TextCache(cache.path, tiny).encode(group), groups))
    assert all(map(torch.equal, found, expected))
    passes.clear()
    for group, embeds in zip(groups, expected, strict=True):
        assert torch.equal(cache.encode(group), embeds)
    assert not passes


def test_a_killed_writer_leaves_a_file_that_works(cache, tiny, passes):
    """Killed in the middle of a transaction that had already spilled into the file."""
    expected = cache.encode(PROMPTS)
    code = (
        "import os, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1])\n"
        "db.execute('PRAGMA cache_size = 1')\n"
        "for n in range(2000):\n"
        "    db.execute('INSERT INTO texts VALUES (?, ?)', (os.urandom(32), bytes(132)))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(cache.path)], check=False)
    assert done.returncode == -9
    assert cache.path.with_name("texts.sqlite-journal").exists()
    passes.clear()
    assert torch.equal(cache.encode(PROMPTS), expected)
    assert not passes
    assert len(read_keys(cache.path)) == 4


def test_no_string_reaches_the_tower_twice_in_all_stages(tiny, tmp_path, monkeypatch, passes):
    """What csp, efa, rpl and evaluate encode, one after the other, in one folder."""
    monkeypatch.chdir(tmp_path)
    params = read_params(ROOT / "params.yaml")
    names, clusters = ["nut", "cable", "grid"], [["nut", "cable"], ["grid"]]
    for points in ("normal", "both", "bare"):
        csp = params.csp.model_copy(update={"points": points})
        compute_points(tiny, params.model_copy(update={"csp": csp}), "visa", names)
    for cluster in clusters:
        efa.encode_prompts(params, tiny, "object", cluster, [])
        efa.encode_prompts(params, tiny, "stacked", cluster, [])
    encode_names(tiny, params, names)  # what rpl does
    heads = Heads(len(tiny.blocks), tiny.vision_width, tiny.embed_dim).state_dict()
    model = {
        "partition": {"names": names, "clusters": [{"names": cluster} for cluster in clusters]},
        "efa": {f"cluster{number}.{k}": v for number in range(2) for k, v in heads.items()},
        "rpl": {"text_embed": torch.eye(2, tiny.embed_dim)},
        "rpl_header": {"settings": {"temperature": 14.0}},
    }
    texts = SharedTexts(tiny, params, EfaTest(), model, ["nut", "bolt"])
    for category in ("nut", "bolt"):
        texts.build_scorers(category)
    rows = [row for one in passes for row in one]
    assert len(rows) == len(set(rows)) > 9 * 420
