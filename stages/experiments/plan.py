"""From a row of the catalog to a complete set of parameters, and its identity."""

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stages import paths
from stages.experiments.catalog import Catalog, CatalogError, Row
from stages.schema import Params

#: Parameters that change no result of FuzzyCLIP.
IRRELEVANT = ("machine", "tracking", "allow_unverified", "methods")
CODE = ("fuzzyclip/**/*.py", "stages/*.py", "dvc.yaml")


@dataclass(frozen=True)
class Run:
    """One run of the pipeline.

    Attributes:
        experiment: name in the catalog.
        row: its row.
        seed: of the run.
        params: all of params.yaml for this run.
        key: SHA-256 over the parameters that matter and the code: equal keys, equal results.
    """

    experiment: str
    row: Row
    seed: int
    params: dict[str, Any]
    key: str

    @property
    def name(self) -> str:
        """Name of DVC's experiment and of the MLflow run."""
        label = re.sub(r"[^a-z0-9]+", "-", self.row.label.lower()).strip("-")[:40]
        return f"{self.experiment}-{label}-seed{self.seed}-{self.key[:6]}"

    @property
    def folder(self) -> Path:
        """Where its results are kept."""
        return paths.EXPERIMENTS / self.key[:16]


def plan_runs(
    catalog: Catalog, name: str, base: dict[str, Any], seeds: int = 1, code: str | None = None
) -> list[Run]:
    """Every run of an experiment, rows in order, seeds within each.

    Args:
        catalog: the experiments.
        name: which one.
        base: params.yaml as it stands: sample or official data, backbone and all that the
            experiment does not set.
        seeds: runs with the base's seed and the ones after it.
        code: digest of the code; computed if None.
    """
    digest = compute_code_digest() if code is None else code
    runs = []
    for row in catalog.get(name).measured:
        for seed in range(base["seed"], base["seed"] + seeds):
            params = build_params(catalog, row, base) | {"seed": seed}
            Params.model_validate(params)
            runs.append(Run(name, row, seed, params, compute_key(params, digest)))
    return runs


def build_params(catalog: Catalog, row: Row, base: dict[str, Any]) -> dict[str, Any]:
    """params.yaml of one row: its settings, and only the datasets that it needs.

    Raises:
        CatalogError: params.yaml lacks a dataset or a key that the row sets.
    """
    params = copy.deepcopy(base)
    sets = sorted(set(row.tests.values()))
    needed = [*row.tests, *(member for name in sets for member in catalog.auxiliary[name])]
    if missing := sorted(set(needed) - set(base["datasets"])):
        raise CatalogError(f"{row.label}: params.yaml has no datasets {', '.join(missing)}")
    params["datasets"] = {k: v for k, v in params["datasets"].items() if k in needed}
    params["auxiliary"] = {name: list(catalog.auxiliary[name]) for name in sets}
    params["pairs"] = dict(row.tests)
    for dotted, value in row.set.items():
        *sections, last = dotted.split(".")
        place = params
        for section in sections:
            place = place.get(section, {})
        if last not in place:
            raise CatalogError(f"{row.label}: params.yaml has no key {dotted}")
        place[last] = value
    return params


def compute_key(params: dict[str, Any], code: str) -> str:
    """Identity of a run's results."""
    relevant = {name: value for name, value in params.items() if name not in IRRELEVANT}
    relevant["backbones"] = {params["backbone"]: params["backbones"][params["backbone"]]}
    said = json.dumps([relevant, code], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def compute_code_digest(patterns: Sequence[str] = CODE, root: Path = Path()) -> str:
    """SHA-256 over the code that results depend on."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def read_base() -> dict[str, Any]:
    """params.yaml as plain data; while runs change it, or after one was killed, as it was."""
    kept = paths.BEFORE_EXPERIMENTS / paths.PARAMS
    path = kept if kept.is_file() else paths.PARAMS
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data
