"""efa: train one set of linear layers a cluster, on the auxiliary set's test images and masks."""

import json
import logging
from pathlib import Path

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.method.efa import Heads
from fuzzyclip.method.efa_training import TrainingImages, train_heads
from fuzzyclip.method.mosaic import MosaicPlan, plan_mosaics
from fuzzyclip.method.mosaic_cache import MosaicCache
from fuzzyclip.method.training import CurveRow
from fuzzyclip.settings import EfaTraining
from fuzzyclip.utils.files import BrokenFileError
from fuzzyclip.utils.schemas import Seed
from fuzzyclip.utils.tensor_files import read_tensors, write_tensors
from stages import paths
from stages.clip import CLIP_PARAMS, encode_names, load_clip
from stages.members import AuxiliarySet, open_auxiliary
from stages.params import choose_settings, load_params
from stages.run import run_stage
from stages.schema import Params
from stages.training_files import checkpoint_path, write_curve

PARAMS = (*CLIP_PARAMS, "seed", "text", "features.dtype", "data.source", "efa.train")

log = logging.getLogger(__name__)


class Recipe(EfaTraining):
    """The settings of one auxiliary set's training, and the seed."""

    seed: Seed


def main(key: str) -> None:
    """Make models/<key>/efa.safetensors and its training curve."""
    params = load_params(PARAMS, key=key)
    partition = json.loads(paths.partition(key).read_text())
    backbone = load_clip(params)
    auxiliary = open_auxiliary(key, backbone)
    check_masks(key, auxiliary)
    recipe = choose_recipe(params, key)
    header = {
        "kind": "efa",
        "auxiliary": key,
        "datasets": partition["datasets"],
        "clusters": partition["clusters"],
        "backbone": backbone.fingerprint,
        "settings": recipe.model_dump(),
    }
    plan = plan_mosaics(
        auxiliary.rows["member"].tolist(), recipe.epochs, recipe.mosaic, recipe.seed
    )
    tensors: dict[str, Tensor] = {}
    curves = []
    checkpoints = [checkpoint_path(key, header, i) for i in range(len(partition["clusters"]))]
    for number, cluster in enumerate(partition["clusters"]):
        images = gather_images(params, backbone, auxiliary, cluster["names"], plan)
        log.info("cluster %d: %d images, prompt %r", number, len(images), cluster["stack"])
        text = encode_prompts(params, backbone, recipe.prompt, cluster["names"], images)
        layers, curve = train_cluster(images, text, recipe, checkpoints[number], f"{key}/{number}")
        tensors |= {name.format(f"cluster{number}"): value for name, value in layers.items()}
        curves += [{"cluster": number} | row for row in curve]
    write_tensors(paths.heads(key), tensors, header)
    write_curve(paths.curve("efa", key), curves)
    for checkpoint in checkpoints:
        for path in checkpoint.parent.glob(f"{checkpoint.stem}*"):
            path.unlink()


def check_masks(key: str, auxiliary: AuxiliarySet) -> None:
    """Refuse an auxiliary set that cannot teach where a defect is."""
    if unmasked := auxiliary.find_unmasked():
        raise ValueError(
            f"auxiliary.{key}: {', '.join(unmasked)} has anomalous images without masks; EFA "
            "learns from masks, so it can be tested on but not trained on"
        )


def choose_recipe(params: Params, key: str) -> Recipe:
    """The settings for one auxiliary set."""
    settings = choose_settings(EfaTraining, params, "efa.train", key)
    return Recipe(**settings.model_dump(), seed=params.seed)


def encode_prompts(
    params: Params, backbone: Backbone, prompt: str, names: list[str], images: TrainingImages
) -> Tensor:
    """What the layers are trained against: one feature (D, 2), or one for each row (N, D, 2)."""
    if prompt == "precise":
        own = {name: encode_names(backbone, params, [name]) for name in names}
        return torch.stack([own[name] for name in images.rows["name"]])
    return encode_names(backbone, params, ["object"] if prompt == "object" else names)


def train_cluster(
    images: TrainingImages, text: Tensor, recipe: Recipe, checkpoint: Path, label: str
) -> tuple[dict[str, Tensor], list[CurveRow]]:
    """One cluster's tensors, names with a place for the cluster, and its curve.

    With `keep: all` the layers as they were after each earlier epoch come along. They are written
    beside the checkpoint at once: a training that goes on after a kill has passed some already.
    Where one of those is broken or gone by then, the training begins anew.
    """

    def locate(epoch: int) -> Path:
        return checkpoint.with_name(f"{checkpoint.stem}-epoch{epoch}.safetensors")

    def keep(epoch: int, heads: Heads) -> None:
        if recipe.keep == "all" and epoch < recipe.epochs:
            write_tensors(locate(epoch), dict(heads.state_dict()), {})

    def fit() -> tuple[Heads, list[CurveRow]]:
        return train_heads(
            images,
            text,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            seed=recipe.seed,
            checkpoint=checkpoint,
            after_epoch=keep,
            description=f"EFA {label}",
        )

    def read_epochs() -> dict[str, Tensor]:
        kept = range(1, recipe.epochs) if recipe.keep == "all" else ()
        return {
            f"epoch{epoch}.{{}}.{name}": value
            for epoch in kept
            for name, value in read_tensors(locate(epoch))[0].items()
        }

    layers, curve = fit()
    try:
        earlier = read_epochs()
    except (BrokenFileError, FileNotFoundError) as error:
        log.warning("%s; the training of %s begins anew", error, label)
        checkpoint.unlink(missing_ok=True)
        layers, curve = fit()
        earlier = read_epochs()
    return {f"{{}}.{name}": value for name, value in layers.state_dict().items()} | earlier, curve


def gather_images(
    params: Params,
    backbone: Backbone,
    auxiliary: AuxiliarySet,
    names: list[str],
    plan: MosaicPlan,
) -> TrainingImages:
    """The images of one cluster, with its part of the plan of mosaics."""
    chosen = auxiliary.rows[auxiliary.rows["name"].isin(names)]
    place = {row: number for number, row in enumerate(chosen.index)}
    rows = chosen.reset_index(drop=True)
    mosaics = {
        (epoch, place[row]): (place[a], place[b], place[c], place[d])
        for (epoch, row), (a, b, c, d) in plan.items()
        if row in place
    }
    return TrainingImages(
        rows=rows,
        root=Path(),
        features=[auxiliary.features[member] for member in rows["member"]],
        places=rows["place"].tolist(),
        backbone=backbone,
        mosaics=mosaics,
        cache=MosaicCache(paths.MOSAICS, backbone, params.features.dtype),
        workers=params.machine.workers,
    )


if __name__ == "__main__":
    run_stage("efa", main, keyed=True)
