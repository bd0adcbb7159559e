"""The cost of a comment: `python benchmarks/reruns.py [--write]`.

Prints, for a changed line in each package, which stages of the pipeline DVC would run again; what
comes out the same reruns nothing after it. With `--write` the table of docs/architecture.md anew.
"""

import argparse
from collections import Counter
from pathlib import Path

from dvc.repo import Repo

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/architecture.md"
#: Where the table stands on the page.
BEGIN, END = "<!-- reruns: begin -->\n", "<!-- reruns: end -->"
#: Parts of a package that stages depend on apart from the others.
PARTS = (
    "fuzzyclip/datasets/visa.py", "fuzzyclip/datasets/fetching", "fuzzyclip/datasets/indexing.py",
    "fuzzyclip/baselines/coop", "fuzzyclip/baselines/shared",
)  # fmt: skip


def list_dependents(root: Path) -> dict[str, list[str]]:
    """Path of each dependency, from the root, to the stages that have it."""
    dependents: dict[str, list[str]] = {}
    with Repo(str(root)) as repo:
        for stage in repo.index.stages:
            for dep in stage.deps:
                path = Path(dep.fs_path).relative_to(root).as_posix() if dep.fs_path else ""
                dependents.setdefault(path, []).append(stage.addressing)
    return dependents


def list_reruns(place: str, dependents: dict[str, list[str]]) -> list[str]:
    """Stages that run again after a change of a file, or of any file of a folder."""
    reached = {
        stage
        for path, stages in dependents.items()
        if path == place or place.startswith(f"{path}/") or path.startswith(f"{place}/")
        for stage in stages
    }
    return sorted(reached)


def build_table(root: Path) -> str:
    """The table in Markdown: package, how many stages, which."""
    dependents = list_dependents(root)
    packages = [path for path in sorted((root / "fuzzyclip").iterdir()) if path.is_dir()]
    places = [f"fuzzyclip/{path.name}" for path in packages if path.name != "__pycache__"]
    places = sorted([*places, *PARTS, "stages/experiments", "stages/params.py", "tools"])
    lines = ["| a comment in | stages that rerun | of them |", "|---|---|---|"]
    for place in places:
        stages = list_reruns(place, dependents)
        counts = Counter(stage.partition("@")[0] for stage in stages)
        named = ", ".join(f"{name} ({n})" if n > 1 else name for name, n in counts.items())
        lines.append(f"| `{place}` | {len(stages)} | {named or 'none'} |")
    total = len({stage for stages in dependents.values() for stage in stages})
    return "\n".join([*lines, "", f"There are {total} stages in all."]) + "\n"


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    table = build_table(ROOT)
    print(table)
    if parser.parse_args().write:
        text = PAGE.read_text()
        before, rest = text.split(BEGIN)
        PAGE.write_text(before + BEGIN + table + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
