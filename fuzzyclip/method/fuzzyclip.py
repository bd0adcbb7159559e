"""The trained parts of FuzzyCLIP together: from a category's name to its scorer.

Shapes: K chosen clusters, D embedding width.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.name_encoder import NameEncoder
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.scorer import Scorer, build_trained, describe_test_prompt
from fuzzyclip.settings import EfaTest


class TrainedParts:
    """CSP's clusters, EFA's layers and RPL's text features, ready for any category."""

    def __init__(
        self,
        encode: NameEncoder,
        clusters: Sequence[Sequence[str]],
        learned_embed: Tensor,
        temperature: float,
        test: EfaTest,
    ) -> None:
        """Encode what all categories share.

        Args:
            encode: names to text features.
            clusters: names of each cluster.
            learned_embed: (2, D), RPL's text features.
            temperature: factor on the cosines that they were trained with; image scores have it
                too, so that their log-odds are the trained ones.
            test: how the parts are used.

        Raises:
            ValueError: `test.weights` names a cluster that is not there.
        """
        self.encode, self.test = encode, test
        self.learned_embed, self.temperature = learned_embed, temperature
        chosen = _choose_clusters(test.weights, len(clusters))
        self.chosen = chosen
        self.clusters = [list(clusters[number]) for number in chosen]
        self.anchors = _encode_anchors(encode, self.clusters, test.weights)

    def load_heads(self, tensors: Mapping[str, Tensor], prefix: str = "") -> list[Heads]:
        """Layers of the chosen clusters out of an EFA file's tensors."""
        backbone = self.encode.backbone
        return [
            load_heads(backbone, tensors, f"{prefix}cluster{number}.") for number in self.chosen
        ]

    def build_scorer(self, category: str, heads: Sequence[Heads]) -> Scorer:
        """The scorer of one category.

        Args:
            category: its name in prompts.
            heads: from `load_heads`.
        """
        prefix, with_cluster, suffix = describe_test_prompt(self.test.prompt, category)
        embeds, said = [], []
        for cluster in self.clusters:
            names = cluster if with_cluster else [prefix]
            before, after = (prefix, suffix) if with_cluster else ("", "")
            embeds.append(self.encode(names, before, after))
            stack = self.encode.stack(names)
            said.append(" ".join(part for part in (before, stack, after) if part))
        tests = torch.stack(embeds)  # (K, D, 2)
        return build_trained(
            self.encode.backbone,
            " | ".join(said),
            heads,
            tests,
            tests[:, :, 0] if self.test.weights == "eq11" else self.anchors,
            self.test.temperature,
            self.learned_embed,
            self.temperature,
        )


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
    """Which clusters take part, from 0: all, or the one that is named from 1 (Table 5).

    Raises:
        ValueError: there is no such cluster.
    """
    if isinstance(weights, str):
        return list(range(count))
    if not 1 <= weights <= count:
        raise ValueError(f"efa.test.weights: {weights} names a cluster, but there are {count}")
    return [weights - 1]


def _encode_anchors(
    encode: NameEncoder, clusters: Sequence[Sequence[str]], kind: str | int
) -> Tensor | None:
    """What weighs the clusters, (K, D), where it does not depend on the tested category."""
    if kind == "train_cluster":
        return torch.stack([encode(names)[:, 0] for names in clusters])
    if kind == "center":
        means = [
            torch.stack([encode([name])[:, 0] for name in names]).mean(dim=0) for names in clusters
        ]
        return normalise(torch.stack(means))
    return None
