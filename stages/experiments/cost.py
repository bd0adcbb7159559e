"""What an experiment costs from scratch: images to encode, layers and prompts to train, disk."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from fuzzyclip.clip.model_configs import read_model_config
from fuzzyclip.datasets import get_dataset
from fuzzyclip.features.packing import count_bytes
from fuzzyclip.images.index_file import read_info
from fuzzyclip.sample.archives import sample_categories
from stages import paths
from stages.experiments.archive import is_done
from stages.experiments.catalog import Catalog
from stages.experiments.plan import Run
from stages.params import resolve


class Cost(NamedTuple):
    """What all runs together cost; runs share what they can.

    Attributes:
        runs: runs of the pipeline, and how many of them are done.
        done: see `runs`.
        images: test images to encode once.
        mosaics: mosaics to encode once, expected number.
        heads: sets of EFA layers to train; with an unknown number of clusters, at least.
        prompts: RPL trainings.
        disk: bytes of patch tokens and class features.
    """

    runs: int
    done: int
    images: int
    mosaics: int
    heads: int
    prompts: int
    disk: int


def estimate(catalog: Catalog, runs: Sequence[Run]) -> Cost:
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
            source = params["data"]["source"]
            train = resolve(params["efa"]["train"], name, source, "efa.train")
            epochs, share = train["epochs"], train["mosaic"]
            known = mosaics.get((name, run.seed), 0.0)
            mosaics[name, run.seed] = max(known, images * epochs * share)
            text = [params["text"], run.seed]
            clusters = params["csp"]["partition"]
            heads[repr([name, params["csp"], train, text])] = clusters if clusters != "auto" else 1
            if clusters == "paper":
                heads[repr([name, params["csp"], train, text])] = 2
            prompts.add(repr([name, params["rpl"], text]))
    return Cost(
        runs=len({run.key for run in runs}),
        done=len({run.key for run in runs if is_done(run)}),
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
            return sum(one["test_good"] + one["test_bad"] for one in info["counts"].values())
    spec = get_dataset(settings["kind"])
    if params["data"]["source"] == "sample":
        size = params["sample"]
        return len(sample_categories(spec.name)) * int(size["test_good"] + size["test_bad"])
    protocol = spec.protocols[settings["protocol"]]
    if protocol.total is not None:
        return (protocol.total.test_good or 0) + (protocol.total.test_bad or 0)
    wanted = [protocol.counts[c] for c in settings["categories"] or protocol.counts]
    return sum((one.test_good or 0) + (one.test_bad or 0) for one in wanted)


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
