"""Experiments in the paper's setting, and finished runs of theirs whose results lie in folders."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import yaml
from imports import ROOT

from stages.experiments.results import Results

#: params.yaml in the paper's setting.
PAPER = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"backbone": "vit_l_14_336"}
PAPER["data"]["source"] = "official"


def find_folder(run):
    """Where a run's results lie: equal runs share them."""
    return Path("runs", run.name.rpartition("-")[2])


def locate(runs, list_files=None):
    """As `history.locate`, of what lies in folders."""
    return [
        replace(run, results=Results(run.name, folder=folder) if folder.is_dir() else None)
        for run, folder in zip(runs, map(find_folder, runs), strict=True)
    ]


def write_table(path, variants):
    """A method's results: variant -> category -> metric -> value."""
    lines = [
        {"variant": variant, "category": category, "normal": 3, "anomalous": 4} | values
        for variant, categories in variants.items()
        for category, values in categories.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(lines).to_csv(path, index=False)
