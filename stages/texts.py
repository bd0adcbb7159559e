"""The text side of an evaluation: a scorer for each row of the tables."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.evaluation.rows import TRAINED, name_shots
from fuzzyclip.method.fuzzyclip import TrainedParts
from fuzzyclip.method.normal_memory import NormalMemory
from fuzzyclip.method.scorer import Scorer, build_untrained, share_projection
from fuzzyclip.settings import EfaTest
from stages.clip import make_encoder
from stages.schema import Params


def name_epoch(epoch: int) -> str:
    """Row of the layers as they were after an epoch."""
    return f"{TRAINED}_epoch_{epoch}"


class SharedTexts:
    """Text features of a dataset's evaluation; those that categories share are encoded once."""

    def __init__(
        self,
        backbone: Backbone,
        params: Params,
        test: EfaTest,
        model: dict[str, Any],
        tested: list[str],
    ) -> None:
        """Encode what all categories share.

        Args:
            backbone: the frozen CLIP.
            params: the stage's.
            test: how the trained layers are used.
            model: from `read_model`.
            tested: prompt names of the tested categories.
        """
        self.backbone = backbone
        self.encode = make_encoder(backbone, params)
        self.rows: list[str] = list(params.evaluation.rows)
        stacks = {
            "object": ["object"],
            "stacked": tested,
            "stacked_auxiliary": model["partition"]["names"],
        }
        self.shared = {
            name: (self.encode.stack(names), self.encode(names))
            for name, names in stacks.items()
            if name in self.rows
        }
        clusters = [cluster["names"] for cluster in model["partition"]["clusters"]]
        self.parts = TrainedParts(
            self.encode,
            clusters,
            model["rpl"]["text_embed"],
            model["rpl_header"]["settings"]["temperature"],
            test,
        )
        found = {int(one[1]) for name in model["efa"] if (one := re.match(r"epoch(\d+)\.", name))}
        self.heads = self.parts.load_heads(model["efa"])
        self.earlier = {
            epoch: self.parts.load_heads(model["efa"], f"epoch{epoch}.") for epoch in sorted(found)
        }

    def build_scorers(
        self, category: str, memories: Mapping[int, NormalMemory] | None = None
    ) -> dict[str, Scorer]:
        """A scorer for each row of the tables.

        Args:
            category: its prompt name.
            memories: of so many good images of it, each with a row of its own.
        """
        scorers: dict[str, Scorer] = {}
        project = share_projection(self.backbone)
        for name in self.rows:
            if name == "precise":
                own = self.encode([category])
                scorers[name] = build_untrained(self.backbone, category, own, project)
            elif name in self.shared:
                scorers[name] = build_untrained(self.backbone, *self.shared[name], project)
            else:
                for epoch, heads in self.earlier.items():
                    scorers[name_epoch(epoch)] = self.parts.build_scorer(category, heads)
                scorers[name] = self.parts.build_scorer(category, self.heads)
        for shots, memory in (memories or {}).items():
            scorers[name_shots(shots)] = replace(scorers[TRAINED], memory=memory)
        return scorers
