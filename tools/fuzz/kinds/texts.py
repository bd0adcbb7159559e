"""Files of text: params.yaml, paper.yaml, meta.json, a dataset's index."""

import csv
import io
import json
import random
import shutil
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fuzzyclip.datasets.base.meta import FILENAME, read_meta, write_meta
from fuzzyclip.datasets.base.spec import SPLITS, Listing
from fuzzyclip.images.index_file import (
    INDEX_COLUMNS,
    Index,
    read_index,
    read_info,
    write_index,
)
from fuzzyclip.utils.tree import DatasetError
from stages import paths
from stages.experiments.catalog import FILE as CATALOG
from stages.experiments.catalog import read_catalog
from stages.params import read_params
from stages.yaml_numbers import know_numbers
from tools.fuzz.kind import Kind, find_bend, find_repeated
from tools.fuzz.mutate import mutate_bytes, mutate_lines, mutate_tree

ROOT = Path(__file__).resolve().parents[3]
LOADER: Any = know_numbers(getattr(yaml, "CSafeLoader", yaml.SafeLoader))
DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _mutate_file(
    rng: random.Random, content: bytes, tree: Any, write: Callable[[Any], bytes]
) -> bytes:
    """A file with other bytes or lines, or, as often as both, `write` of another tree."""
    way = rng.randrange(4)
    if way == 0:
        return mutate_bytes(rng, content)
    if way == 1:
        return mutate_lines(rng, content)
    return write(mutate_tree(rng, tree))


def _write_yaml(tree: Any) -> bytes:
    text: str = yaml.dump(tree, Dumper=DUMPER, sort_keys=False)
    return text.encode("utf-8", "surrogatepass")


def _write_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


class _YamlFile(Kind):
    """A file of YAML that a schema describes."""

    source: Path

    def prepare(self, folder: Path) -> None:
        del folder
        self.tree = self.trim(yaml.load(self.source.read_bytes(), LOADER))
        self.content = yaml.dump(self.tree, Dumper=DUMPER, sort_keys=False).encode()

    @abstractmethod
    def trim(self, tree: Any) -> Any:
        """A smaller file of the same kinds of parts."""

    def mutate(self, rng: random.Random, place: Path) -> None:
        made = _mutate_file(rng, self.content, self.tree, _write_yaml)
        (place / self.source.name).write_bytes(made)

    def find_fault(self, place: Path, content: Any) -> str:
        plain = yaml.load((place / self.source.name).read_bytes(), LOADER)
        return find_bend(content.model_dump(exclude_unset=True), plain)


class ParamsFile(_YamlFile):
    """params.yaml."""

    source = ROOT / paths.PARAMS

    def trim(self, tree: Any) -> Any:
        tree["pairs"] = {"visa": "mvtec", "mvtec": "visa"}
        for section, kept in (
            ("datasets", ("visa", "mvtec")),
            ("methods", ("clip", "winclip", "april_gan", "coop")),
            ("views", ("openai", "windows")),
        ):
            tree[section] = {name: tree[section][name] for name in kept}
        return tree

    def read(self, place: Path) -> Any:
        return read_params(place / self.source.name)


class CatalogFile(_YamlFile):
    """paper.yaml."""

    source = CATALOG

    def trim(self, tree: Any) -> Any:
        kept = ("table-1", "table-2", "figure-1")
        tree["experiments"] = {
            name: each | {"rows": each["rows"][:4]}
            for name, each in tree["experiments"].items()
            if name in kept
        }
        tree["notes"] = {name: text[:40] for name, text in tree["notes"].items()}
        return tree

    def read(self, place: Path) -> Any:
        return read_catalog(place / self.source.name)


def _draw_index() -> Index:
    """Six images of two categories, as an index has them."""
    rows = []
    for number in range(6):
        category, label = f"0{number // 3}", number % 3 % 2
        split = "train" if number % 3 == 0 else "test"
        image = f"{category}/{split}/ä {number},.png"
        mask = f"{category}/ground_truth/{number}.png" if label else ""
        digest = f"{number:064x}"
        defect = 'a "hole"' if label else "good"
        rows.append((image, mask, category, split, label, defect, 40, 30, digest,
                     digest if label else "", 0))  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(INDEX_COLUMNS))
    return Index(frame, {"dataset": "drawn", "counts": {"00": {"test": 2}}, "dropped": []})


class Meta(Kind):
    """meta.json, as the family of methods around AnomalyCLIP has it."""

    def prepare(self, folder: Path) -> None:
        index = _draw_index()
        write_meta(index.frame, index.info, folder / FILENAME)
        self.content = (folder / FILENAME).read_bytes()
        self.tree = json.loads(self.content)

    def mutate(self, rng: random.Random, place: Path) -> None:
        made = _mutate_file(rng, self.content, self.tree, _write_json)
        (place / FILENAME).write_bytes(made)

    def read(self, place: Path) -> Listing:
        listing = read_meta(place, (), {})
        if fatal := [problem for problem in listing.problems if problem.fatal]:
            raise DatasetError(f"{fatal[0]}")
        return listing

    def find_fault(self, place: Path, content: Listing) -> str:
        """Every item is a row that says the same, or a problem."""
        if unnamed := [each for each in content.problems if str(place) not in str(each)]:
            return f"a problem without a file: {unnamed[0]}"
        written = (place / FILENAME).read_text("utf-8")
        if fault := find_repeated(written):
            return fault
        plain = json.loads(written)
        items = [
            item for split in SPLITS for group in plain.get(split, {}).values() for item in group
        ]
        if len(items) != len(content.rows) + len(content.problems):
            return f"{len(items)} items, {len(content.rows)} rows, {len(content.problems)} problems"
        known = [
            tuple(item.get(key) for key in ("img_path", "mask_path", "cls_name", "anomaly"))
            for item in items
            if isinstance(item, dict)
        ]
        for row in content.rows:
            if (row.image_path, row.mask_path, row.category, row.label) not in known:
                return f"a row that no item says: {row}"
        return ""


class IndexFiles(Kind):
    """index.csv and index.json."""

    table, info = "index.csv", "index.json"

    def prepare(self, folder: Path) -> None:
        write_index(_draw_index(), folder / self.table, folder / self.info)
        self.folder = folder
        self.rows = [*csv.reader(io.StringIO((folder / self.table).read_text("utf-8")))]
        self.tree = json.loads((folder / self.info).read_bytes())

    def mutate(self, rng: random.Random, place: Path) -> None:
        for name in (self.table, self.info):
            shutil.copyfile(self.folder / name, place / name)
        way = rng.randrange(8)
        name = self.info if way >= 6 else self.table
        content = (place / name).read_bytes()
        if way in (0, 6):
            made = mutate_bytes(rng, content)
        elif way in (1, 2):
            made = mutate_lines(rng, content)
        elif way == 7:
            made = json.dumps(mutate_tree(rng, self.tree)).encode()
        else:
            text = io.StringIO()
            rows = mutate_tree(rng, self.rows)
            rows = [row if isinstance(row, list) else [row] for row in rows or ()]
            csv.writer(text, lineterminator=rng.choice("\n\n\r")).writerows(rows)
            made = text.getvalue().encode("utf-8", "surrogatepass")
        (place / name).write_bytes(made)

    def read(self, place: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        return read_index(place / self.table, Path("root")), read_info(place / self.info)

    def find_fault(self, place: Path, content: tuple[pd.DataFrame, dict[str, Any]]) -> str:
        """Rows as the standard library reads them."""
        text = (place / self.table).read_bytes().decode("utf-8-sig")
        head, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        frame, info = content
        if len(rows) != len(frame):
            return f"{len(frame)} rows of {len(rows)}"
        for number, (row, read) in enumerate(zip(rows, frame.to_dict("records"), strict=True)):
            for name, value in zip(head, row, strict=True):
                shown = f"root/{value}" if value and name in ("image_path", "mask_path") else value
                if str(read[str(name)]) != shown:
                    return f"row {number}, {name}: {read[str(name)]!r} of {value!r}"
        facts = (place / self.info).read_text("utf-8")
        return find_repeated(facts) or find_bend(info, json.loads(facts))
