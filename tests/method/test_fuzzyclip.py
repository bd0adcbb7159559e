"""FuzzyCLIP as a method: what it learns is what its parts learn, and what its variants are."""

import pytest
import torch

from fuzzyclip.baselines.registry import build_method
from fuzzyclip.method import OWN, VARIANTS
from fuzzyclip.method.csp import choose_partition, compute_points, score_partitions
from fuzzyclip.method.efa_training import train_clusters
from fuzzyclip.method.fuzzyclip import FuzzyClip
from fuzzyclip.method.interface import Target, TrainingSet
from fuzzyclip.method.rpl import fit_prompts
from fuzzyclip.method.scorer import score_batch
from fuzzyclip.utils.settings import CspSettings, EfaTest, EfaTraining, RplSettings

NAMES = ["nut", "bolt", "gear"]
SETTINGS = {
    "csp": CspSettings(partition=2),
    "efa": EfaTraining(epochs=2, batch_size=1, learning_rate=1e-2, mosaic=0, keep="all"),
    "rpl": RplSettings(words=2, deep_tokens=1, depth=2, epochs=1, batch_size=4),
}
SEED = 7
#: Layers that are kept of two epochs, as variants.
EARLIER = [f"fuzzyclip_epoch_{moment}" for moment in ("0.25", "0.5", "0.75", "1")]


@pytest.fixture(scope="module")
def images(tiny):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    tokens = draw(6, len(tiny.blocks), 16, tiny.vision_width)
    masks = torch.zeros(6, 32, 32, dtype=torch.bool)
    masks[1::2, 8:16, 8:16] = True
    return TrainingSet(
        draw(6, tiny.embed_dim),
        load_tokens=lambda rows: tokens[list(rows)],
        load_masks=lambda rows: masks[list(rows)],
        labels=torch.tensor([0, 1] * 3),
        names=[name for name in NAMES for _ in range(2)],
        members=[f"parts/{name}" for name in NAMES for _ in range(2)],
    )


@pytest.fixture
def learned(encode, images):
    return FuzzyClip(**SETTINGS).fit(encode, images, SEED)


def test_it_learns_what_its_parts_learn_one_by_one(encode, images, learned):
    points = compute_points(encode, NAMES, "normal", lambda: None)
    scored = score_partitions(NAMES, points.numpy(), SETTINGS["csp"], SEED)
    clusters = choose_partition(scored, 2).clusters
    assert learned.facts["clusters"] == [list(cluster) for cluster in clusters]
    assert learned.facts["names"] == NAMES
    efa, efa_curve = train_clusters(encode, images, clusters, SETTINGS["efa"], SEED)
    rpl, rpl_curve = fit_prompts(
        encode, images.image_embed, images.labels, NAMES, SETTINGS["rpl"], SEED
    )
    assert set(learned.tensors) == {*efa, "text_embed"}
    for name, tensor in efa.items():
        assert torch.equal(learned.tensors[name], tensor), name
    assert torch.equal(learned.tensors["text_embed"], rpl["text_embed"])
    assert list(learned.curve) == [*efa_curve, *rpl_curve]


def test_a_killed_training_goes_on_from_files_of_one_name(encode, images, learned, tmp_path):
    again = FuzzyClip(**SETTINGS).fit(encode, images, SEED, tmp_path / "own.pt")
    assert all(torch.equal(again.tensors[n], t) for n, t in learned.tensors.items())
    assert all(path.name.startswith("own-") for path in tmp_path.iterdir())


def test_every_variant_is_a_scorer_and_itself_comes_last_but_shots(encode, images, learned, tiny):
    def load_references(count):
        return images.load_tokens(range(count))

    method = FuzzyClip(**SETTINGS, variants=tuple(VARIANTS), shots=(1, 2))
    target = Target("screw", ["screw", "washer"], load_references)
    scorers = method.build_variants(encode, target, learned)
    untrained = [name for name in VARIANTS if name != OWN]
    assert list(scorers) == [
        *untrained,
        *EARLIER,
        OWN,
        "fuzzyclip_1shot",
        "fuzzyclip_2shot",
    ]
    assert scorers["precise"].prompt == "screw"
    assert scorers["stacked"].prompt == "screw washer"
    assert scorers["stacked_auxiliary"].prompt == "nut bolt gear"
    tokens, embeds = images.load_tokens(range(3)), images.image_embed[:3]
    maps = {name: score_batch(each, tokens, embeds, tiny).maps for name, each in scorers.items()}
    alone = score_batch(method.build(encode, "screw", learned), tokens, embeds, tiny)
    assert (maps[OWN] == alone.maps).all()
    assert len({each.tobytes() for each in maps.values()}) == len(maps)
    assert scorers["fuzzyclip_2shot"].memory.tokens.shape[1] == 2 * 16


def test_variants_that_are_not_asked_for_are_not_built(encode, learned):
    scorers = FuzzyClip(**SETTINGS).build_variants(encode, Target("screw"), learned)
    assert list(scorers) == [*EARLIER, OWN]
    with pytest.raises(ValueError, match="2 normal training images are asked for"):
        FuzzyClip(shots=(2,)).build_variants(encode, Target("screw"), learned)


def test_the_registry_makes_it_like_any_other():
    method = build_method("fuzzyclip", {"variants": ["precise"], "test": EfaTest(sigma=2)})
    assert method == FuzzyClip(test=EfaTest(sigma=2), variants=("precise",))
    assert (method.name, method.trains, method.sigma) == (OWN, True, 2)
