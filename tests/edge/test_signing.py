from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from edge.bundle import Bundle, sign_bundle
from edge.cli.bundle import VERB
from edge.cli.embed import VERB as EMBED
from edge.errors import BundleError, InputError
from edge.signing import ENVIRONMENT, PublicKey, SigningKey, generate


@pytest.fixture
def keys(tmp_path: Path) -> tuple[SigningKey, PublicKey]:
    generate(tmp_path / "release.key")
    return SigningKey.read(tmp_path / "release.key"), PublicKey.read(tmp_path / "release.key.pub")


def test_a_signed_bundle_opens_with_its_key_and_without_one(
    own_bundle: Path, keys: tuple[SigningKey, PublicKey]
) -> None:
    private, public = keys
    sign_bundle(Bundle.open(own_bundle), private)
    bundle = Bundle.open(own_bundle, public)
    assert bundle.load(bundle.select("embedder"))
    assert bundle.digest() == Bundle.open(own_bundle).digest()
    assert [path.name for path in own_bundle.iterdir() if "part" in path.name] == []


def test_a_bundle_without_signature_is_refused_where_one_is_required(
    own_bundle: Path, keys: tuple[SigningKey, PublicKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError, match=r"is not signed, and .*release\.key\.pub is required"):
        Bundle.open(own_bundle, keys[1])
    monkeypatch.setenv(ENVIRONMENT, str(keys[1].file))
    with pytest.raises(BundleError, match="is not signed"):
        Bundle.open(own_bundle)


def test_another_key_is_named_with_the_one_that_was_wanted(
    own_bundle: Path, keys: tuple[SigningKey, PublicKey], tmp_path: Path
) -> None:
    sign_bundle(Bundle.open(own_bundle), keys[0])
    other = generate(tmp_path / "other.key")
    with pytest.raises(BundleError, match=f"signed with key {keys[1].identity}, not with that of .*{other}"):
        Bundle.open(own_bundle, PublicKey.read(tmp_path / "other.key.pub"))


@pytest.mark.parametrize("place", [0.0, 0.3, 0.9])
def test_a_manifest_changed_after_signing_is_refused_before_it_is_parsed(
    own_bundle: Path, keys: tuple[SigningKey, PublicKey], place: float
) -> None:
    sign_bundle(Bundle.open(own_bundle), keys[0])
    file = own_bundle / "bundle.json"
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match="changed after signing"):
        Bundle.open(own_bundle, keys[1])


def test_a_threshold_lowered_by_hand_breaks_the_signature(own_bundle: Path, keys: tuple[SigningKey, PublicKey]) -> None:
    sign_bundle(Bundle.open(own_bundle), keys[0])
    values = json.loads((own_bundle / "bundle.json").read_text())
    values["variants"][1]["threshold"]["similarity"] = 0.01
    (own_bundle / "bundle.json").write_text(json.dumps(values))
    assert Bundle.open(own_bundle).manifest, "whoever requires no signature gets what is there"
    with pytest.raises(BundleError, match="changed after signing"):
        Bundle.open(own_bundle, keys[1])


def test_a_changed_model_is_refused_although_the_signature_holds(
    own_bundle: Path, keys: tuple[SigningKey, PublicKey]
) -> None:
    sign_bundle(Bundle.open(own_bundle), keys[0])
    file = own_bundle / "embedder.onnx"
    file.write_bytes(file.read_bytes()[::-1])
    bundle = Bundle.open(own_bundle, keys[1])
    with pytest.raises(BundleError, match="digest differs"):
        bundle.load(bundle.select("embedder"))


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 5000, b'{"format": "arcedge-signature"}', b"x" * 10_000])
def test_a_damaged_signature_is_one_line(own_bundle: Path, keys: tuple[SigningKey, PublicKey], content: bytes) -> None:
    (own_bundle / "bundle.sig").write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Bundle.open(own_bundle, keys[1])
    assert "\n" not in str(caught.value)


def test_a_signature_of_one_bundle_is_none_of_another(own_bundle: Path, keys: tuple[SigningKey, PublicKey]) -> None:
    other = keys[0].sign(b"{}").to_bytes()
    (own_bundle / "bundle.sig").write_bytes(other)
    with pytest.raises(BundleError, match="changed after signing"):
        Bundle.open(own_bundle, keys[1])


def test_keys_are_guarded(tmp_path: Path, keys: tuple[SigningKey, PublicKey]) -> None:
    private = tmp_path / "release.key"
    assert private.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="there already"):
        generate(private)
    with pytest.raises(InputError, match="is a private key"):
        PublicKey.read(private)
    with pytest.raises(InputError, match="no private key"):
        SigningKey.read(_secret(tmp_path / "x", b"nonsense"))
    with pytest.raises(InputError, match="is the public key"):
        SigningKey.read(private.with_name(f"{private.name}.pub"))
    private.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        SigningKey.read(private)
    with pytest.raises(InputError, match="cannot be read"):
        PublicKey.read(tmp_path / "none.pub")


def _secret(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    file.chmod(0o600)
    return file


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import x25519
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = x25519.X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(InputError, match="another kind"):
        SigningKey.read(_secret(tmp_path / "x.key", pem))


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    VERB.configure(parser)
    return VERB.run(parser.parse_args([str(word) for word in words]))


def test_the_commands_make_a_key_sign_and_verify(
    own_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "k"
    assert run("keygen", key) == 0
    assert run("verify", own_bundle) == 0
    assert "not signed" in capsys.readouterr().out
    assert run("sign", own_bundle, "--key", key) == 0
    assert run("inspect", own_bundle) == 0
    assert "not checked" in capsys.readouterr().out
    assert run("verify", own_bundle, "--require-signed", f"{key}.pub") == 0
    assert "signature checked" in capsys.readouterr().out
    (own_bundle / "embedder.onnx").write_bytes(b"broken")
    with pytest.raises(BundleError):
        run("sign", own_bundle, "--key", key)


def test_verbs_that_open_a_bundle_require_a_signature_on_demand(own_bundle: Path, tmp_path: Path) -> None:
    generate(tmp_path / "k")
    parser = argparse.ArgumentParser()
    EMBED.configure(parser)
    words = ["--bundle", str(own_bundle), "--require-signed", str(tmp_path / "k.pub")]
    picture = Path(__file__)  # never looked at
    with pytest.raises(BundleError, match="is not signed"):
        EMBED.run(parser.parse_args([*words, str(picture), "--out", str(tmp_path / "e.npz")]))


def test_diff_names_what_changed(own_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(own_bundle, other)
    assert run("diff", own_bundle, other) == 0
    values = json.loads((other / "bundle.json").read_text())
    values["variants"][1]["threshold"]["similarity"] = 0.25
    values["variants"][0]["contract"]["stride"] = 64
    (other / "bundle.json").write_text(json.dumps(values))
    capsys.readouterr()
    assert run("diff", own_bundle, other) == 1
    printed = capsys.readouterr().out
    assert "threshold.similarity: 0.7 → 0.25" in printed
    assert "contract.stride: 32 → 64" in printed


def test_diff_shows_what_differs_however_late(
    own_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(own_bundle, other)
    for bundle, similarity, cosine, note in (
        (own_bundle, 0.123456781, 1.0, "a text that goes on for long before it ends with one"),
        (other, 0.123456789, 0.99999999, "a text that goes on for long before it ends with two"),
    ):
        values = json.loads((bundle / "bundle.json").read_text())
        values["variants"][1]["threshold"]["similarity"] = similarity
        values["variants"][1]["measured"] = {"cosine": cosine, "note": note, "count": 1 if bundle is other else "1"}
        (bundle / "bundle.json").write_text(json.dumps(values))
    assert run("diff", own_bundle, other) == 1
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    told = {key.partition(" ")[2]: value for key, value in lines.items()}
    assert told["threshold.similarity"] == "0.12345678 → 0.12345679"
    assert told["measured.cosine"] == "1 → 0.99999999"
    assert told["measured.note"] == "… with one → … with two"
    assert told["measured.count"] == "'1' → 1"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(own_bundle: Path) -> None:
    (own_bundle / "embedder.onnx").unlink()
    os.mkfifo(own_bundle / "embedder.onnx")
    bundle = Bundle.open(own_bundle)
    with pytest.raises(BundleError, match="no plain file"):
        bundle.load(bundle.select("embedder"))


def test_a_manifest_that_is_a_link_too_large_or_too_deep_is_refused(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = own_bundle / "bundle.json"
    content = file.read_bytes()
    file.write_bytes(b'{"format":' + b"[" * 100_000)
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(own_bundle)
    file.unlink()
    (tmp_path / "elsewhere.json").write_bytes(content)
    file.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match="is a link"):
        Bundle.open(own_bundle)
    file.unlink()
    file.write_bytes(content)
    monkeypatch.setattr("edge.bundle.MAX_MANIFEST_BYTES", len(content) - 1)
    with pytest.raises(BundleError, match="larger than"):
        Bundle.open(own_bundle)
