"""efa: train one set of linear layers a cluster, on the auxiliary set's test images and masks."""

import json
import logging
from pathlib import Path

from torch import Tensor

from fuzzyclip.backbone import Backbone
from fuzzyclip.efa_training import TrainingImages, train_heads
from fuzzyclip.mosaic import plan_mosaics
from fuzzyclip.tensor_files import write_tensors
from stages import paths
from stages.clip import CLIP_PARAMS, encode_names, load_clip
from stages.members import AuxiliarySet, open_auxiliary
from stages.params import choose, load_params
from stages.run import run_stage
from stages.schema import Params
from stages.training_files import checkpoint_path, write_curve

PARAMS = (*CLIP_PARAMS, "seed", "text", "efa.train")

log = logging.getLogger(__name__)


def main(key: str) -> None:
    """Make models/<key>/efa.safetensors and its training curve."""
    params = load_params(PARAMS, key=key)
    partition = json.loads(paths.partition(key).read_text())
    backbone = load_clip(params)
    auxiliary = open_auxiliary(key, backbone)
    if unmasked := auxiliary.find_unmasked():
        raise ValueError(
            f"auxiliary.{key}: {', '.join(unmasked)} has anomalous images without masks; EFA "
            "learns from masks, so it can be tested on but not trained on"
        )
    training = params.efa.train
    learning_rate = choose(training.learning_rate, key, "efa.train.learning_rate")
    mosaic = choose(params.efa.train.mosaic, key, "efa.train.mosaic")
    header = {
        "kind": "efa",
        "auxiliary": key,
        "datasets": partition["datasets"],
        "clusters": partition["clusters"],
        "backbone": backbone.fingerprint,
        "settings": {
            "epochs": training.epochs,
            "batch_size": training.batch_size,
            "learning_rate": learning_rate,
            "mosaic": mosaic,
            "seed": params.seed,
        },
    }
    tensors: dict[str, Tensor] = {}
    curves = []
    checkpoints = [checkpoint_path(key, header, i) for i in range(len(partition["clusters"]))]
    for number, cluster in enumerate(partition["clusters"]):
        images = gather_images(params, backbone, auxiliary, cluster["names"], mosaic)
        log.info("cluster %d: %d images, prompt %r", number, len(images), cluster["stack"])
        layers, curve = train_heads(
            images,
            encode_names(backbone, params, cluster["names"]),
            epochs=training.epochs,
            batch_size=training.batch_size,
            learning_rate=learning_rate,
            seed=params.seed,
            checkpoint=checkpoints[number],
            description=f"EFA {key}/{number}",
        )
        tensors |= {f"cluster{number}.{name}": value for name, value in layers.state_dict().items()}
        curves += [{"cluster": number} | row for row in curve]
    write_tensors(paths.heads(key), tensors, header)
    write_curve(paths.curve("efa", key), curves)
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)


def gather_images(
    params: Params,
    backbone: Backbone,
    auxiliary: AuxiliarySet,
    names: list[str],
    mosaic: float,
) -> TrainingImages:
    """The images of one cluster, with the plan of its mosaics."""
    rows = auxiliary.rows[auxiliary.rows["name"].isin(names)].reset_index(drop=True)
    return TrainingImages(
        rows=rows,
        root=Path(),
        features=[auxiliary.features[member] for member in rows["member"]],
        places=rows["place"].tolist(),
        backbone=backbone,
        mosaics=plan_mosaics(rows["member"].tolist(), params.efa.train.epochs, mosaic, params.seed),
        workers=params.machine.workers,
    )


if __name__ == "__main__":
    run_stage("efa", main, keyed=True)
