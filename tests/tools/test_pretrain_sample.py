"""The sample CLIP as it was made: files that load like any open_clip model, and each step."""

import csv
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from damage import damage

from fuzzyclip.clip.weights import (
    EMBEDDING,
    SAMPLE_CONFIG,
    SAMPLE_WEIGHTS,
    load_sample_state_dict,
    save_sample_weights,
)
from fuzzyclip.utils.files import BrokenFileError
from tools.pretrain_sample.batches import make_batch, patch_targets
from tools.pretrain_sample.captions import (
    OFFICIAL_CATEGORIES,
    Vocabulary,
    Words,
    make_caption,
    make_names,
)
from tools.pretrain_sample.kinds import (
    COSINES,
    KINDS_OF_THINGS,
    belonging_loss,
    draw_kinds,
    kinds_loss,
)
from tools.pretrain_sample.pictures import Pairs, draw_shard
from tools.pretrain_sample.pretrain import LOG_COLUMNS, append_row, learning_rate
from tools.pretrain_sample.recipes import CATEGORIES
from tools.pretrain_sample.towers import (
    DENSE_BLOCKS,
    GRID,
    MEAN,
    STD,
    build_clip,
    encode_captions,
    encode_images,
)
from tools.pretrain_sample.trainer import (
    build_trainer,
    contrastive_loss,
    export_weights,
    train_step,
)

WHOLE = torch.arange(GRID * GRID)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary()


@pytest.fixture(scope="module")
def words(vocabulary: Vocabulary) -> Words:
    return Words(CATEGORIES, vocabulary.known_words, vocabulary.strange_words)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Grey pictures with one bright square each as the defect."""
    images = np.full((8, 2, 144, 144, 3), 90, np.uint8)
    coverage = np.zeros((8, 36, 36), np.uint8)
    for pair in range(8):
        images[pair, 1, 12 * pair : 12 * pair + 12, 60:72] = 220
        coverage[pair, 3 * pair : 3 * pair + 3, 15:18] = 16
    return Pairs(images, coverage, np.arange(8), np.arange(8) % 6)


def test_weights_are_small_and_complete(sample_clip: open_clip.CLIP) -> None:
    assert SAMPLE_CONFIG.is_file()
    assert SAMPLE_WEIGHTS.stat().st_size <= 16 * 2**20
    assert sample_clip.token_embedding.weight.shape[0] == 49408
    assert len(sample_clip.visual.transformer.resblocks) >= 8
    assert all(tensor.dtype == torch.float32 for tensor in load_sample_state_dict().values())


def test_names_of_all_datasets_are_known(vocabulary: Vocabulary) -> None:
    assert len(OFFICIAL_CATEGORIES) == 15 + 12 + 3 + 6 + 10 + 1 + 12
    assert (vocabulary.encode(OFFICIAL_CATEGORIES)[:, :2] > 0).all()
    table = load_sample_state_dict()[EMBEDDING]
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    unknown = table[tokenizer.encode(vocabulary.strange_words[0])[0]]
    for name in ("bottle", "metal_nut", "pcb1", "Woven_001", "object", "flawless", "damaged"):
        assert not (table[tokenizer.encode(name)] == unknown).all(dim=1).any()


def test_weights_survive_the_file(tmp_path: Path) -> None:
    state = {"bias": torch.randn(3), EMBEDDING: torch.randn(2, 4), "attn_mask": torch.zeros(2, 2)}
    save_sample_weights(tmp_path / "m.safetensors", state, [5, 49407], torch.ones(4))
    loaded = load_sample_state_dict(tmp_path / "m.safetensors")
    assert loaded.keys() == {"bias", EMBEDDING}
    assert torch.equal(loaded[EMBEDDING][[5, 49407]], state[EMBEDDING].half().float())
    assert torch.equal(loaded[EMBEDDING][[0, 400]], torch.ones(2, 4))
    with pytest.raises(ValueError, match="2 rows for 1 token"):
        save_sample_weights(tmp_path / "m.safetensors", state, [5], torch.ones(4))


def test_towers_agree_with_open_clip(sample_clip: open_clip.CLIP, vocabulary: Vocabulary) -> None:
    pictures = torch.randint(0, 256, (2, 144, 144, 3), dtype=torch.uint8)
    inputs = ((pictures.float() - MEAN) / STD).permute(0, 3, 1, 2)
    with torch.no_grad():
        features, tokens = encode_images(sample_clip.visual, pictures, WHOLE.expand(2, -1))
        expected = sample_clip.visual.forward_intermediates(
            inputs, indices=list(DENSE_BLOCKS), output_fmt="NLC"
        )
    assert torch.allclose(features, sample_clip.encode_image(inputs, normalize=True), atol=1e-5)
    for ours, theirs in zip(tokens, expected["image_intermediates"], strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)
    small = build_clip(len(vocabulary)).eval()
    numbers = vocabulary.encode(["a photo of a coin.", "a damaged gear"])
    padded = torch.nn.functional.pad(numbers, (0, 77 - numbers.shape[1]))
    with torch.no_grad():
        cut = encode_captions(small, numbers)
        assert torch.allclose(cut, small.encode_text(padded, normalize=True), atol=1e-5)


def test_every_window_shows_the_defect(pairs: Pairs, words: Words) -> None:
    for window in (4, 6, GRID):
        batch = make_batch(pairs, 16, window, words, np.random.default_rng(window))
        assert batch.images.shape == (32, 12 * window, 12 * window, 3)
        assert batch.targets.shape == (32, window**2, 10)
        assert (batch.targets[1::2, :, 0].sum(dim=1) >= 1).all()
        assert batch.targets[::2].sum() == 0
        assert batch.positive.any(dim=1).all()
        row, patch = 1, int(batch.targets[1, :, 0].argmax())
        top, left = 12 * (patch // window), 12 * (patch % window)
        square = batch.images[row, top : top + 12, left : left + 12].float().mean()
        assert square > batch.images[row - 1].float().mean() + 50


def test_patch_targets_find_the_patch() -> None:
    coverage = torch.zeros(1, 36, 36, dtype=torch.uint8)
    coverage[0, 5, 34] = 16  # patch row 1, column 11; its cell row 2, column 1
    targets = patch_targets(coverage)[0]
    assert targets[:, 0].nonzero().flatten().tolist() == [12 + 11]
    assert targets[12 + 11, 1:].nonzero().flatten().tolist() == [7]


def test_captions_name_state_and_part(words: Words, vocabulary: Vocabulary) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        normal, damaged = (make_caption("gear", state, rng).lower() for state in (0, 1))
        assert "gear" in normal
        assert any(word in damaged for word in ("damage", "broken", "flaw", "defect"))
        assert "{" not in normal + damaged
        names = make_names(5, words, rng)
        assert names[0] == "object"
        vocabulary.encode([make_caption(name, 1, rng) for name in names])  # none is too long


def test_every_official_name_that_means_something_is_of_one_kind(vocabulary: Vocabulary) -> None:
    things = [thing for kind in KINDS_OF_THINGS for thing in set(kind)]
    assert len(set(things)) == len(things)  # none is of two kinds
    meant = {name for name in OFFICIAL_CATEGORIES if not re.fullmatch(r"(Class)?\d+", name)}
    assert meant <= set(things)
    names, shares = draw_kinds(200, np.random.default_rng(0))
    for name, share in zip(names, shares, strict=True):
        kinds = [kind for kind, part in zip(KINDS_OF_THINGS, share, strict=True) if part]
        for thing in sorted((thing for kind in kinds for thing in kind), key=len, reverse=True):
            name = name.replace(thing, "")
        assert not name.strip()
    assert torch.allclose(shares.sum(dim=1), torch.ones(200))
    assert {int((share > 0).sum()) for share in shares} == {1, 2}
    vocabulary.encode(names)  # none is too long


def test_kinds_pull_names_of_a_kind_together_and_no_further() -> None:
    first, second = torch.nn.functional.normalize(torch.randn(2, 64), dim=1)
    across = torch.nn.functional.normalize(second - first * (first @ second), dim=0)
    for kinds in torch.cartesian_prod(torch.arange(4), torch.arange(4)):
        aim = COSINES[kinds[0], kinds[1]]
        away = aim * first + (1 - aim**2).sqrt() * across  # at the cosine that is aimed at
        shares = torch.nn.functional.one_hot(kinds, 4).float()
        assert float(kinds_loss(torch.stack([first, away]), shares)) < 1e-10
        alike = float(kinds_loss(torch.stack([first, first]), shares))
        assert alike == pytest.approx(float(1 - aim) ** 2, abs=1e-6)
    between = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 1], [0.5, 0, 0, 0.5]])
    ends = torch.linalg.cholesky(COSINES / 0.95).T[:, [0, 3]].T  # unit vectors of two kinds
    text = torch.nn.functional.normalize(torch.stack([*ends, ends.sum(dim=0)]), dim=1)
    aims = 0.95 * (text @ text.T)
    expected = ((text @ text.T - aims)[~torch.eye(3, dtype=torch.bool)] ** 2).mean()
    assert float(kinds_loss(text, between)) == pytest.approx(float(expected), rel=1e-3)
    assert torch.equal(COSINES, COSINES.T)
    assert (COSINES.diagonal() >= COSINES.max(dim=0).values).all()


def test_an_image_belongs_to_names_of_its_kind() -> None:
    text = torch.nn.functional.normalize(torch.randn(4, 32), dim=1)
    shares, kinds = torch.eye(4), torch.tensor([3, 0])
    images = text[kinds]
    right = belonging_loss(images, text.expand(2, -1, -1), torch.tensor(10.0), kinds, shares)
    wrong = belonging_loss(
        images, text.expand(2, -1, -1), torch.tensor(10.0), kinds.flip(0), shares
    )
    assert right < np.log(2) < wrong
    # of two kinds: the margin is the difference of the mean cosines
    two = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0], [0, 0, 0, 1.0]])
    one = belonging_loss(images[:1], text[None, [0, 3, 1]], torch.tensor(1.0), kinds[:1], two)
    cosines = text[[0, 3, 1]] @ images[0]
    margin = float(cosines[1:].mean() - cosines[0])
    assert float(one) == pytest.approx(np.log1p(np.exp(-margin)), abs=1e-5)


def test_a_run_begins_from_exported_weights(vocabulary: Vocabulary, tmp_path: Path) -> None:
    first = build_trainer(vocabulary, seed=1)
    export_weights(first, vocabulary, tmp_path / "m.safetensors")
    second = build_trainer(vocabulary, seed=2, start=tmp_path / "m.safetensors")
    for name, value in first.clip.state_dict().items():
        assert torch.equal(second.clip.state_dict()[name], value.half().float()), name


def test_contrast_counts_equal_meanings_as_positive() -> None:
    positive = torch.tensor([[True, False], [True, False], [False, True]])
    right = torch.where(positive, 20.0, -20.0)
    assert contrastive_loss(right, positive) < contrastive_loss(-right, positive)
    assert float(contrastive_loss(right, positive)) == pytest.approx(np.log(2) / 4, abs=1e-4)


def test_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(step, 1000, 1.0, 250) for step in (0, 99, 500, 750, 999)]
    assert rates == pytest.approx([0.01, 1.0, 1.0, 1.0, 0.004])


def test_resume_goes_on_exactly(
    pairs: Pairs, words: Words, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    def step(trainer: object) -> dict[str, float]:
        batch = make_batch(pairs, 2, 4, words, np.random.default_rng(trainer.step))
        return train_step(trainer, batch, vocabulary, encode_images, 1e-3)

    first = build_trainer(vocabulary, seed=1)
    step(first)
    first.save(tmp_path / "checkpoint.pt")
    expected = [step(first) for _ in range(2)]
    second = build_trainer(vocabulary, seed=2)
    second.load(tmp_path / "checkpoint.pt")
    assert [step(second) for _ in range(2)] == expected
    assert second.step == 3
    damage(tmp_path / "checkpoint.pt", ("flip", 0.5, 1))
    with pytest.raises(BrokenFileError, match="checkpoint"):
        second.load(tmp_path / "checkpoint.pt")


def test_shards_are_drawn_once_and_a_damaged_one_is_named_and_drawn_anew_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tools.pretrain_sample.pictures.PAIRS_PER_SHARD", 2)
    draw_shard(tmp_path, 0, 3)
    path = tmp_path / "pairs_0_0003.npz"
    with np.load(path) as drawn:
        assert drawn["images"].shape == (2, 2, 144, 144, 3)
        assert (drawn["coverage"].max(axis=(1, 2)) > 0).all()
    whole, before = path.read_bytes(), path.stat().st_mtime_ns
    draw_shard(tmp_path, 0, 3)
    assert path.stat().st_mtime_ns == before
    for how in (("flip", 0.5, 1), ("zero", 0.1, 200), ("cut", 0.9, 1), ("cut", 0.0, 1)):
        caplog.clear()
        assert damage(path, how)
        draw_shard(tmp_path, 0, 3)
        assert f"{path} is broken" in caplog.text
        with np.load(path) as mended, np.load(BytesIO(whole)) as first:
            assert all(np.array_equal(mended[name], first[name]) for name in first)


def test_log_drops_rows_that_are_repeated(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for step in (50, 100, 150, 100):
        append_row(path, {"step": step, "state": step / 3})
    with path.open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["50", "100"]


def test_committed_log_is_the_scripts() -> None:
    with SAMPLE_WEIGHTS.with_name("pretraining.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == LOG_COLUMNS
    assert float(rows[-1]["held_out_precise"]) >= 0.85
