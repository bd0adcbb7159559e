"""What the pages tell to add is added, word for word, and the house's own checks stay green."""

import os
import re
import subprocess
import sys

import pytest
from imports import ROOT
from pipelines import copy_checkout

METHODS = (ROOT / "docs/methods.md").read_text()
DATASETS = (ROOT / "docs/datasets.md").read_text()
#: What `make test` runs, as far as it looks at what is added.
TESTS = [
    "tests/stages/test_contract.py",
    "tests/stages/test_params.py",
    "tests/baselines/test_methods.py",
    "tests/baselines/test_methods_page.py",
    "tests/datasets/test_datasets.py",
]


def read_block(page, heading, language):
    """The only block of a language below a heading of a page."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    (block,) = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return block


def replace_once(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new))


def paste(folder, block):
    """Put the entries of a block below the sections of params.yaml that it names."""
    for section, entries in re.findall(r"^(\w+):\n((?: .*\n)+)", block, re.MULTILINE):
        replace_once(folder / "params.yaml", f"\n{section}:\n", f"\n{section}:\n{entries}")


def add_method(folder):
    (place,) = re.findall(r"This one, `(\w+/__init__\.py)`", METHODS)
    module = folder / "fuzzyclip/baselines" / place
    module.parent.mkdir()
    module.write_text(read_block(METHODS, "A method of your own", "python"))
    paste(folder, read_block(METHODS, "A method of your own", "yaml"))


def add_own_images(folder):
    paste(folder, read_block(DATASETS, "Your own images", "yaml"))


def add_dataset(folder):
    """The module, the line and the block that the page asks for; the module is its shortest one."""
    recipe = DATASETS[DATASETS.index("## Adding a dataset") :]
    model, registry = re.findall(r"\]\(\.\./(fuzzyclip/datasets/\w+\.py)\)", recipe)
    text = (folder / model).read_text().replace("mpdd", "turbine").replace("MPDD", "TURBINE")
    (folder / "fuzzyclip/datasets/turbine.py").write_text(text)
    line = "from fuzzyclip.datasets.visa import VISA\n"
    added = "from fuzzyclip.datasets.turbine import TURBINE\n"
    replace_once(folder / registry, line, added + line)
    replace_once(folder / registry, "FOLDER)", "FOLDER, TURBINE)")
    params = (folder / "params.yaml").read_text()
    (entry,) = re.findall(r"^  mpdd:\n(?:    .*\n)+", params, re.MULTILINE)
    paste(folder, "datasets:\n" + entry.replace("mpdd", "turbine") + "pairs:\n  turbine: visa\n")


def check(folder, *command):
    """Run a check on the code of a folder, and no other's."""
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("added", [(add_method,), (add_own_images, add_dataset)])
def test_what_the_pages_tell_to_add_breaks_nothing(added, tmp_path):
    copy_checkout(tmp_path)
    for add in added:
        add(tmp_path)
    where = check(tmp_path, "-c", "import fuzzyclip, stages; print(fuzzyclip.__file__)")
    assert where.startswith(str(tmp_path))
    check(tmp_path, "-m", "ruff", "check", ".")
    check(tmp_path, "-m", "ruff", "format", "--check", ".")
    assert " passed" in check(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)
