"""Every path of the pipeline, relative to the folder that holds dvc.yaml."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")
#: The stages.
PIPELINE = Path("dvc.yaml")
#: There once all keys of params.yaml are names of files.
KEYS = Path("data/keys.json")

METRICS = Path("metrics")
#: The few numbers that DVC shows of a result: FuzzyCLIP's means over the tested datasets.
HEADLINE = METRICS / "headline.json"
#: Points of DVC's plots.
PLOTS = METRICS / "plots"
#: What each method gave, FuzzyCLIP too: tables by variant and category, and how they came about.
METHOD_METRICS = METRICS / "methods"
CSP_METRICS = METRICS / "csp"
CURVES = METRICS / "curves"
TABLES = METRICS / "tables"
METHOD_TABLES = METRICS / "method_tables"
RESULTS = Path("results")
REPORT = Path("report")
PAGE = Path("page/index.html")
#: Tables and figures of the experiments that were run.
EXPERIMENTS = Path("experiments")
#: Unfinished work that a killed stage goes on from; safe to delete.
SCRATCH = Path("scratch")
#: What experiments change in the work tree, as it was before; there only while they run.
BEFORE_EXPERIMENTS = SCRATCH / "before-experiments"
#: Encoded mosaics; safe to delete.
MOSAICS = SCRATCH / "mosaics"
#: Encoded prompts; safe to delete.
TEXTS = SCRATCH / "texts"
#: Seconds and memory of each stage; differs from run to run, so no stage depends on it.
TIMING = Path("timing")
#: Seconds of each training, by content of the file that it made.
TRAINING_TIMES = TIMING / "training"

#: The features that the stage `features` makes: plain patch tokens of the run's CLIP.
TOKENS = "tokens"


def from_repository(place: str) -> Path:
    """A place that params.yaml names; a relative one lies in the checkout that has the repository.

    `dvc exp run --temp` and `--queue` work in a copy that has only what git tracks. DVC says in
    DVC_ROOT where they were started; without DVC it is the folder that holds dvc.yaml.
    """
    return Path(os.environ.get("DVC_ROOT", ".")).resolve() / Path(place).expanduser()


def sample(dataset: str) -> Path:
    """Drawn archives of a dataset; a note alone where its images are real ones."""
    return Path("data/sample") / dataset


def sample_note(dataset: str) -> Path:
    """The drawn part of a dataset: its categories, and the digests of the archives."""
    return sample(dataset) / "drawn.json"


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
    """Facts of the dataset as a whole: protocol, counts, licence, what was dropped."""
    return Path("data/index") / f"{dataset}.json"


def index_meta(dataset: str) -> Path:
    """The index in the field's interchange format."""
    return Path("data/index") / f"{dataset}.meta.json"


def features(dataset: str, view: str = TOKENS) -> Path:
    """Folder of a dataset's stored features, one subfolder a category, by a view's key."""
    return Path("features") / view / dataset


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


def learned(method: str, auxiliary: str) -> Path:
    """A baseline's learned tensors and settings, of an auxiliary set; beside it its curve."""
    return Path("baselines") / method / f"{auxiliary}.safetensors"


def dataset_metrics(dataset: str) -> Path:
    """FuzzyCLIP's mean metrics on a dataset, flat, percent, for `dvc metrics show FILE`."""
    return METRICS / "datasets" / f"{dataset}.json"


def method_metrics(method: str, dataset: str) -> Path:
    """A method's metrics on a dataset by variant and category, percent."""
    return METHOD_METRICS / method / f"{dataset}.csv"


def method_facts(method: str, dataset: str) -> Path:
    """All choices that made a method's result on a dataset."""
    return METHOD_METRICS / method / f"{dataset}.json"


def headline(metric: str) -> Path:
    """One metric of FuzzyCLIP's variants, by dataset."""
    return TABLES / "by_dataset" / f"{metric}.csv"


def results(method: str, dataset: str) -> Path:
    """Folder of what else a method gave on a dataset: image scores, maps of some images."""
    return RESULTS / method / dataset


def scores(method: str, dataset: str) -> Path:
    """Image scores by every variant, a line an image."""
    return results(method, dataset) / "scores.csv"


def tested(method: str, dataset: str) -> Path:
    """Facts of what a result was measured on: the index's facts, and the names in the prompts."""
    return results(method, dataset) / "dataset.json"


def bounds(method: str, dataset: str) -> Path:
    """Bounds of pixel metrics that are estimates; there only with streaming metrics."""
    return results(method, dataset) / "bounds.csv"


def overlays(method: str, dataset: str) -> Path:
    """Some anomalous images with masks and maps, for pictures."""
    return results(method, dataset) / "overlays.safetensors"


def gallery(method: str, dataset: str) -> Path:
    """Images of a dataset that the page shows, with masks and maps."""
    return results(method, dataset) / "gallery.safetensors"


def summaries(method: str, dataset: str, category: str) -> Path:
    """Counts of a category's pixels at thresholds; there only with masks."""
    return results(method, dataset) / "summaries" / f"{category}.safetensors"


def timing(stage: str) -> Path:
    """Timing of one stage."""
    return TIMING / f"{stage}.json"
