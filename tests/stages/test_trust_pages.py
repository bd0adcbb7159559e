"""CITATION.cff, CHANGELOG.md, SECURITY.md and docs/trust.md against what they speak of."""

import re

import pytest
import typer.main
import yaml
from imports import ROOT

import fuzzyclip
from fuzzyclip.cli import app
from tools.supply.licences import find_review

TRUST = (ROOT / "docs/trust.md").read_text()
#: Keys of the Citation File Format 1.2.0 that we use, and of its references and persons.
CFF_KEYS = {"cff-version", "message", "type", "title", "abstract", "authors", "version", "license",
            "keywords", "references"}  # fmt: skip
REFERENCE_KEYS = {"type", "title", "authors", "status", "conference", "notes"}
STATUSES = {"abstract", "advance-online", "in-preparation", "in-press", "preprint", "submitted"}
#: In Keep a Changelog's own order.
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_the_citation_is_valid_and_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() <= CFF_KEYS
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == fuzzyclip.__version__
    assert citation["license"] == "MIT"
    for entry in (citation, *citation["references"]):
        assert isinstance(entry["title"], str)
        assert entry["authors"]
        for author in entry["authors"]:  # entities, which have a name and no family name
            assert author.keys() == {"name"}
            assert author["name"]
    (paper,) = citation["references"]
    assert paper.keys() <= REFERENCE_KEYS
    assert (paper["type"], paper["status"] in STATUSES) == ("conference-paper", True)
    assert paper["conference"].keys() == {"name"}
    assert paper["title"] in " ".join((ROOT / "README.md").read_text().split())
    owner = re.search(r"Copyright \(c\) [0-9]+ (.*)", (ROOT / "LICENSE").read_text())
    assert citation["authors"] == [{"name": owner[1]}]


def test_the_changelog_keeps_the_form():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    versions = re.split(r"^## ", text, flags=re.M)[1:]
    assert versions[0].startswith("[Unreleased]\n")
    for version in versions:
        assert re.match(r"\[(Unreleased\]|[0-9]+\.[0-9]+\.[0-9]+\] - 20[0-9-]{8})\n", version)
        kinds = re.findall(r"^### (.*)$", version, flags=re.M)
        assert kinds == [kind for kind in KINDS if kind in kinds]


@pytest.mark.parametrize("name", ["SECURITY.md", "docs/trust.md", "CHANGELOG.md"])
def test_no_address_is_made_up(name):
    """Contacts are those of the repository; hosts are of the forms and services that are meant."""
    text = (ROOT / name).read_text()
    assert not re.findall(r"[\w.]+@[\w-]+\.\w+", text)
    assert {*re.findall(r"https?://([^/)\s]+)", text)} <= {"keepachangelog.com"}


def test_commands_and_targets_of_the_page_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", TRUST, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
    commands = typer.main.get_command(app).commands
    for line in re.findall(r"^fuzzyclip (.*)$", TRUST, flags=re.M):
        name, options = line.split()[0], re.findall(r" (--[a-z-]+)", line.partition("#")[0])
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {*options} <= known, line


def test_every_package_that_the_page_names_was_looked_at():
    (listed,) = re.findall(r"ask for more than a notice: (.*?)FuzzyCLIP ships", TRUST, flags=re.S)
    words = " ".join(re.findall(r"\(([^)]*)\)", listed)).replace(" and ", " ")
    names = {*re.findall(r"[a-z0-9-]{4,}", words)} - {"tests"}
    assert names >= {"certifi", "pygit2", "asyncssh", "hypothesis", "nvidia-"}
    assert not [name for name in names if find_review(name) is None]
