"""rpl: learn the two prompts for classification, held near the stacked prompt."""

import torch

from fuzzyclip.clip.prompts import stack_names
from fuzzyclip.method.rpl_training import train_prompts
from fuzzyclip.settings import RplSettings
from fuzzyclip.utils.tensor_files import write_tensors
from stages import paths
from stages.clip import CLIP_PARAMS, encode_names, load_clip
from stages.members import open_auxiliary, read_manifest
from stages.params import choose_settings, load_params
from stages.run import run_stage
from stages.training_files import checkpoint_path, write_curve

PARAMS = (*CLIP_PARAMS, "seed", "text", "data.source", "rpl")


def main(key: str) -> None:
    """Make models/<key>/rpl.safetensors and its training curve.

    One set of prompts whatever the partition: all auxiliary names in one stack (section 3.1.2 and
    appendix A.4), so a changed partition does not rerun it.
    """
    params = load_params(PARAMS, key=key)
    settings = choose_settings(RplSettings, params, "rpl", key)
    backbone = load_clip(params)
    auxiliary = open_auxiliary(key, backbone)
    names = ["object"] if settings.stack == "object" else auxiliary.names
    stack = stack_names(names, params.text.separator, params.text.underscore)
    header = {
        "kind": "rpl",
        "auxiliary": key,
        "datasets": [member["dataset"] for member in read_manifest(key)["members"]],
        "stack": stack,
        "backbone": backbone.fingerprint,
        "settings": settings.model_dump() | {"seed": params.seed},
    }
    checkpoint = checkpoint_path(key, header, 0)
    learner, learned, curve = train_prompts(
        backbone,
        auxiliary.image_embed,
        torch.tensor(auxiliary.rows["label"].to_numpy()),
        encode_names(backbone, params, names),
        stack,
        shape=settings,
        temperature=settings.temperature,
        text_weight=settings.weigh_text(backbone.embed_dim),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=params.seed,
        checkpoint=checkpoint,
        description=f"RPL {key}",
    )
    tensors = {"text_embed": learned} | dict(learner.state_dict())
    write_tensors(paths.prompts(key), tensors, header)
    write_curve(paths.curve("rpl", key), curve)
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    run_stage("rpl", main, keyed=True)
