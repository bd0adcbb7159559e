"""Every path of the pipeline, relative to the folder that holds dvc.yaml."""

from pathlib import Path

PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")
PIPELINE = Path("dvc.yaml")
#: There once all keys of params.yaml are names of files.
KEYS = Path("data/keys.json")

METRICS = Path("metrics")
DATASET_METRICS = METRICS / "datasets"
CATEGORY_METRICS = METRICS / "categories"
CSP_METRICS = METRICS / "csp"
CURVES = METRICS / "curves"
TABLES = METRICS / "tables"
RESULTS = Path("results")
REPORT = Path("report")
PAGE = Path("page/index.html")
#: Tables and figures of the paper that were shown.
EXPERIMENTS = Path("experiments")
#: Unfinished work that a killed stage goes on from; safe to delete.
SCRATCH = Path("scratch")
#: What experiments change in the work tree, as it was before; there only while they run.
BEFORE_EXPERIMENTS = SCRATCH / "before-experiments"
#: Encoded mosaics; safe to delete.
MOSAICS = SCRATCH / "mosaics"
#: Encoded prompts; safe to delete.
TEXTS = SCRATCH / "texts.sqlite"
#: Seconds and memory of each stage; differs from run to run, so no stage depends on it.
TIMING = Path("timing")
#: What the methods of the tables share and leave: features of their kinds, what they learned,
#: scores of images. Made anew where it is not there.
BASELINES = Path("baselines")
METHOD_METRICS = METRICS / "methods"
METHOD_CODE = METRICS / "method_code"
METHOD_TABLES = METRICS / "method_tables"


def raw(dataset: str) -> Path:
    """The dataset's own tree, as its archives hold it."""
    return Path("data/raw") / dataset


def record(dataset: str) -> Path:
    """Which archives the tree came from, with checksums, sources and licence."""
    return Path("data/records") / f"{dataset}.json"


def index(dataset: str) -> Path:
    """One row an image."""
    return Path("data/index") / f"{dataset}.csv"


def index_info(dataset: str) -> Path:
    """What is known of the dataset as a whole: protocol, counts, licence, what was dropped."""
    return Path("data/index") / f"{dataset}.json"


def index_meta(dataset: str) -> Path:
    """The index in the field's interchange format."""
    return Path("data/index") / f"{dataset}.meta.json"


def features(dataset: str) -> Path:
    """Folder of the dataset's stored features, one subfolder a category."""
    return Path("features") / dataset


def tested(dataset: str) -> Path:
    """What a result was measured on: the index's facts, and the names in the prompts."""
    return RESULTS / dataset / "dataset.json"


def auxiliary(name: str) -> Path:
    """Which categories and features an auxiliary set consists of, by content."""
    return Path("data/auxiliary") / f"{name}.json"


def partition(name: str) -> Path:
    """CSP's clusters and their stacked names, without scores."""
    return Path("models") / name / "partition.json"


def csp_scores(name: str) -> Path:
    """CSP's score of every number of clusters."""
    return CSP_METRICS / f"{name}.json"


def heads(name: str) -> Path:
    """EFA's trained layers, all clusters."""
    return Path("models") / name / "efa.safetensors"


def prompts(name: str) -> Path:
    """RPL's learned prompts."""
    return Path("models") / name / "rpl.safetensors"


def package(name: str) -> Path:
    """The trained model as one directory that needs no pipeline."""
    return Path("models") / name / "fuzzyclip"


def curve(stage: str, name: str) -> Path:
    """Training curve of a stage for an auxiliary set."""
    return CURVES / f"{stage}_{name}.csv"


def dataset_metrics(dataset: str) -> Path:
    """FuzzyCLIP's mean metrics on a dataset, flat, percent."""
    return DATASET_METRICS / f"{dataset}.json"


def category_metrics(dataset: str) -> Path:
    """Metrics of every row and category, percent."""
    return CATEGORY_METRICS / f"{dataset}.csv"


def results(method: str, dataset: str | None = None) -> Path:
    """Folder of a method's image scores and selected anomaly maps on a dataset."""
    return RESULTS / (dataset or method)  # of FuzzyCLIP alone so far; its callers give no method


def bounds(dataset: str) -> Path:
    """Bounds of pixel metrics that are estimates; there only with streaming metrics."""
    return results(dataset) / "bounds.csv"


def gallery(dataset: str) -> Path:
    """Images of a dataset that the page shows, with masks and maps."""
    return results(dataset) / "gallery.safetensors"


def summaries(dataset: str, category: str) -> Path:
    """Counts of a category's pixels at thresholds, from FuzzyCLIP's maps; there only with masks."""
    return results(dataset) / "summaries" / f"{category}.safetensors"


def method_code(method: str) -> Path:
    """Digest of the code that makes a method's results."""
    return METHOD_CODE / f"{method}.json"


def method_results(method: str, auxiliary: str) -> Path:
    """Results of a method on the datasets that meet what it learned from an auxiliary set."""
    return METHOD_METRICS / method / auxiliary


def method_metrics(method: str, *keys: str) -> Path:
    """A method's metrics on every category of a dataset, percent."""
    if method == "fuzzyclip":
        return category_metrics(*keys)
    return _find_result(method, *keys, suffix="csv")


def method_facts(method: str, *keys: str) -> Path:
    """How a method's result came about."""
    return _find_result(method, *keys, suffix="json")


def _find_result(method: str, *keys: str, suffix: str) -> Path:
    """By auxiliary set and dataset, or by dataset alone, which meets one auxiliary set."""
    if len(keys) == 2:
        return method_results(method, keys[0]) / f"{keys[1]}.{suffix}"
    places = sorted((METHOD_METRICS / method).glob(f"*/{keys[0]}.{suffix}"))
    return places[0] if places else METHOD_METRICS / method / f"{keys[0]}.{suffix}"


def method_work(method: str, dataset: str, digest: str) -> Path:
    """What a method made of a dataset, image scores too, by the digest of what it was made of."""
    return BASELINES / "results" / method / f"{dataset}-{digest[:16]}"


def method_tensors(method: str, auxiliary: str, digest: str) -> Path:
    """What a method learned from an auxiliary set."""
    return BASELINES / "models" / f"{method}-{auxiliary}-{digest[:16]}.safetensors"


def view(kind: str, backbone: str, dataset: str) -> Path:
    """Features of a kind, one subfolder a category."""
    return BASELINES / "features" / f"{kind}-{backbone[:16]}" / dataset


def timing(stage: str) -> Path:
    """Timing of one stage."""
    return TIMING / f"{stage}.json"
