"""sample: the drawn archives of all datasets, in the layouts of the real ones.

Apart from `download`: a change of how toys are drawn must never fetch a real archive again. Where a
dataset's images are real ones its folder says so, and stays the same whatever is drawn.
"""

import shutil

from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.base.spec import DatasetSpec
from fuzzyclip.sample.archives import sample_categories, write_sample_archives
from fuzzyclip.utils.files import write_json
from fuzzyclip.utils.tree import DatasetError
from stages import paths
from stages.params import load_params
from stages.run import run_stage
from stages.schema import Dataset, Params


def main() -> None:
    """Make data/sample, a folder a dataset."""
    params = load_params("sample")
    for key in params.datasets:
        dataset, folder = params.datasets[key], paths.sample(key)
        spec = get_dataset(dataset.kind)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        drawn = params.data.source == "sample" and bool(spec.archives)
        note = draw(key, spec, dataset, params) if drawn else {"categories": None}
        write_json(paths.sample_note(key), note)


def draw(key: str, spec: DatasetSpec, dataset: Dataset, params: Params) -> dict[str, object]:
    """Draw a dataset's archives; what there is to know of them.

    Raises:
        DatasetError: nothing of this dataset, or of this protocol's archives, is drawn.
    """
    wanted = dataset.categories
    categories = [name for name in sample_categories(spec.name) if wanted is None or name in wanted]
    if not categories or spec.list_archives(dataset.protocol) != spec.archives:
        raise DatasetError(
            f"datasets.{key}: the sample draws nothing of {spec.title} for these categories and "
            f"the protocol {dataset.protocol}; set data.source: official, or remove the entry"
        )
    size = params.sample
    sha256 = write_sample_archives(
        spec.name,
        paths.sample(key),
        seed=size.seed,
        train_normal=size.train_normal,
        test_normal=size.test_normal,
        test_anomalous=size.test_anomalous,
    )
    return {"categories": categories, "sha256": sha256}


if __name__ == "__main__":
    run_stage(sample=main)
