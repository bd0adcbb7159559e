"""The sample's archives: drawn parts under the official archive names of the seven datasets.

They go through the same fetching, extraction and indexing as the real archives; only their
checksums and counts are their own.
"""

from pathlib import Path

from fuzzyclip.datasets import get_dataset
from fuzzyclip.datasets.fetching.fetch import wanted_archives
from fuzzyclip.sample.evaluation_recipes import EVALUATION
from fuzzyclip.sample.layouts import LAYOUTS, Order
from fuzzyclip.sample.members import write_archive
from fuzzyclip.utils.files import compute_sha256


def sample_categories(dataset: str) -> tuple[str, ...]:
    """Raw names of the categories that the sample draws of a dataset.

    Args:
        dataset: dataset id.
    """
    recipes = [recipe.split("/", 1) for recipe in EVALUATION]
    return tuple(category for owner, category in recipes if owner == dataset)


def write_sample_archives(
    dataset: str,
    out_dir: Path,
    *,
    seed: int,
    train_normal: int,
    test_normal: int,
    test_anomalous: int,
) -> dict[str, str]:
    """Draw one dataset's sample and pack it as its official archives.

    Args:
        dataset: dataset id.
        out_dir: folder to write the archives to.
        seed: fixes every byte, with the same versions of the image and compression libraries, on
            one kind of CPU.
        train_normal: normal training images per category. KolektorSDD's protocol fixes their share
            instead; DAGM's training half gets some defective images besides.
        test_normal: normal test images per category.
        test_anomalous: anomalous test images per category.

    Returns:
        Archive file name -> SHA-256, as `fetch_dataset` takes it.

    Raises:
        DatasetError: no dataset has this id.
        ValueError: a number is too small to make a test set.
    """
    spec = get_dataset(dataset)
    if min(test_normal, test_anomalous) < 1 or train_normal < 0:
        raise ValueError(
            "a sample needs test_normal >= 1, test_anomalous >= 1 and train_normal >= 0"
        )
    categories = sample_categories(dataset)
    checksums = {}
    for archive in wanted_archives(spec, categories):
        held = (archive.category,) if archive.category else categories
        order = Order(dataset, held, seed, train_normal, test_normal, test_anomalous)
        path = out_dir / archive.filename
        write_archive(path, LAYOUTS[dataset](order))
        checksums[archive.filename] = compute_sha256(path)
    return checksums
