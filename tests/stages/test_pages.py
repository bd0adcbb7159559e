"""What README and the pages in docs promise: links, sizes, commands, checksums."""

import re

import pytest
import yaml
from imports import ROOT
from open_clip import get_pretrained_url

from fuzzyclip.datasets import get_dataset

PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
REAL = (ROOT / "docs/real-model.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page):
    for target in re.findall(r"\]\(((?!https?:)[^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.M)
            anchors = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in anchors, f"{page.name} links to {target}"


def test_the_readme_leads_to_every_page_and_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        links = re.findall(r"\]\(((?!https?:)[^)#]+\.md)", page.read_text())
        ahead += {(page.parent / link).resolve() for link in links} - reached
    assert reached >= {*PAGES}


def test_the_page_on_a_real_model_has_the_files_that_the_code_asks_for():
    (archive,) = get_dataset("visa").archives
    address = get_pretrained_url("ViT-L-14-336", "openai")
    *_, digest, name = address.split("/")
    for fact in (archive.filename, archive.sha256, *archive.urls, address):
        assert fact in REAL
    assert {f"`{name}`", f"`{digest}`"} <= {*REAL.split()}
    makefile = (ROOT / "Makefile").read_text()
    assert f"WEIGHTS := {name}\n" in makefile
    for line in re.findall(r"^make (\w+)", REAL, flags=re.M):
        assert re.search(rf"^{line}:", makefile, flags=re.M), line


def test_the_stages_of_make_detector_and_its_parameters_exist():
    makefile, params = (
        (ROOT / "Makefile").read_text(),
        yaml.safe_load((ROOT / "params.yaml").read_text()),
    )
    recipe = makefile.partition("\ndetector:")[2].partition("\n\n")[0]
    keys = re.findall(r"-S \"?([a-z_0-9.]+)=", recipe)
    assert "backbones.vit_l_14_336.weights" in keys
    for key in [*keys, *re.findall(r"-S ([a-z_0-9.]+)=", REAL)]:
        value = params
        for part in key.split("."):
            assert part in value, key
            value = value[part]
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    (listed,) = re.findall(r"addsuffix @\$\(AUXILIARY\),([^)]*)\)", makefile)
    assert {*listed.split()} <= {*stages}
