"""Signatures of folders: any change of any file is named, whatever else is given is refused."""

import json
import os
import shutil
import stat
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from fuzzyclip import FuzzyCLIP
from fuzzyclip.model import signing
from fuzzyclip.model.card import NATURAL, NATURAL_PIXEL, Calibration, ModelError
from fuzzyclip.model.signing import (
    SIGNATURE,
    SignatureError,
    check_signature,
    make_key_pair,
    sign_folder,
    verify_folder,
)
from fuzzyclip.model.storing import store

FILES = {"model.json": b"{}", "efa.safetensors": bytes(range(256)), "sub/deeper.bin": b"\0"}


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "line.pem", make_key_pair(tmp_path / "line.pem")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def signed(folder, keys):
    sign_folder(folder, keys[0])
    return folder


def write_key(path, key, password=None):
    """A private key in PEM, its public half beside it."""
    hidden = serialization.BestAvailableEncryption(password.encode()) if password else None
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            hidden or serialization.NoEncryption(),
        )
    )
    public = path.with_suffix(".pub")
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return path, public


def test_a_signed_folder_is_verified_with_all_its_files(signed, keys):
    assert sorted(verify_folder(signed, keys[1])) == sorted(FILES)
    assert {path.name for path in signed.iterdir()} == {
        *(n.split("/")[0] for n in FILES),
        SIGNATURE,
    }


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_of_any_byte_is_named(signed, keys, name):
    for place in range(0, len(FILES[name]), 37):
        content = bytearray(FILES[name])
        content[place] ^= 1 << place % 8
        (signed / name).write_bytes(content)
        with pytest.raises(SignatureError, match=f"not as it was signed: {name} is changed$"):
            verify_folder(signed, keys[1])
    (signed / name).write_bytes(FILES[name])
    verify_folder(signed, keys[1])


@pytest.mark.parametrize(
    "name", ["extra.bin", ".gitignore", ".git/config", "sub/model.sig", ".x.tmp"]
)
def test_an_added_file_is_named(signed, keys, name):
    (signed / name).parent.mkdir(exist_ok=True)
    (signed / name).touch()
    with pytest.raises(SignatureError, match=f"not as it was signed: {name} is added$"):
        verify_folder(signed, keys[1])


def test_a_folder_called_like_a_signature_hides_nothing(folder, keys, tmp_path):
    place = sign_folder(folder, keys[0], signature=tmp_path / "elsewhere.sig")
    (folder / SIGNATURE).mkdir()
    (folder / SIGNATURE / "evil.bin").write_text("evil")
    with pytest.raises(SignatureError, match=r"model\.sig/evil\.bin is not covered"):
        verify_folder(folder, keys[1], signature=place)


def test_files_that_a_signature_leaves_out_by_its_own_word_are_named(folder, keys):
    (folder / ".gitattributes").write_text("")
    hashing = signing._import("model_signing.hashing").Config()
    hashing.use_file_serialization(hashing_algorithm="sha256", allow_symlinks=True)
    hashing.set_ignored_paths(paths=["sub", SIGNATURE], ignore_git_paths=True)
    config = signing._import("model_signing.signing").Config()
    config.use_elliptic_key_signer(private_key=keys[0]).set_hashing_config(hashing)
    config.sign(folder, folder / SIGNATURE)
    with pytest.raises(
        SignatureError, match=r"\.gitattributes is not covered, sub/deeper\.bin is not covered"
    ):
        verify_folder(folder, keys[1])


def test_removed_and_renamed_files_are_named(signed, keys):
    (signed / "sub" / "deeper.bin").rename(signed / "sub" / "other.bin")
    (signed / "model.json").unlink()
    words = "model.json is missing, sub/deeper.bin is missing, sub/other.bin is added$"
    with pytest.raises(SignatureError, match=words):
        verify_folder(signed, keys[1])


def test_two_files_that_change_names_are_both_named(signed, keys):
    for one, two in (
        ("model.json", "x"),
        ("efa.safetensors", "model.json"),
        ("x", "efa.safetensors"),
    ):
        (signed / one).rename(signed / two)
    with pytest.raises(SignatureError) as refusal:
        verify_folder(signed, keys[1])
    assert "model.json is changed" in str(refusal.value)
    assert "efa.safetensors is changed" in str(refusal.value)


def test_another_key_verifies_nothing(signed, tmp_path):
    with pytest.raises(SignatureError, match="another key"):
        verify_folder(signed, make_key_pair(tmp_path / "other.pem"))


def test_another_keys_hint_deceives_nobody(signed, keys, tmp_path):
    """The bundle's hint, which nothing signs, is made to name the key that is asked for."""
    other = tmp_path / "other.pem"
    make_key_pair(other)
    content = json.loads((signed / SIGNATURE).read_text())
    hint = content["verificationMaterial"]
    (signed / "model.json").write_bytes(b"{ }")
    sign_folder(signed, other)
    forged = json.loads((signed / SIGNATURE).read_text()) | {"verificationMaterial": hint}
    (signed / SIGNATURE).write_text(json.dumps(forged))
    with pytest.raises(SignatureError, match="another key than the one given, or altered since"):
        verify_folder(signed, keys[1])


def test_a_signature_of_another_folder_is_refused(signed, keys, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.json").write_bytes(b"[]")
    sign_folder(other, keys[0])
    with pytest.raises(SignatureError, match=r"model\.json is changed"):
        verify_folder(signed, keys[1], signature=other / SIGNATURE)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"null", b"[]", b"\xff", b"[" * 50_000, b'{"verificationMaterial": 1}',
     b'{"verificationMaterial": {}, "dsseEnvelope": {}}', b"-----BEGIN PUBLIC KEY-----"],
)  # fmt: skip
def test_what_is_no_signature_is_said_to_be_none(signed, keys, content):
    (signed / SIGNATURE).write_bytes(content)
    with pytest.raises(SignatureError, match=r"model\.sig: not a signature") as refusal:
        verify_folder(signed, keys[1])
    assert "\n" not in str(refusal.value)


def test_a_signature_too_large_is_not_read(signed, keys, monkeypatch):
    monkeypatch.setattr(signing, "LARGEST_SIGNATURE", 100)
    with pytest.raises(SignatureError, match="too many for a signature"):
        verify_folder(signed, keys[1])


def test_an_unsigned_folder_is_refused(folder, keys):
    with pytest.raises(SignatureError, match=r"is not signed: .*model\.sig is missing"):
        verify_folder(folder, keys[1])


def test_a_folder_that_can_not_be_written_has_its_signature_elsewhere(folder, keys, tmp_path):
    place = tmp_path / "signatures" / "model.sig"
    assert sign_folder(folder, keys[0], signature=place) == place
    assert not (folder / SIGNATURE).exists()
    verify_folder(folder, keys[1], signature=place)
    with pytest.raises(SignatureError, match="is not signed"):
        verify_folder(folder, keys[1])
    named = folder / "mine.sig"
    sign_folder(folder, keys[0], signature=named)
    assert sorted(verify_folder(folder, keys[1], signature=named)) == sorted(FILES)


def test_signing_again_replaces_the_signature(signed, keys):
    (signed / "model.json").write_bytes(b"{ }")
    sign_folder(signed, keys[0])
    verify_folder(signed, keys[1])


def test_a_failed_signing_keeps_the_old_signature(signed, keys, tmp_path):
    before = (signed / SIGNATURE).read_bytes()
    os.mkfifo(signed / "pipe")
    with pytest.raises(SignatureError, match="a pipe"):
        sign_folder(signed, keys[0])
    assert (signed / SIGNATURE).read_bytes() == before
    assert not [path for path in signed.iterdir() if path.name.endswith(".tmp")]


def test_links_are_verified_by_the_bytes_behind_them(signed, keys, tmp_path):
    """DVC may put links to its cache in place of a model's files."""
    behind = tmp_path / "cache"
    (signed / "model.json").rename(behind)
    (signed / "model.json").symlink_to(behind)
    verify_folder(signed, keys[1])
    behind.write_bytes(b"other")
    with pytest.raises(SignatureError, match=r"model\.json is changed"):
        verify_folder(signed, keys[1])


def test_folders_without_files_change_nothing_that_is_signed(signed, keys):
    """As SECURITY.md says, and OpenSSF's own command does."""
    (signed / "empty").mkdir()
    verify_folder(signed, keys[1])


def test_a_link_to_a_folder_hides_nothing(signed, keys, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (signed / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SignatureError, match="a link to a folder"):
        verify_folder(signed, keys[1])


@pytest.mark.parametrize(("place", "words"), [("nothere", "no such folder"), ("file", "a file")])
def test_what_is_no_folder_is_refused(tmp_path, keys, place, words):
    (tmp_path / "file").touch()
    for work in (lambda: sign_folder(tmp_path / place, keys[0]),
                 lambda: verify_folder(tmp_path / place, keys[1])):  # fmt: skip
        with pytest.raises(SignatureError, match=words):
            work()


def test_an_empty_folder_is_not_signed(tmp_path, keys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SignatureError, match="no files"):
        sign_folder(tmp_path / "empty", keys[0])


def test_keys_that_go_with_the_model_are_refused(folder, keys):
    inside = folder / "line.pem"
    public = make_key_pair(inside)
    with pytest.raises(SignatureError, match="it would go away with"):
        sign_folder(folder, inside)
    sign_folder(folder, keys[0])
    with pytest.raises(SignatureError, match="can change this key too"):
        verify_folder(folder, public)


def test_a_private_key_is_its_owners_alone_and_never_replaced(keys):
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert public.name == "line.pub.pem"
    assert b"PRIVATE" not in public.read_bytes()
    before = private.read_bytes()
    with pytest.raises(SignatureError, match="exists already"):
        make_key_pair(private)
    assert private.read_bytes() == before


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_all_curves_of_the_format_sign(folder, tmp_path, curve):
    private, public = write_key(tmp_path / "key", ec.generate_private_key(curve()))
    sign_folder(folder, private)
    verify_folder(folder, public)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: ec.generate_private_key(ec.SECP256K1()), "secp256k1"),
        (ed25519.Ed25519PrivateKey.generate, "Ed25519"),
        (lambda: rsa.generate_private_key(65537, 1024), "RSA"),
    ],
)
def test_other_kinds_of_keys_are_refused_by_name(signed, tmp_path, make, kind):
    private, public = write_key(tmp_path / "key", make())
    with pytest.raises(SignatureError, match=f"a key of the kind {kind}"):
        sign_folder(signed, private)
    with pytest.raises(SignatureError, match=f"a key of the kind {kind}"):
        verify_folder(signed, public)


def test_a_key_with_a_password_needs_it(folder, tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = write_key(tmp_path / "key", key, "geheim ü")
    for password, words in ((None, "has a password"), ("other", "the password is another")):
        with pytest.raises(SignatureError, match=words):
            sign_folder(folder, private, password=password)
    sign_folder(folder, private, password="geheim ü")
    verify_folder(folder, public)
    plain, _ = write_key(tmp_path / "plain", key)
    with pytest.raises(SignatureError, match="has no password"):
        sign_folder(folder, plain, password="x")


def test_keys_in_each_others_place_and_none_at_all_are_refused(signed, keys, tmp_path):
    private, public = keys
    (tmp_path / "text").write_text("no key")
    for path, words in ((public, "the public key; signing"), (tmp_path / "text", "not readable"),
                        (tmp_path / "nothere", "no such key")):  # fmt: skip
        with pytest.raises(SignatureError, match=words):
            sign_folder(signed, path)
    for path, words in ((private, "a private key; verifying"), (tmp_path / "text", "not readable")):
        with pytest.raises(SignatureError, match=words):
            verify_folder(signed, path)


def test_without_the_packages_the_extra_is_named(folder, keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing.hashing", None)
    with pytest.raises(ModelError, match=r"fuzzyclip\[sign\]"):
        verify_folder(folder, keys[1])


def test_names_of_any_script_are_covered_and_those_of_no_script_named(folder, keys):
    (folder / "ключ \u2028 ü'\".bin").write_bytes(b"1")
    sign_folder(folder, keys[0])
    verify_folder(folder, keys[1])
    (folder / "ключ \u2028 ü'\".bin").write_bytes(b"2")
    with pytest.raises(SignatureError, match=r"ключ .* is changed"):
        verify_folder(folder, keys[1])
    (folder / os.fsdecode(b"\xff.bin")).touch()
    with pytest.raises(SignatureError, match="no UTF-8"):
        sign_folder(folder, keys[0])


@pytest.fixture
def model(packaged, keys, tmp_path):
    folder = shutil.copytree(packaged, tmp_path / "packaged")
    sign_folder(folder, keys[0])
    return folder


def test_a_model_is_loaded_as_it_was_signed_or_not_parsed_at_all(model, keys, monkeypatch):
    FuzzyCLIP.load(model, device="cpu", verify_key=keys[1])
    card = model / "model.json"
    content = card.read_bytes()
    monkeypatch.setattr("fuzzyclip.model.loaded.read_card", lambda _: pytest.fail("parsed"))
    for change in (lambda: card.write_bytes(content + b" "), (model / SIGNATURE).unlink):
        change()
        with pytest.raises(SignatureError):
            FuzzyCLIP.load(model, device="cpu", verify_key=keys[1])
        card.write_bytes(content)
    with pytest.raises(SignatureError, match="without a key"):
        check_signature(model, None, card)


def test_an_unasked_signature_changes_nothing(model):
    FuzzyCLIP.load(model, device="cpu")


def test_a_calibrated_model_has_to_be_signed_again(model, keys, tmp_path):
    calibration = Calibration(image=NATURAL, pixel=NATURAL_PIXEL)
    store(model, "nut", calibration, out=tmp_path / "copy")
    assert not (tmp_path / "copy" / SIGNATURE).exists()
    verify_folder(model, keys[1])
    store(model, "nut", calibration)
    with pytest.raises(SignatureError, match="is not signed"):
        verify_folder(model, keys[1])
