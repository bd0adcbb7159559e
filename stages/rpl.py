"""rpl: learn the two prompts for classification, held near the stacked prompt."""

import json

import torch

from fuzzyclip.clip.prompts import stack_names
from fuzzyclip.method.rpl import PromptShape
from fuzzyclip.method.rpl_training import train_prompts
from fuzzyclip.utils.tensor_files import write_tensors
from stages import paths
from stages.clip import CLIP_PARAMS, encode_names, load_clip
from stages.members import open_auxiliary, read_manifest
from stages.params import choose, load_params
from stages.run import run_stage
from stages.trained import checkpoint_path, write_curve

PARAMS = (*CLIP_PARAMS, "seed", "text", "data.source", "rpl")


def main(key: str) -> None:
    """Make models/<key>/rpl.safetensors and its training curve.

    One set of prompts whatever the partition: all auxiliary names in one stack (section 3.1.2 and
    appendix A.4), so a changed partition does not rerun it.
    """
    params = load_params(PARAMS, key=key)
    rpl = params.rpl
    backbone = load_clip(params)
    auxiliary = open_auxiliary(key, backbone)
    names = ["object"] if rpl.stack == "object" else auxiliary.names
    stack = stack_names(names, params.text.separator, params.text.underscore)
    shape = PromptShape(
        template=rpl.template,
        layout=rpl.layout,
        words=rpl.words,
        deep_tokens=rpl.deep_tokens,
        depth=rpl.depth,
        attachment=rpl.attachment,
        deep_per_side=rpl.deep_per_side,
    )
    epochs = choose(rpl.epochs, key, "rpl.epochs", default=params.data.source)
    learning_rate = choose(rpl.learning_rate, key, "rpl.learning_rate")
    weight = float(backbone.embed_dim) if rpl.text_weight == "scaled" else rpl.text_weight
    header = {
        "kind": "rpl",
        "auxiliary": key,
        "datasets": [member["dataset"] for member in read_manifest(key)["members"]],
        "stack": stack,
        "backbone": backbone.fingerprint,
        "settings": json.loads(rpl.model_dump_json())
        | {"epochs": epochs, "learning_rate": learning_rate, "seed": params.seed},
    }
    checkpoint = checkpoint_path(key, header, 0)
    learner, learned, curve = train_prompts(
        backbone,
        auxiliary.image_embed,
        torch.tensor(auxiliary.rows["label"].to_numpy()),
        encode_names(backbone, params, names),
        stack,
        shape=shape,
        temperature=rpl.temperature,
        text_weight=weight,
        epochs=epochs,
        batch_size=rpl.batch_size,
        learning_rate=learning_rate,
        seed=params.seed,
        checkpoint=checkpoint,
        description=f"RPL {key}",
    )
    tensors = {"text_embed": learned} | dict(learner.state_dict())
    write_tensors(paths.prompts(key), tensors, header)
    write_curve(paths.curve("rpl", key), curve)
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    run_stage(rpl=main)
