"""The text side of an evaluation: a scorer for each row of the tables."""

import re
from typing import Any

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.efa import Heads
from fuzzyclip.rows import TRAINED
from fuzzyclip.scoring import (
    Scorer,
    build_trained,
    build_untrained,
    describe_test_prompt,
    share_projection,
)
from fuzzyclip.text import stack_names
from stages.clip import encode_names
from stages.schema import Params


def name_epoch(epoch: int) -> str:
    """Row of the layers as they were after an epoch."""
    return f"{TRAINED}_epoch_{epoch}"


class SharedTexts:
    """Text features of a dataset's evaluation; those that categories share are encoded once."""

    def __init__(
        self, backbone: Backbone, params: Params, model: dict[str, Any], tested: list[str]
    ) -> None:
        """Encode what all categories share.

        Args:
            backbone: the frozen CLIP.
            params: the stage's.
            model: from `read_model`.
            tested: prompt names of the tested categories.
        """
        self.backbone, self.params, self.model = backbone, params, model
        self.rows: list[str] = list(params.evaluation.rows)
        self.clusters = [cluster["names"] for cluster in model["partition"]["clusters"]]
        stacks = {
            "object": ["object"],
            "stacked": tested,
            "stacked_auxiliary": model["partition"]["names"],
        }
        self.shared = {
            name: (self._stack(names), self._encode(names))
            for name, names in stacks.items()
            if name in self.rows
        }
        self.chosen = self._choose_clusters(params.efa.test.weights)
        found = {int(one[1]) for name in model["efa"] if (one := re.match(r"epoch(\d+)\.", name))}
        self.heads = self._load_all_heads("")
        self.earlier = {epoch: self._load_all_heads(f"epoch{epoch}.") for epoch in sorted(found)}
        self.anchors = self._encode_anchors(params.efa.test.weights)

    def build_scorers(self, category: str) -> dict[str, Scorer]:
        """A scorer for each row of the tables, for one category by its prompt name."""
        scorers: dict[str, Scorer] = {}
        project = share_projection(self.backbone)
        for name in self.rows:
            if name == "precise":
                own = self._encode([category])
                scorers[name] = build_untrained(self.backbone, category, own, project)
            elif name in self.shared:
                scorers[name] = build_untrained(self.backbone, *self.shared[name], project)
            else:
                for epoch, heads in self.earlier.items():
                    scorers[name_epoch(epoch)] = self._build_trained(category, heads)
                scorers[name] = self._build_trained(category, self.heads)
        return scorers

    def _build_trained(self, category: str, heads: list[Heads]) -> Scorer:
        test = self.params.efa.test
        prefix, with_cluster, suffix = describe_test_prompt(test.prompt, category)
        embeds, said = [], []
        for number in self.chosen:
            names = self.clusters[number] if with_cluster else [prefix]
            before, after = (prefix, suffix) if with_cluster else ("", "")
            embeds.append(self._encode(names, before, after))
            said.append(" ".join(part for part in (before, self._stack(names), after) if part))
        tests = torch.stack(embeds)  # (K, D, 2)
        return build_trained(
            self.backbone,
            " | ".join(said),
            heads,
            tests,
            tests[:, :, 0] if test.weights == "eq11" else self.anchors,
            test.temperature,
            self.model["rpl"]["text_embed"],
        )

    def _encode_anchors(self, kind: str | int) -> Tensor | None:
        """What weighs the clusters, (K, D), where it does not depend on the tested category."""
        if kind == "train_cluster":
            return torch.stack([self._encode(names)[:, 0] for names in self.clusters])
        if kind == "center":
            means = [
                torch.stack([self._encode([name])[:, 0] for name in names]).mean(dim=0)
                for names in self.clusters
            ]
            return normalise(torch.stack(means))
        return None

    def _choose_clusters(self, weights: str | int) -> list[int]:
        """Which clusters take part, from 0: all, or the one that is named from 1 (Table 5).

        Raises:
            ValueError: there is no such cluster.
        """
        if isinstance(weights, str):
            return list(range(len(self.clusters)))
        if weights > len(self.clusters):
            raise ValueError(
                f"efa.test.weights: {weights} names a cluster, but there are {len(self.clusters)}"
            )
        return [weights - 1]

    def _load_all_heads(self, prefix: str) -> list[Heads]:
        return [self._load_heads(f"{prefix}cluster{number}.") for number in self.chosen]

    def _load_heads(self, prefix: str) -> Heads:
        backbone = self.backbone
        heads = Heads(len(backbone.blocks), backbone.vision_width, backbone.embed_dim)
        tensors = self.model["efa"].items()
        heads.load_state_dict(
            {name.removeprefix(prefix): t for name, t in tensors if name.startswith(prefix)}
        )
        return heads.to(backbone.device).eval()

    def _encode(self, names: list[str], prefix: str = "", suffix: str = "") -> Tensor:
        return encode_names(self.backbone, self.params, names, prefix, suffix)

    def _stack(self, names: list[str]) -> str:
        return stack_names(names, self.params.text.separator, self.params.text.underscore)
