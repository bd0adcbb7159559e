"""efa: train one set of linear layers a cluster, on the auxiliary set's test images and masks."""

import json

from fuzzyclip.method.efa_training import find_short_clusters, list_kept, train_clusters
from fuzzyclip.method.training_set import make_training_set
from fuzzyclip.utils.settings import EfaTraining
from fuzzyclip.utils.tensor_files import write_tensors
from stages import paths
from stages.clip import load_clip, make_encoder
from stages.params import choose_settings, load_params
from stages.run import run_stage
from stages.stored import check_masks, checkpoint_path, open_auxiliary, write_curve
from stages.times import keep_time, watch_training


def main(key: str) -> None:
    """Make models/<key>/efa.safetensors and its training curve."""
    params = load_params("efa", key)
    partition = json.loads(paths.partition(key).read_text())
    settings = choose_settings(EfaTraining, params, "efa.train", key)
    backbone = load_clip(params)
    auxiliary = open_auxiliary(key, backbone)
    check_masks(key, auxiliary, "EFA")
    clusters = [cluster["names"] for cluster in partition["clusters"]]
    owners = auxiliary.rows["name"].tolist()
    header = {
        "kind": "efa",
        "auxiliary": key,
        "datasets": partition["datasets"],
        "clusters": partition["clusters"],
        "short_clusters": find_short_clusters(owners, clusters, settings),
        "backbone": backbone.fingerprint,
        "settings": settings.model_dump() | {"seed": params.seed},
    }
    checkpoints = [checkpoint_path(key, header, number) for number in range(len(clusters))]
    images = make_training_set(
        auxiliary,
        backbone,
        workers=params.machine.workers,
        mosaics=paths.MOSAICS,
        dtype=params.features.dtype,
    )
    with watch_training(checkpoints) as watch:
        tensors, curve = train_clusters(
            make_encoder(backbone, params.text),
            images,
            clusters,
            settings,
            params.seed,
            checkpoints=checkpoints,
            description=f"EFA {key}",
        )
    write_tensors(paths.heads(key), tensors, header)
    keep_time(paths.heads(key), watch)
    write_curve(paths.curve("efa", key), curve)
    for checkpoint in checkpoints:
        for path in (checkpoint, *list_kept(checkpoint, settings).values()):
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    run_stage(efa=main)
