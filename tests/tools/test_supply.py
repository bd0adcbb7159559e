"""Licences, vulnerabilities and the bill of materials: what is said of packages, and of none."""

import json
from email.message import Message

import pytest
from imports import ROOT

from fuzzyclip.clip.weights import SAMPLE_WEIGHTS
from fuzzyclip.health.models import SAMPLE_SHA256
from tools.supply import audit, sbom
from tools.supply.licences import (
    REVIEWED,
    choose_flag,
    find_review,
    list_licences,
    main,
    read_licence,
)


def describe(name="part", version="1", **fields):
    """Metadata of a package; a field may have several values."""
    message = Message()
    message["Name"], message["Version"] = name, version
    for field, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            message[field.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("fields", "text", "flag"),
    [
        ({"License_Expression": "MIT", "License": "GPL"}, "MIT", ""),
        ({"Classifier": ["License :: OSI Approved :: MIT", "Topic :: X"]}, "MIT", ""),
        ({"Classifier": "License :: OSI Approved", "License": "BSD"}, "BSD", ""),
        ({"License": "BSD\n   3-Clause"}, "BSD 3-Clause", ""),
        ({"License": "Copyright me. " * 100}, "unknown", "unknown"),
        ({"License": "UNKNOWN"}, "unknown", "unknown"),
        ({}, "unknown", "unknown"),
        ({"License_Expression": "LGPL-3.0-only"}, "LGPL-3.0-only", "copyleft"),
        ({"License_Expression": "MIT OR GPL-2.0-only"}, "MIT OR GPL-2.0-only", ""),
        ({"License_Expression": "EPL-2.0 OR GPL-2.0"}, "EPL-2.0 OR GPL-2.0", "copyleft"),
        ({"License_Expression": "MPL-2.0 AND (MIT OR 0BSD)"}, "MPL-2.0 AND (MIT OR 0BSD)",
         "copyleft"),
        ({"License": "Other/Proprietary License"}, "Other/Proprietary License", "proprietary"),
    ],
)  # fmt: skip
def test_a_licence_is_read_from_the_most_exact_field_and_flagged(fields, text, flag):
    assert read_licence(describe(**fields)) == text
    assert choose_flag(text) == flag
    (line,) = list_licences([describe(**fields)])
    assert line == ("part", "1", text, flag)


def test_every_flagged_package_here_was_looked_at(capsys):
    """A new dependency with copyleft, or without a licence, fails until somebody reads it."""
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("0 of these not looked at")
    assert len(lines) - 1 == len(list_licences()) > 100


def test_copies_that_a_package_brings_for_itself_are_not_installed(tmp_path, monkeypatch):
    before = list_licences()
    folder = tmp_path / "autocommand-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: autocommand\nVersion: 1\nLicense: GPL\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert list_licences() == before


def test_an_unread_licence_fails_the_command(monkeypatch, capsys):
    monkeypatch.delitem(REVIEWED, "tqdm")
    assert find_review("tqdm") is None
    assert main() == 1
    assert "tqdm" in next(
        line for line in capsys.readouterr().out.splitlines() if "NOT LOOKED AT" in line
    )


def answer(*packages):
    return json.dumps({"dependencies": list(packages), "fixes": []})


CLEAN = {"name": "good", "version": "1", "vulns": []}
FAULTY = {
    "name": "bad", "version": "2",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1", "3"], "aliases": ["CVE-1"]},
              {"id": "PYSEC-2", "fix_versions": [], "aliases": []}],
}  # fmt: skip
SKIPPED = {"name": "unheard", "skip_reason": "Dependency not found on PyPI"}


def test_an_audit_of_packages_without_fault_passes(tmp_path):
    code, lines = audit.judge(tmp_path, answer(CLEAN), "")
    assert (code, lines) == (0, ["1 of 1 packages audited, 0 known vulnerabilities"])


def test_each_known_vulnerability_is_named_with_its_mend(tmp_path):
    code, lines = audit.judge(tmp_path, answer(CLEAN, FAULTY), "")
    assert code == audit.VULNERABLE
    assert lines == [
        "bad 2: PYSEC-1 (CVE-1); mended in 2.1, 3",
        "bad 2: PYSEC-2; mended in no version yet",
        "2 of 2 packages audited, 2 known vulnerabilities",
    ]


@pytest.mark.parametrize("output", [answer(CLEAN, SKIPPED), answer()])
def test_packages_that_nobody_answered_for_are_no_good_news(tmp_path, output):
    code, lines = audit.judge(tmp_path, output, "No known vulnerabilities found")
    assert code == audit.NOT_ASKED
    assert lines[-1].startswith("not audited: ")


def test_without_a_network_the_word_is_clear(tmp_path):
    trace = "Traceback (most recent call last):\n  ...\nrequests.exceptions.ConnectionError: no way"
    code, lines = audit.judge(tmp_path / "pins", "", trace)
    assert code == audit.NOT_ASKED
    assert lines[0].startswith("no network: ")
    assert not any("Traceback" in line for line in lines)
    code, lines = audit.judge(tmp_path, "", "ERROR: pins.txt is no file")
    assert (code, lines) == (audit.NOT_ASKED, ["pip-audit failed: ERROR: pins.txt is no file"])


def test_the_weights_are_in_the_bill_as_doctor_knows_them():
    bill = {
        "components": [{"name": "a", "externalReferences": [{"url": "https://index.local/a"}]}],
        "metadata": {
            "component": {"bom-ref": "root", "version": "9"},
            "tools": {"components": [{"name": "t", "externalReferences": []}]},
        },
        "dependencies": [{"ref": "a"}, {"ref": "root", "dependsOn": ["a"]}],
    }
    made = sbom.finish(bill, ROOT)
    assert "index.local" not in json.dumps(made)
    hashes = {
        entry["name"]: entry["hashes"][0]["content"]
        for entry in made["components"][-1]["components"]
    }
    assert hashes[SAMPLE_WEIGHTS.relative_to(ROOT).as_posix()] == SAMPLE_SHA256
    assert made["dependencies"][1]["dependsOn"] == ["a", sbom.WEIGHTS_REF]


def test_pins_cover_the_tools_and_the_extras():
    """What make installs beyond the base is pinned, too."""
    pins = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").open() if "==" in line
    }
    assert {"cyclonedx-bom", "pip_audit", "model-signing", "pyopenssl"} <= pins
