"""auxiliary: what an auxiliary set consists of, by content.

A set may merge several datasets, which DVC's foreach can not list as dependencies. This stage
depends on all features and writes a small manifest of the members' own; it is cheap, and the
training stages depend on the manifest alone, so another dataset's change retrains nothing.
"""

from typing import Any

from fuzzyclip.images.index_file import read_info
from fuzzyclip.utils.files import compute_sha256, write_json
from stages import paths
from stages.params import load_params
from stages.run import run_stage


def main(key: str) -> None:
    """Make data/auxiliary/<key>.json."""
    params = load_params("auxiliary", key)
    members = [describe(name) for name in params.auxiliary[key]]
    prompts = [category["prompt"] for member in members for category in member["categories"]]
    # Categories that share a prompt name (VisA's four circuit boards in words) are one to CSP.
    names = list(dict.fromkeys(prompts))
    write_json(paths.auxiliary(key), {"auxiliary": key, "names": names, "members": members})


def describe(dataset: str) -> dict[str, Any]:
    """One member: origin, categories in dataset order with prompt names, digests of its inputs."""
    info, features = read_info(paths.index_info(dataset)), paths.features(dataset)
    return {
        "dataset": dataset,
        "source": info["source"],
        "licence": info["licence"],
        "categories": [
            {"category": name, "prompt": prompt} for name, prompt in info["prompts"].items()
        ],
        "index_sha256": compute_sha256(paths.index(dataset)),
        "features_sha256": {
            shard.relative_to(features).as_posix(): compute_sha256(shard)
            for shard in sorted(features.glob("*/*.safetensors"))
        },
    }


if __name__ == "__main__":
    run_stage(auxiliary=main)
