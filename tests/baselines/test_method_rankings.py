"""No monotone change of scale changes a ranking metric: of any row, however sure it is.

Drawn features lie so near to a text feature that a probability in float32 is 1, whatever the margin
is. References are cosines in float64, and means of probabilities in decimals of 100 digits.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from drawn_embeds import draw_embeds
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples
from scipy.special import expit
from summary_cases import CURVE_METRICS
from tiny_models import TINY
from torch import Tensor
from torch.nn import functional as F

from fuzzyclip.baselines import winclip
from fuzzyclip.baselines.cocoop import ShiftedWords
from fuzzyclip.baselines.registry import BASELINES, build_method
from fuzzyclip.baselines.shared.clip_ad import Density, encode_representatives
from fuzzyclip.baselines.shared.context import embed_sentences
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.clip.prompts import average_prompts
from fuzzyclip.evaluation.metrics import compute_image_metrics, compute_pixel_metrics
from fuzzyclip.method import Scale
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.interface import Learned
from fuzzyclip.method.scorer import Scorer, build_trained, build_untrained, score_batch
from fuzzyclip.utils.settings import TextSettings

#: Side of the images; a patch is a pixel, so that each pixel's margin is drawn as it is wanted.
SIDE, BLOCKS, WIDTH, EMBED = 6, 3, 64, 32
CATEGORY = "nut"
ALL = tuple(range(BLOCKS))
RPL_TEMPERATURE = 1 / 0.07
#: FuzzyCLIP's own row, and one of those without training.
OWN, PLAIN = "fuzzyclip", "precise"
#: SAA+ judges an image by its map, and has no text features.
WITH_TEXT = [*(name for name in BASELINES if name != "saa"), OWN, PLAIN]
LOG_ODDS = ["clip", "clip_ac", "april_gan", "coop", "cocoop", OWN, PLAIN]
#: Strictly monotone; in float64 all but on values that lie within its rounding.
BENDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "affine": lambda values: 3 * values + 7,
    "cubic": lambda values: values**3 + values,
    "arctan": np.arctan,
}


def bend_apart(values: np.ndarray) -> list[np.ndarray]:
    """The values on other scales, but those whose rounding makes two of them one."""
    bends = [bend(values.astype(np.float64)) for bend in BENDS.values()]
    return [bent for bent in bends if np.unique(bent).size == np.unique(values).size]


@dataclass(frozen=True)
class Row:
    """A row of a table, and what it is made of.

    `texts` has unit class features (N, D) to text features (N or 1, 2, D) of the image score, which
    `temperature` belongs to. Maps that are log-odds have clusters and read blocks; `anchors` (K, D)
    weigh the clusters, with the factor on cosines.
    """

    scorer: Scorer
    texts: Callable[[Tensor], Tensor]
    temperature: float = 100.0
    clusters: tuple["Cluster", ...] = ()
    blocks: tuple[int, ...] = (BLOCKS - 1,)
    anchors: tuple[Tensor, float] | None = None


@dataclass(frozen=True)
class Cluster:
    """Tokens (N, P, W) of float64 and the number of their block to (N, P, D), and the way back.

    Its text is (2, D), None for the text features of the image score.
    """

    map_tokens: Callable[[Tensor, int], Tensor]
    find_tokens: Callable[[Tensor, int], Tensor]
    text: Tensor | None


@pytest.fixture(scope="module")
def small(load_tiny, tmp_path_factory):
    """A tiny CLIP of 6 x 6 patches of one pixel each."""
    vision = TINY["vision_cfg"] | {"image_size": SIDE, "patch_size": 1}
    path = tmp_path_factory.mktemp("small") / "model.json"
    path.write_text(json.dumps(TINY | {"vision_cfg": vision}))
    return load_tiny(model=path, image_size=SIDE)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- rows


def project(backbone) -> Cluster:
    """CLIP's own last layers."""
    visual = backbone.model.visual
    head = visual.proj.detach().double()  # (W, D)
    back = torch.linalg.pinv(torch.cat([head.T, torch.ones(1, WIDTH).double()]))[:, :EMBED]

    def map_tokens(tokens: Tensor, block: int) -> Tensor:
        return F.layer_norm(tokens, (WIDTH,), eps=visual.ln_post.eps) @ head

    def find_tokens(wanted: Tensor, block: int) -> Tensor:
        """Tokens of mean 0 and deviation 1, which the norm leaves as they are."""
        tokens = wanted @ back.T
        return tokens / tokens.std(dim=-1, keepdim=True, correction=0)

    assert torch.equal(visual.ln_post.weight, torch.ones(WIDTH))
    assert not visual.ln_post.bias.any()
    return Cluster(map_tokens, find_tokens, None)


def draw_cluster(number: int, text: Tensor | None) -> tuple[Heads, Cluster]:
    """Layers that read one half of a token each, so that a token can serve two clusters at once."""
    heads, half = Heads(BLOCKS, WIDTH, EMBED), slice(number * EMBED, (number + 1) * EMBED)
    for block, layer in enumerate(heads.layers):
        weight = torch.zeros(EMBED, WIDTH)
        weight[:, half] = torch.linalg.qr(draw(EMBED, EMBED, seed=10 * number + block))[0]
        layer.weight.data, layer.bias.data = weight, 0.1 * draw(EMBED, seed=block)
    fine = [(layer.weight.data.double(), layer.bias.data.double()) for layer in heads.layers]

    def map_tokens(tokens: Tensor, block: int) -> Tensor:
        weight, bias = fine[block]
        return tokens @ weight.T + bias

    def find_tokens(wanted: Tensor, block: int) -> Tensor:
        weight, bias = fine[block]
        return (wanted - bias) @ weight

    return heads, Cluster(map_tokens, find_tokens, text)


def build_own(backbone, temperature: float) -> Row:
    """FuzzyCLIP with two clusters."""
    tests = F.normalize(draw(2, EMBED, 2, seed=3), dim=1)
    learned = F.normalize(draw(2, EMBED, seed=4), dim=1)
    heads, clusters = zip(*(draw_cluster(k, tests[k].T) for k in range(2)), strict=True)
    anchors = tests[:, :, 0]
    scorer = build_trained(
        backbone, "x", heads, tests, anchors, 3.0, learned, image_temperature=temperature
    )
    return Row(scorer, lambda _: learned[None], temperature, clusters, ALL, (anchors, 3.0))


def build_context(name: str, encode: NameEncoder) -> Row:
    """CoOp, and CoCoOp, whose text features are each image's own."""
    backbone = encode.backbone
    torch.manual_seed(4)  # the two sentences come out far from one another, for every image
    words = torch.randn(4, EMBED)
    shifted = ShiftedWords(words, EMBED)
    for parameter in shifted.meta.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    sentences = embed_sentences(encode, [CATEGORY], len(words))

    @torch.no_grad()
    def write(unit: Tensor) -> Tensor:
        if name == "coop":
            return sentences.encode(backbone, torch.zeros(1).long(), words)
        return sentences.encode(backbone, torch.zeros(len(unit)).long(), shifted(unit))

    tensors = {"words": words} if name == "coop" else shifted.state_dict()
    scorer = build_method(name).build(encode, CATEGORY, Learned(tensors))
    return Row(scorer, write, clusters=(project(backbone),))


def build_row(name: str, backbone) -> Row:
    """A row whose text features are drawn, as far as the text tower does not make them."""
    encode = NameEncoder(backbone, draw_embeds, TextSettings(ensemble="single"))
    if name == OWN:
        return build_own(backbone, RPL_TEMPERATURE)
    if name == PLAIN:
        text = encode([CATEGORY])
        scorer = build_untrained(backbone, CATEGORY, text)
        return Row(scorer, lambda _: text.T[None], clusters=(project(backbone),), blocks=ALL)
    if name in ("coop", "cocoop"):
        return build_context(name, encode)
    # SDP and SDP+ as published judge by the text here; a whole test set joins it with the map
    method, tensors, temperature = build_method(name), {}, 100.0
    clusters, blocks = (), (BLOCKS - 1,)
    if name in ("clip", "clip_ac"):
        text = average_prompts(encode.encode, method.write_prompts(CATEGORY)).T
        clusters = (project(backbone),)
    elif name == "winclip":
        text = average_prompts(encode.encode, winclip.write_prompts(CATEGORY, True), unit=False).T
        temperature = 1 / method.temperature
    elif name == "anomaly_clip":
        text, temperature = F.normalize(draw(2, EMBED), dim=1), 1 / method.temperature
        tensors = {"text_embed": text}
    elif name in ("sdp", "sdp_plus"):
        text = encode_representatives(encode, CATEGORY, Density()).T
        tensors = Heads(method.stages, WIDTH, EMBED).state_dict() if name == "sdp_plus" else {}
    else:
        text = encode([CATEGORY]).T
        if name == "april_gan":
            heads, cluster = draw_cluster(0, None)
            clusters, blocks = (cluster,), ALL
            tensors = {f"heads.{key}": value for key, value in heads.state_dict().items()}
    scorer = method.build(encode, CATEGORY, Learned(tensors))
    return Row(scorer, lambda _: text[None], temperature, clusters, blocks)


@pytest.fixture(scope="module")
def rows(small):
    """Rows by name."""
    return {name: build_row(name, small) for name in WITH_TEXT}


def test_these_are_the_rows_there_are(rows):
    assert {*BASELINES, OWN, PLAIN} == {*rows, "saa"}
    assert [name for name in rows if rows[name].scorer.scale is Scale.LOG_ODDS] == LOG_ODDS


# --- features


def place(text: Tensor, margins: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Unit rows (..., D) of float64 with given margins, at factor 100, for texts (..., 2, D)."""
    direction = (text[..., 1, :] - text[..., 0, :]).double()
    length = direction.norm(dim=-1, keepdim=True)
    unit = direction / length
    along = torch.from_numpy(margins)[..., None] / (100 * length)
    noise = torch.from_numpy(rng.normal(size=(*margins.shape, EMBED)))
    across = F.normalize(noise - (noise * unit).sum(dim=-1, keepdim=True) * unit, dim=-1)
    assert along.abs().max() < 1
    return along * unit + (1 - along**2).sqrt() * across


def find_reach(text: Tensor) -> float:
    """Margins at factor 100 that a feature can have with texts (..., 2, D), nearly."""
    lengths = (text[..., 1, :] - text[..., 0, :]).norm(dim=-1)
    return 95 * float(lengths.min())


def spread(rng: np.random.Generator, low: float, high: float, count: int) -> np.ndarray:
    """Values in a drawn order, no two of them near."""
    places = (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count
    return low + (high - low) * places


def compute_cosines(features: Tensor, text: Tensor) -> np.ndarray:
    """Cosine with the anomalous text minus that with the normal one, in float64."""
    unit, text = F.normalize(features.double(), dim=-1), text.double()
    sides = [(unit * F.normalize(text[..., side, :], dim=-1)).sum(dim=-1) for side in range(2)]
    return (sides[1] - sides[0]).numpy()


def draw_images(row: Row, seed: int) -> tuple[Tensor, np.ndarray]:
    """Class features (N, D) and their margins (N,) of float64, none within rounding of another."""
    rng = np.random.default_rng(seed)
    text = row.texts(F.normalize(draw(1, EMBED), dim=1))[0]
    reach = find_reach(text)
    margins = spread(rng, -reach, reach, 30)
    margins = np.concatenate([margins, margins + rng.uniform(1e-3, 2e-3, 30)])  # and close pairs
    lengths = torch.from_numpy(rng.uniform(0.5, 9, (len(margins), 1)))
    embeds = (lengths * place(text, margins, rng)).float()
    cosines = compute_cosines(embeds, row.texts(F.normalize(embeds, dim=1)))
    order = np.argsort(cosines)
    kept = order[np.diff(cosines[order], prepend=-np.inf) > 5e-6]
    kept = rng.permutation(kept)
    return embeds[kept], row.temperature * cosines[kept]


def draw_labels(rng: np.random.Generator, reference: np.ndarray) -> np.ndarray:
    """Labels of images or pixels that follow the order half-heartedly; both are there."""
    ranks = reference.argsort(axis=None).argsort().reshape(reference.shape) / reference.size
    labels = ranks + rng.normal(size=reference.shape) > 0.8
    labels.flat[:2] = False, True
    return labels


# --- image scores


def score_images(
    scorer: Scorer, maps: Tensor, embeds: Tensor, backbone, doubled: bool = False
) -> np.ndarray:
    """What the row says of images with these maps; `doubled` of both class features of `vv`."""
    given = replace(scorer, compute_map=lambda tokens, _: tokens)
    if doubled:
        embeds = embeds.repeat(1, 2)
    return score_batch(given, maps, embeds, backbone, 0.0).image_scores


def check_scores(scores: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> None:
    """Scores of float32 rank as the reference of float64 does, on their own scale and on others."""
    assert scores.dtype == np.float32
    assert len(np.unique(scores)) == len(np.unique(reference)) == len(scores)
    expected = compute_image_metrics(reference, labels)
    assert len(expected) == 3
    assert compute_image_metrics(scores, labels) == expected
    for bent in bend_apart(scores):
        assert compute_image_metrics(bent, labels) == expected


@pytest.mark.parametrize("name", WITH_TEXT)
@try_examples(40)
@given(seed=st.integers(0, 2**31))
def test_image_scores_rank_as_margins_of_float64(name, rows, small, seed):
    row = rows[name]
    embeds, reference = draw_images(row, seed)
    assert len(embeds) > 40
    assert -reference.min() > 0.25 * row.temperature < reference.max()
    labels = draw_labels(np.random.default_rng(seed), reference)
    maps, doubled = torch.zeros(len(embeds), SIDE, SIDE), name in ("clip_surgery", "anomaly_clip")
    scores = score_images(row.scorer, maps, embeds, small, doubled)
    assert scores == pytest.approx(reference, abs=2e-6 * row.temperature)
    check_scores(scores, reference, labels)
    shares = expit(reference).astype(np.float32)  # what was the score before
    assert len(np.unique(shares)) < len(scores)


@try_examples(40)
@given(seed=st.integers(0, 2**31))
def test_a_method_that_judges_by_the_map_ranks_as_its_largest_values(small, seed):
    rng = np.random.default_rng(seed)
    scorer = build_method("saa", {"tiny_seed": 0}).build(
        NameEncoder(small, None), CATEGORY, Learned()
    )
    highest = rng.uniform(0, 20, 20).astype(np.float32)
    highest = rng.permutation(np.concatenate([highest, np.nextafter(highest, np.float32(99))]))
    maps = highest[:, None, None] * rng.uniform(0, 1 - 2**-20, (40, SIDE, SIDE))
    maps[np.arange(40), rng.integers(SIDE, size=40), rng.integers(SIDE, size=40)] = highest
    drawn = torch.from_numpy(maps.astype(np.float32))
    scores = score_images(scorer, drawn, torch.zeros(40, EMBED), small)
    check_scores(scores, highest.astype(np.float64), draw_labels(rng, highest))


# --- maps


def draw_margins(rng: np.random.Generator, reach: float, shape: tuple[int, ...]) -> np.ndarray:
    """Margins (K, L, N, P): each pixel is of a drawn kind.

    0: all maps are of one mind, far from 0. 1 and 2: one of the blocks, or two, is sure of a defect
    and the others of none, so that the mean probability is next to 1/3 or 2/3. 3: clusters differ.
    """
    clusters, blocks, count = shape[0], shape[1], shape[2] * shape[3]
    if blocks == 1:
        return spread(rng, -reach, reach, count).reshape(shape)
    kinds = rng.integers(4 if clusters > 1 else 3, size=count)
    sure = np.zeros((clusters, blocks, count), dtype=bool)
    sure[:, 0] = (kinds == 1) | (kinds == 2)
    sure[:, 1] = kinds == 2
    sure[0] |= kinds == 3
    step = (np.arange(blocks) + np.arange(clusters)[:, None] / 2)[..., None]
    alike = (spread(rng, 17, reach - 3, count) + step) * rng.choice([-1, 1], count)
    doubt = -spread(rng, 17, 26, count) - step  # lost beside 1 in float32, not in float64
    return np.where(kinds == 0, alike, np.where(sure, 45.0, doubt)).reshape(shape)


def draw_tokens(row: Row, seed: int, images: int = 4) -> tuple[Tensor, Tensor]:
    """Class features (N, D) and patch tokens (N, L, P, W) of drawn margins."""
    rng = np.random.default_rng(seed)
    embeds = torch.from_numpy(rng.normal(size=(images, EMBED))).float()
    text = row.texts(F.normalize(embeds, dim=1))[:, None]  # (N or 1, 1, 2, D)
    texts = [text if cluster.text is None else cluster.text for cluster in row.clusters]
    reach = min(map(find_reach, texts))
    shape = (len(texts), len(row.blocks), images, SIDE**2)
    margins = draw_margins(rng, reach, shape)
    tokens = torch.from_numpy(rng.normal(size=(images, BLOCKS, SIDE**2, WIDTH)))
    for at, block in enumerate(row.blocks):
        tokens[:, block] = sum(
            cluster.find_tokens(place(texts[k], margins[k, at], rng), block)
            for k, cluster in enumerate(row.clusters)
        )
    return embeds, tokens.float()


def compute_log_odds(row: Row, embeds: Tensor, tokens: Tensor) -> list[Decimal]:
    """Log-odds of the mean probability of each pixel (N * P), margins in float64."""
    unit, (images, _, patches, _) = F.normalize(embeds.double(), dim=1), tokens.shape
    text = row.texts(F.normalize(embeds, dim=1))[:, None]
    margins = np.empty((len(row.clusters), len(row.blocks), images, patches))
    for k, cluster in enumerate(row.clusters):
        for at, block in enumerate(row.blocks):
            mapped = cluster.map_tokens(tokens[:, block].double(), block)
            margins[k, at] = 100 * compute_cosines(
                mapped, text if cluster.text is None else cluster.text
            )
    weights = torch.ones(images, len(row.clusters), dtype=torch.float64)
    if row.anchors is not None:
        anchors, factor = row.anchors
        weights = (factor * unit @ anchors.double().T).softmax(dim=1)
    with localcontext() as context:
        context.prec = 100
        return [
            _join(margins[:, :, image, patch], weights[image].tolist())
            for image, patch in np.ndindex(images, patches)
        ]


def _join(margins: np.ndarray, weights: list[float]) -> Decimal:
    """Of one pixel, (K, L) and (K,), as it is written in a textbook."""
    whole = sum(map(Decimal, weights)) * margins.shape[1]
    above = sum(
        Decimal(weight) / (1 + (-Decimal(float(margin))).exp())
        for weight, blocks in zip(weights, margins, strict=True)
        for margin in blocks
    )
    mean = above / whole
    return (mean / (1 - mean)).ln()


@pytest.mark.parametrize("name", LOG_ODDS)
@try_examples(40)
@given(seed=st.integers(0, 2**31))
def test_pixels_rank_as_margins_of_float64(name, rows, small, seed):
    row, rng = rows[name], np.random.default_rng(seed)
    embeds, tokens = draw_tokens(row, seed)
    maps = score_batch(row.scorer, tokens, embeds, small, 0.0).maps
    exact = compute_log_odds(row, embeds, tokens)
    reference = np.array(exact, dtype=np.float64).reshape(maps.shape)
    assert maps == pytest.approx(reference, abs=2e-4)
    order = sorted(range(len(exact)), key=exact.__getitem__)
    assert np.unique(maps).size == maps.size
    assert maps.argsort(axis=None).tolist() == order
    ranks = np.argsort(order).reshape(maps.shape)  # the reference, on one more scale
    masks = draw_labels(rng, reference)
    masks[-1] = False
    expected = compute_pixel_metrics(ranks, masks)
    for values in (maps, *bend_apart(maps)):
        metrics = compute_pixel_metrics(values, masks, Scale.LOG_ODDS)
        assert {name: metrics[name] for name in CURVE_METRICS} == {
            name: expected[name] for name in CURVE_METRICS
        }
    shares = expit(reference).astype(np.float32)  # what the map was before, but for its factor
    assert len(np.unique(shares)) < 0.8 * maps.size
    if len(row.blocks) > 1:  # sums of probabilities next to whole numbers
        for share in (1 / 3, 2 / 3):
            assert np.isclose(expit(reference), share, rtol=0, atol=1e-7).sum() > 10
