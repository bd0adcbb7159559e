"""FuzzyCLIP as a method: what it learns from an auxiliary set, and a scorer of each variant.

CSP's clusters, EFA's layers and RPL's prompts are learned one after the other by `fit`, or apart by
whoever stores each of them: `join_parts` brings those together.

Shapes: K chosen clusters, D embedding width.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.method import OWN, name_moment, name_shots
from fuzzyclip.method.csp import choose_partition, compute_points, score_partitions
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.efa_training import train_clusters
from fuzzyclip.method.interface import Learned, Target, Trained, TrainingSet
from fuzzyclip.method.rpl import fit_prompts
from fuzzyclip.method.scorer import (
    Scorer,
    build_trained,
    build_untrained,
    describe_test_prompt,
    remember,
    share_projection,
)
from fuzzyclip.utils.settings import CspSettings, EfaTest, EfaTraining, RplSettings


class TrainedParts:
    """CSP's clusters, EFA's layers and RPL's text features, ready for any category."""

    def __init__(self, encode: NameEncoder, learned: Learned, test: EfaTest) -> None:
        """Encode what all categories share, of what `join_parts` gave.

        Image scores have the temperature that RPL's prompts were trained with, so that their
        log-odds are the trained ones.

        Raises:
            ValueError: `test.weights` names a cluster that is not there.
        """
        self.encode, self.learned, self.test = encode, learned, test
        clusters = learned.facts["clusters"]
        self.chosen = _choose_clusters(test.weights, len(clusters))
        self.clusters = [list(clusters[number]) for number in self.chosen]
        self.anchors = _encode_anchors(encode, self.clusters, test.weights)
        self.heads = self.load_heads()

    def load_heads(self, prefix: str = "") -> list[Heads]:
        """Layers of the chosen clusters; with a prefix, those of an earlier moment."""
        backbone, tensors = self.encode.backbone, self.learned.tensors
        return [
            load_heads(backbone, tensors, f"{prefix}cluster{number}.") for number in self.chosen
        ]

    def build_scorer(self, category: str, heads: Sequence[Heads] | None = None) -> Scorer:
        """The scorer of one category; heads from `load_heads` in place of the last epoch's."""
        prompts = [
            " ".join(part for part in (before, self.encode.stack(names), after) if part)
            for names, before, after in self._list_prompts(category)
        ]
        tests = self.encode_tests(category)
        return build_trained(
            self.encode.backbone,
            " | ".join(prompts),
            self.heads if heads is None else heads,
            tests,
            tests[:, :, 0] if self.test.weights == "eq11" else self.anchors,
            self.test.temperature,
            self.learned.tensors["text_embed"],
            self.learned.facts["temperature"],
        )

    def encode_tests(self, category: str) -> Tensor:
        """The test prompt with each cluster's names (eq. 9), (K, D, 2)."""
        return torch.stack([self.encode(*prompt) for prompt in self._list_prompts(category)])

    def _list_prompts(self, category: str) -> list[tuple[list[str], str, str]]:
        """Of each cluster the stacked names, and what stands before and behind them."""
        prefix, with_cluster, suffix = describe_test_prompt(self.test.prompt, category)
        if not with_cluster:
            return [([prefix], "", "")] * len(self.clusters)
        return [(cluster, prefix, suffix) for cluster in self.clusters]


def join_parts(
    partition: Mapping[str, Any],
    efa: Mapping[str, Tensor],
    rpl: Mapping[str, Tensor],
    temperature: float,
) -> Learned:
    """The results of CSP, EFA and RPL as one.

    Args:
        partition: `names` of the auxiliary categories and `clusters`, each with its `names`.
        efa: layers of every cluster, `cluster0.*`; earlier ones `epoch0.25.cluster0.*`.
        rpl: `text_embed`, (2, D), and what else is stored beside it.
        temperature: factor on the cosines that RPL was trained with.
    """
    clusters = [list(cluster["names"]) for cluster in partition["clusters"]]
    facts = {"names": list(partition["names"]), "clusters": clusters, "temperature": temperature}
    return Learned({**efa, "text_embed": rpl["text_embed"]}, facts)


@dataclass(frozen=True)
class FuzzyClip(Trained):
    """FuzzyCLIP's settings, and its variants.

    Attributes:
        csp: how the auxiliary categories are clustered.
        efa: how EFA's layers are trained.
        rpl: the shape of RPL's prompts, and their training.
        test: how the trained parts are used; changing it trains nothing.
        variants: keys of `VARIANTS` that are measured beside FuzzyCLIP itself.
        shots: further variants with a memory of so many normal images of the tested category.
    """

    csp: CspSettings = field(default_factory=CspSettings)
    efa: EfaTraining = field(default_factory=EfaTraining)
    rpl: RplSettings = field(default_factory=RplSettings)
    test: EfaTest = field(default_factory=EfaTest)
    variants: tuple[str, ...] = ()
    shots: tuple[int, ...] = ()

    name: ClassVar[str] = OWN
    title: ClassVar[str] = "FuzzyCLIP"
    kind: ClassVar[FeatureKind] = TOKENS

    @property
    def sigma(self) -> float:
        """Gaussian smoothing of its maps in pixels."""
        return self.test.sigma

    def fit(
        self,
        encode: NameEncoder,
        images: TrainingSet,
        seed: int,
        checkpoint: Path | None = None,
    ) -> Learned:
        """Cluster the names, train a set of layers for each cluster, and learn the prompts.

        Files that a killed training goes on from have the checkpoint's name and a suffix.

        Raises:
            ValueError: the settings do not fit the set.
            TrainingError: a loss is not finite.
        """
        names = list(dict.fromkeys(images.names))
        points = compute_points(
            encode, names, self.csp.points, lambda: (images.image_embed, images.names)
        )
        scored = score_partitions(names, points.numpy(), self.csp, seed)
        clusters = choose_partition(scored, self.csp.partition).clusters

        def locate(part: str) -> Path | None:
            return checkpoint and checkpoint.with_name(f"{checkpoint.stem}-{part}.pt")

        files = [path for n in range(len(clusters)) if (path := locate(f"efa{n}"))]
        efa, efa_curve = train_clusters(
            encode, images, clusters, self.efa, seed, checkpoints=files or None
        )
        rpl, rpl_curve = fit_prompts(
            encode, images.image_embed, images.labels, names, self.rpl, seed,
            checkpoint=locate("rpl"),
        )  # fmt: skip
        partition = {"names": names, "clusters": [{"names": cluster} for cluster in clusters]}
        joined = join_parts(partition, efa, rpl, self.rpl.temperature)
        return replace(joined, curve=[*efa_curve, *rpl_curve])

    def build(self, encode: NameEncoder, category: str, learned: Learned) -> Scorer:
        """FuzzyCLIP itself for one category.

        Raises:
            ValueError: `test.weights` names a cluster that is not there.
            PromptTooLongError: the name does not fit a prompt.
        """
        return TrainedParts(encode, learned, self.test).build_scorer(category)

    def build_variants(
        self, encode: NameEncoder, target: Target, learned: Learned
    ) -> dict[str, Scorer]:
        """A scorer for each variant, FuzzyCLIP itself behind the untrained ones.

        Raises:
            ValueError: `test.weights` names a cluster that is not there, or there are fewer normal
                images than `shots`.
        """
        parts = TrainedParts(encode, learned, self.test)
        stacks = {
            "precise": [target.category],
            "object": ["object"],
            "stacked": list(target.categories),
            "stacked_auxiliary": list(learned.facts["names"]),
        }
        project = share_projection(encode.backbone)
        scorers = {
            variant: build_untrained(encode.backbone, encode.stack(names), encode(names), project)
            for variant, names in stacks.items()
            if variant in self.variants
        }
        for moment in _list_moments(learned):
            earlier = parts.load_heads(f"epoch{moment:g}.")
            scorers[name_moment(moment)] = parts.build_scorer(target.category, earlier)
        scorers[OWN] = parts.build_scorer(target.category)
        if self.shots:
            backbone = encode.backbone
            tokens = target.load_references(max(self.shots))
            for count in self.shots:
                memory = remember(tokens[:count], backbone.grid, backbone.image_size)
                scorers[name_shots(count)] = replace(scorers[OWN], memory=memory)
        return scorers


def _list_moments(learned: Learned) -> list[float]:
    """Earlier moments of which EFA's layers are kept, in epochs, ascending."""
    known = (re.match(r"epoch(\d+(?:\.\d+)?)\.", name) for name in learned.tensors)
    return sorted({float(moment[1]) for moment in known if moment})


def load_heads(backbone: Backbone, tensors: Mapping[str, Tensor], prefix: str) -> Heads:
    """One cluster's layers from the tensors whose names begin with a prefix.

    Raises:
        ValueError: they are not layers of this backbone.
    """
    heads = Heads(len(backbone.blocks), backbone.vision_width, backbone.embed_dim)
    own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    try:
        heads.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"EFA's layers {prefix}* do not fit this backbone: {error}") from error
    return heads.to(backbone.device).eval()


def _choose_clusters(weights: str | int, count: int) -> list[int]:
    """Clusters that take part, from 0: all, or the one that is named from 1 (Table 5)."""
    if isinstance(weights, str):
        return list(range(count))
    if not 1 <= weights <= count:
        raise ValueError(f"efa.test.weights: {weights} names a cluster, but there are {count}")
    return [weights - 1]


def _encode_anchors(
    encode: NameEncoder, clusters: Sequence[Sequence[str]], kind: str | int
) -> Tensor | None:
    """Anchors that weigh the clusters, (K, D), where they do not depend on the tested category."""
    if kind == "train_cluster":
        return torch.stack([encode(names)[:, 0] for names in clusters])
    if kind == "center":
        means = [
            torch.stack([encode([name])[:, 0] for name in names]).mean(dim=0) for names in clusters
        ]
        return normalise(torch.stack(means))
    return None


METHOD = FuzzyClip
