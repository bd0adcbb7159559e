"""The seven datasets of the paper and folders of your own: from archive to verified index.

`fetch_dataset` puts an archive's files into a folder, `build_index` checks them and makes the table
that everything later reads. A new dataset is one module and one line here.
"""

from fuzzyclip.datasets.base.spec import DatasetSpec
from fuzzyclip.datasets.btad import BTAD
from fuzzyclip.datasets.dagm import DAGM
from fuzzyclip.datasets.dtd import DTD
from fuzzyclip.datasets.folder import FOLDER
from fuzzyclip.datasets.mpdd import MPDD
from fuzzyclip.datasets.mvtec import MVTEC
from fuzzyclip.datasets.sdd import SDD
from fuzzyclip.datasets.visa import VISA
from fuzzyclip.utils.tree import DatasetError

REGISTRY: dict[str, DatasetSpec] = {
    spec.name: spec for spec in (MVTEC, VISA, BTAD, MPDD, DAGM, SDD, DTD, FOLDER)
}


def get_dataset(name: str) -> DatasetSpec:
    """Look a dataset up by its id.

    Raises:
        DatasetError: no dataset has this id; lists those there are.
    """
    if name not in REGISTRY:
        raise DatasetError(f"no dataset {name!r}; there are {', '.join(REGISTRY)}")
    return REGISTRY[name]
