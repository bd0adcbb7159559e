"""From a row of the catalog to a complete set of parameters, and what its run costs."""

import copy
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any, NamedTuple

import torch

from fuzzyclip.clip.model_configs import read_model_config
from fuzzyclip.datasets import get_dataset
from fuzzyclip.features.shards import count_bytes
from fuzzyclip.images.index_file import read_info
from fuzzyclip.method.csp import partition_as_paper
from fuzzyclip.sample.archives import sample_categories
from fuzzyclip.utils.faults import naming
from stages import paths
from stages.experiments.catalog import Catalog, CatalogError, TableRow
from stages.experiments.results import Results
from stages.schema import Params
from stages.values import resolve
from stages.yaml_file import read_yaml

#: Parameters that change no result of FuzzyCLIP.
IRRELEVANT = ("machine", "tracking", "allow_unverified", "methods", "towers", "views")
#: Sections of which a run needs those keys that it names.
KEYED = ("datasets", "auxiliary", "pairs")


@dataclass(frozen=True)
class Run:
    """One run of the pipeline, for a row of an experiment, with all of its params.yaml.

    `results` are None while it is not done.
    """

    experiment: str
    row: TableRow
    seed: int
    params: dict[str, Any]
    results: Results | None = None

    @property
    def identity(self) -> str:
        """The parameters that decide its results, as text: equal ones are one run."""
        return json.dumps(select_relevant(self.params, self.params), sort_keys=True)

    @property
    def name(self) -> str:
        """Name of DVC's experiment: no two runs with other parameters."""
        label = re.sub(r"[^a-z0-9]+", "-", self.row.label.lower()).strip("-")[:40]
        digest = hashlib.sha256(self.identity.encode()).hexdigest()
        return f"{self.experiment}-{label}-seed{self.seed}-{digest[:6]}"

    def resolve(self, key: str, auxiliary: str) -> dict[str, Any]:
        """Settings of a section, such as rpl or efa.train, as they are for an auxiliary set."""
        block = reduce(getitem, key.split("."), self.params)
        return resolve(block, auxiliary, self.params["data"]["source"], key)


def plan_runs(catalog: Catalog, name: str, base: dict[str, Any], seeds: int = 1) -> list[Run]:
    """Every run of an experiment, rows in order, within each the base's seed and those after it.

    `base` is params.yaml as it stands: sample or official data, backbone and all that the
    experiment does not set.

    Raises:
        CatalogError: a row's parameters are refused; names the row and the key.
    """
    runs = []
    for row in catalog.get(name).measured:
        for seed in range(base["seed"], base["seed"] + seeds):
            params = build_params(catalog, row, base) | {"seed": seed}
            with naming(f"params.yaml with what {row.label} sets", CatalogError):
                Params.model_validate(params)
            runs.append(Run(name, row, seed, params))
    return runs


def build_params(catalog: Catalog, row: TableRow, base: dict[str, Any]) -> dict[str, Any]:
    """params.yaml of one row: its settings, and only the datasets that it needs.

    Raises:
        CatalogError: params.yaml lacks a dataset or a key that the row sets.
    """
    params = copy.deepcopy(base)
    sets = sorted(set(row.tests.values()))
    needed = [*row.tests, *(member for name in sets for member in catalog.auxiliary[name])]
    if missing := sorted(set(needed) - set(base["datasets"])):
        raise CatalogError(f"{row.label}: params.yaml has no datasets {', '.join(missing)}")
    params["datasets"] = {k: v for k, v in params["datasets"].items() if k in needed}
    params["auxiliary"] = {name: list(catalog.auxiliary[name]) for name in sets}
    params["pairs"] = dict(row.tests)
    for dotted, value in row.set.items():
        *sections, last = dotted.split(".")
        place = params
        for section in sections:
            place = place.get(section, {})
        if last not in place:
            raise CatalogError(f"{row.label}: params.yaml has no key {dotted}")
        place[last] = value
    return params


def drop_irrelevant(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that decide results; of the backbones the one in use."""
    kept = {name: value for name, value in params.items() if name not in IRRELEVANT}
    used, backbones = kept.get("backbone"), kept.get("backbones") or {}
    return kept | {"backbones": {used: backbones[used]} if used in backbones else {}}


def select_relevant(params: Mapping[str, Any], needed: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that decide a run's results, out of some that may be for more datasets.

    `needed` are the run's own, which name the datasets, auxiliary sets and pairs that it needs.
    """
    kept = drop_irrelevant(params)
    for section in KEYED:
        entries = kept.get(section) or {}
        kept[section] = {key: entries[key] for key in needed[section] if key in entries}
    return kept


def read_base() -> dict[str, Any]:
    """params.yaml as plain data; while runs change it, or after one was killed, as it was."""
    kept = paths.BEFORE_EXPERIMENTS / paths.PARAMS
    path = kept if kept.is_file() else paths.PARAMS
    data: dict[str, Any] = read_yaml(path)
    return data


class Cost(NamedTuple):
    """The cost of all runs together; they share what they can.

    Attributes:
        runs: runs of the pipeline.
        images: test images to encode once.
        mosaics: mosaics to encode once, expected number.
        heads: sets of EFA layers to train; with an unknown number of clusters, at least.
        prompts: RPL trainings.
        disk: bytes of patch tokens and class features.
    """

    runs: int
    images: int
    mosaics: int
    heads: int
    prompts: int
    disk: int


def estimate(runs: Sequence[Run]) -> Cost:
    """Add up an experiment's runs."""
    datasets: dict[str, int] = {}
    mosaics: dict[tuple[str, int], float] = {}
    heads: dict[str, int] = {}
    prompts: set[str] = set()
    for run in runs:
        params = run.params
        for name in params["datasets"]:
            datasets[name] = count_images(name, params)
        for name, members in params["auxiliary"].items():
            images = sum(datasets[member] for member in members)
            train = run.resolve("efa.train", name)
            epochs, share = train["epochs"], train["mosaic"]
            known = mosaics.get((name, run.seed), 0.0)
            mosaics[name, run.seed] = max(known, images * epochs * share)
            text = [params["text"], run.seed]
            clusters = params["csp"]["partition"]
            names = [name for member in members for name in list_categories(member, params)]
            numbers = {"auto": 1, "paper": len(partition_as_paper(names))}
            heads[repr([name, params["csp"], train, text])] = numbers.get(clusters, clusters)
            prompts.add(repr([name, params["rpl"], text]))
    return Cost(
        runs=len({run.identity for run in runs}),
        images=sum(datasets.values()),
        mosaics=round(sum(mosaics.values())),
        heads=sum(heads.values()),
        prompts=len(prompts),
        disk=sum(datasets.values()) * measure_image(runs[0].params) if runs else 0,
    )


def count_images(name: str, params: Mapping[str, Any]) -> int:
    """Test images of a dataset: those of its index, else the published or the sample's number."""
    settings = params["datasets"][name]
    if paths.index_info(name).is_file():
        info = read_info(paths.index_info(name))
        if (info["source"] == "sample") == (params["data"]["source"] == "sample"):
            counts = info["counts"].values()
            return sum(count["test_normal"] + count["test_anomalous"] for count in counts)
    spec = get_dataset(settings["kind"])
    if params["data"]["source"] == "sample":
        size = params["sample"]
        return len(sample_categories(spec.name)) * int(size["test_normal"] + size["test_anomalous"])
    protocol = spec.protocols[settings["protocol"]]
    if protocol.total is not None:
        return (protocol.total.test_normal or 0) + (protocol.total.test_anomalous or 0)
    wanted = [protocol.counts[category] for category in settings["categories"] or protocol.counts]
    return sum((count.test_normal or 0) + (count.test_anomalous or 0) for count in wanted)


def list_categories(name: str, params: Mapping[str, Any]) -> list[str]:
    """Categories of a dataset, as published or as params.yaml chooses them."""
    settings = params["datasets"][name]
    protocol = get_dataset(settings["kind"]).protocols[settings["protocol"]]
    return [*(settings["categories"] or protocol.counts)]


def measure_image(params: Mapping[str, Any]) -> int:
    """Bytes that the feature store keeps of one image."""
    settings = params["backbones"][params["backbone"]]
    config = read_model_config(settings["model"])
    vision = config["vision_cfg"]
    embed = 4 * int(config["embed_dim"])
    if params["features"]["tokens"] == "none":
        return embed
    if name := vision.get("timm_model_name"):
        import timm  # seconds to import, for models that few use

        with torch.device("meta"):  # built without memory for its weights
            trunk = timm.create_model(name)
        patch, width = trunk.patch_embed.patch_size[0], trunk.embed_dim
    else:
        patch, width = vision["patch_size"], vision["width"]
    tokens = len(settings["blocks"]) * (settings["image_size"] // patch) ** 2
    return embed + count_bytes(tokens, width, params["features"]["dtype"])
