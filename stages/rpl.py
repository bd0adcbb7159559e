"""rpl: learn the two prompts for classification, held near the stacked prompt."""

import torch

from fuzzyclip.method.rpl import choose_stack, fit_prompts
from fuzzyclip.utils.settings import RplSettings
from fuzzyclip.utils.tensor_files import write_tensors
from stages import paths
from stages.clip import load_clip, make_encoder
from stages.params import choose_settings, load_params
from stages.run import run_stage
from stages.stored import checkpoint_path, open_auxiliary, read_manifest, write_curve
from stages.times import keep_time, watch_training


def main(key: str) -> None:
    """Make models/<key>/rpl.safetensors and its training curve.

    One set of prompts whatever the partition, so a changed partition does not rerun it.
    """
    params = load_params("rpl", key)
    settings = choose_settings(RplSettings, params, "rpl", key)
    backbone = load_clip(params)
    encode = make_encoder(backbone, params.text)
    auxiliary = open_auxiliary(key, backbone)
    header = {
        "kind": "rpl",
        "auxiliary": key,
        "datasets": [member["dataset"] for member in read_manifest(key)["members"]],
        "stack": encode.stack(choose_stack(settings, auxiliary.names)),
        "backbone": backbone.fingerprint,
        "settings": settings.model_dump() | {"seed": params.seed},
    }
    checkpoint = checkpoint_path(key, header)
    with watch_training([checkpoint]) as watch:
        tensors, curve = fit_prompts(
            encode,
            auxiliary.image_embed,
            torch.tensor(auxiliary.rows["label"].to_numpy()),
            auxiliary.names,
            settings,
            params.seed,
            checkpoint=checkpoint,
            description=f"RPL {key}",
        )
    write_tensors(paths.prompts(key), tensors, header)
    keep_time(paths.prompts(key), watch)
    write_curve(paths.curve("rpl", key), curve)
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    run_stage(rpl=main)
