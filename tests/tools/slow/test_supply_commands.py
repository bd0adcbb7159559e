"""The commands of make: a bill of this environment, an audit without a network."""

import json
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions

import pytest
from imports import ROOT

from tools.supply.licences import normalise

TRUST = ROOT / ".trust" / "bin" / "python"


def call(module, *arguments, **environment):
    return subprocess.run(
        [TRUST, "-m", f"tools.supply.{module}", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bill(tmp_path_factory):
    if not TRUST.exists():
        pytest.skip("the tools come with `make test-all` or `make .trust/.ready`")
    place = tmp_path_factory.mktemp("sbom") / "sbom.json"
    done = call("sbom", sys.executable, place)
    assert done.returncode == 0, done.stderr
    return place


def test_the_bill_has_every_installed_package_and_is_the_same_again(bill, tmp_path):
    content = json.loads(bill.read_text())
    components = {entry["name"]: entry for entry in content["components"]}
    listed = {normalise(name): entry["version"] for name, entry in components.items()}
    # setuptools, once imported, also offers those that it carries for itself
    for package in distributions(path=[sysconfig.get_path("purelib")]):
        name = normalise(package.metadata["Name"])
        if name != "fuzzyclip":  # which the bill is of
            assert listed[name] == package.version, name
    assert components["numpy"]["purl"].startswith("pkg:pypi/numpy@")
    assert components["numpy"]["licenses"]
    assert content["metadata"]["component"]["name"] == "fuzzyclip"
    assert not {"timestamp"} & {*content["metadata"]}
    assert "serialNumber" not in content
    assert call("sbom", sys.executable, tmp_path / "again.json").returncode == 0
    assert (tmp_path / "again.json").read_bytes() == bill.read_bytes()


def test_the_librarys_own_validator_takes_the_bill_and_refuses_a_bent_one(bill, tmp_path):
    program = (
        "import sys\nfrom cyclonedx.schema import SchemaVersion\n"
        "from cyclonedx.validation.json import JsonStrictValidator\n"
        "print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()))"
    )
    bent = tmp_path / "bent.json"
    content = json.loads(bill.read_text())
    content["components"][0]["type"] = "spaceship"
    bent.write_text(json.dumps(content))
    answers = [
        subprocess.run(
            [TRUST, "-c", program, place], capture_output=True, text=True, check=True
        ).stdout
        for place in (bill, bent)
    ]
    assert answers[0] == "None\n"
    assert "spaceship" in answers[1]


def test_the_bill_tells_nothing_of_this_machine(bill):
    content = json.loads(bill.read_text())
    for component in content["components"]:
        component.pop("description", None)  # packages' own words, which may name their pages
    text = json.dumps(content)
    assert not [private for private in ("file:", str(ROOT), sys.prefix) if private in text]
    assert text.count("://") == 1  # of the schema; no index, mirror or repository


def test_an_environment_that_is_none_is_said_to_be(bill, tmp_path):
    done = call("sbom", tmp_path / "nothere", tmp_path / "out.json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_an_audit_without_a_network_ends_with_a_word(bill, tmp_path):
    pins = tmp_path / "pins.txt"
    pins.write_text("numpy==2.4.6\n")
    closed = dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = call("audit", pins, "--cache-dir", tmp_path / "cache", **closed)
    assert done.returncode == 2
    assert done.stderr.startswith("no network: pip-audit asks pypi.org")
    assert "Traceback" not in done.stderr
