"""Signatures against the format's own command, and against whatever else may lie in their place."""

import subprocess
import sys

import numpy as np
import pytest

from fuzzyclip.model.signing import (
    SIGNATURE,
    SignatureError,
    make_key_pair,
    sign_folder,
    verify_folder,
)

FILES = {"model.json": b"{}", "efa.safetensors": bytes(range(256)), "sub/deeper.bin": b"\0"}


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "line.pem", make_key_pair(tmp_path / "line.pem")


@pytest.fixture
def signed(tmp_path, keys):
    for name, content in FILES.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    sign_folder(tmp_path / "model", keys[0])
    return tmp_path / "model"


def test_the_formats_own_command_agrees(signed, keys):
    """Both ways: our signature by theirs, and theirs by ours."""

    def call(*arguments):
        command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    place = signed / SIGNATURE
    theirs = ("verify", "key", signed, "--signature", place, "--public_key", keys[1])
    assert call(*theirs).returncode == 0
    (signed / "model.json").write_bytes(b"{ }")
    assert call(*theirs).returncode == 1
    done = call("sign", "key", signed, "--signature", place, "--private_key", keys[0])
    assert done.returncode == 0, done.stderr
    assert sorted(verify_folder(signed, keys[1])) == sorted(FILES)
    (signed / "model.json").write_bytes(b"{}")
    with pytest.raises(SignatureError, match=r"model\.json is changed"):
        verify_folder(signed, keys[1])


def test_a_key_of_openssl_signs(signed, tmp_path):
    """As docs/trust.md makes one, for those who do not want ours."""
    private, public = tmp_path / "own.pem", tmp_path / "own.pub.pem"
    for command in (
        ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private],
        ["ec", "-in", private, "-pubout", "-out", public],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    sign_folder(signed, private)
    assert sorted(verify_folder(signed, public)) == sorted(FILES)


def mutate(content, rng):
    """One of: bytes flipped, a part cut out, doubled, or put in another place."""
    data = bytearray(content)
    first, last = sorted(rng.integers(0, len(data), 2))
    kind = rng.integers(4)
    if kind == 0:
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] ^= 1 << rng.integers(8)
    elif kind == 1:
        del data[first:last]
    elif kind == 2:
        data[first:first] = data[first:last]
    else:
        part = data[first:last]
        del data[first:last]
        place = rng.integers(0, len(data) + 1)
        data[place:place] = part
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_signatures_and_keys_never_verify_changed_files(signed, keys, seed):
    """Where a mutation means the same (a bit that base64 leaves out), whole files alone pass."""
    rng = np.random.default_rng(seed)
    for place, of_changed in [
        (signed / SIGNATURE, True),
        (keys[1], True),
        (signed / SIGNATURE, False),
    ]:
        content = place.read_bytes()
        (signed / "model.json").write_bytes(b"{ }" if of_changed else b"{}")
        for _ in range(50):
            place.write_bytes(mutate(content, rng))
            refusal = ""
            try:
                names = verify_folder(signed, keys[1])
            except SignatureError as error:
                refusal, names = str(error), []
            assert bool(refusal) == (not names)
            assert "\n" not in refusal
            assert not names or (sorted(names) == sorted(FILES) and not of_changed)
        place.write_bytes(content)
    verify_folder(signed, keys[1])
