"""The registry that ships, what a broken one is told, and how names become files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from edge.cli import main as command_line
from edge.cli.weights import VERB
from edge.contract import ModelContract
from edge.errors import InputError
from edge.weights import find_weights
from edge.weights.cache import cache_folder, cached_path
from edge.weights.digests import Digest, digest_of
from edge.weights.download import require_secure
from edge.weights.registry import read_registry
from edge.weights.shipped import FOLDER

GOOD = """
[weights.net]
role = "detector"
file = "net.onnx"
about = "a net"
origin = "somewhere"
licence = "MIT"
url = "https://example.invalid/net.onnx"
sha256 = "{sha256}"
size = 3
[weights.net.contract]
color = "bgr"
layout = "nchw"
dtype = "float32"
""".format(sha256=hashlib.sha256(b"net").hexdigest())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARCEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of weights like `model_weights/`: one embedder, one detector of ours, and a registry."""
    place = tmp_path / "model_weights"
    place.mkdir()
    for name, header in (("ours-512", {"embedding_size": "512"}), ("our-detector", {"role": "detector"})):
        text = json.dumps({"__metadata__": header}).encode()
        (place / f"{name}.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    (place / "registry.toml").write_text(GOOD)
    return place


def _edge(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    # The other verbs have tests of their own; this one runs behind the real command line.
    monkeypatch.setattr(command_line, "find_verbs", lambda *_: [VERB])
    return command_line.main(["weights", *arguments])


def test_the_registry_that_ships_is_complete_and_names_only_safe_addresses() -> None:
    entries = read_registry()
    assert {"mobilefacenet-original-512", "mobilefacenet-foamliu-128", "yunet-s-dynamic", "yunet-n-dynamic"} <= set(
        entries
    )
    original = entries["mobilefacenet-original-512"].digest
    assert str(original) == "git-blob-sha1:964e4e9a1ccb4c4e5885b9d65ea3f97ea6c68db2"
    for entry in entries.values():
        if entry.address is None:
            assert entry.by_hand
        else:
            require_secure(entry.address)
            assert entry.size is not None, f"{entry.name}: a download without a bound"


@pytest.mark.realdata
def test_the_registry_describes_the_real_files(shared_data: Path) -> None:
    checked = 0
    for entry in read_registry().values():
        path = shared_data / "models" / entry.file
        if path.is_file():
            assert entry.digest.matches(path), entry.name
            assert entry.size == path.stat().st_size, entry.name
            checked += 1
    assert checked >= 7


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("[weights.net", "[other.net"), "no \\[weights.NAME\\]"),
        (('licence = "MIT"', ""), "weights.net: licence is missing"),
        (('licence = "MIT"', 'licence = "MIT"\nlicense = "MIT"'), "unknown entry 'license'"),
        (('"net.onnx"', '"../net.onnx"'), "plain file name"),
        (("size = 3", "size = -3"), "size is -3"),
        (("size = 3", 'by_hand = "ask"'), "exactly one of url, archive and by_hand"),
        (("size = 3", 'git_blob_sha1 = "0"'), "exactly one of sha256 and git_blob_sha1"),
        (('sha256 = "', 'sha256 = "zz'), "64 lower-case hex digits"),
        (('"detector"', '"camera"'), "role is 'camera'"),
        (('color = "bgr"', 'color = "green"'), "color is 'green'"),
        (("[weights.net.contract]", "[weights.net.contract"), "not a TOML file"),
    ],
)
def test_a_broken_registry_is_refused_by_name(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    path = tmp_path / "registry.toml"
    text = GOOD.replace(*change)
    assert text != GOOD
    path.write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        read_registry(path)
    assert "\n" not in str(caught.value)


def test_a_git_digest_is_that_of_git(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"hello\n")
    assert digest_of(file, "git-blob-sha1") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert Digest("sha256", hashlib.sha256(b"hello\n").hexdigest()).matches(file)
    file.write_bytes(b"hello")
    assert not Digest("git-blob-sha1", "ce013625030ba8dba906f756967f9e9ca394464a").matches(file)


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("ARCEDGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "arcedge"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "arcedge"


def test_a_name_means_a_file_then_shipped_then_fetched_weights(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "ours-512"
    assert find_weights("ours-512", "embedder", folder) == folder / "ours-512.safetensors"
    file.write_bytes(b"x")
    assert find_weights(str(file), "embedder", folder) == file
    assert find_weights(None, "detector", folder) == folder / "our-detector.safetensors"
    with pytest.raises(InputError, match="edge weights fetch net"):
        find_weights("net", "detector", folder)
    fetched = cached_path(read_registry(folder / "registry.toml")["net"])
    fetched.parent.mkdir(parents=True)
    fetched.write_bytes(b"net")
    assert find_weights("net", "detector", folder) == fetched
    fetched.write_bytes(b"not")
    with pytest.raises(InputError, match="does not match its digest"):
        find_weights("net", "detector", folder)


def test_a_name_of_the_wrong_role_or_of_nothing_is_refused(folder: Path) -> None:
    for name in ("our-detector", "net"):
        with pytest.raises(InputError, match=f"{name}: is a detector; an embedder is needed"):
            find_weights(name, "embedder", folder)
    with pytest.raises(InputError, match=r"our-detector, ours-512, the registry holds net"):
        find_weights("nothing", "embedder", folder)


def test_list_names_all_and_says_what_is_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _edge(monkeypatch, "list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(read_registry()) <= set(rows)
    assert rows["yunet-n-dynamic"]["state"] == "to fetch"
    assert rows["mobilefacenet-original-512"]["state"] == "by hand"
    for path in FOLDER.glob("*.safetensors"):
        assert rows[path.stem]["state"] == "ships"
    assert _edge(monkeypatch, "list") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def test_show_has_a_line_for_each_figure_and_names_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = json.loads((FOLDER / "edge-detector.card.json").read_text(encoding="utf-8"))
    assert _edge(monkeypatch, "show", "edge-detector") == 0
    shown = capsys.readouterr().out
    lines = [line.strip().removeprefix("figures").strip() for line in shown.splitlines()]
    for figure in card["figures"]:
        (line,) = (line for line in lines if line.startswith(f"{figure['what']}: {figure['value']:g}"))
        assert f"[{figure['low']:g}, {figure['high']:g}] of {figure['count']:,}; {figure['on']}" in line
        assert line.endswith(", missed") is (figure.get("met") is False)
    assert all(limit in shown for limit in card["limits"])
    assert _edge(monkeypatch, "show", "nothing") == 2
    assert "there are edge-detector, edge-landmarker, mobilefacenet-512" in capsys.readouterr().err


def test_show_prints_a_contract_file_that_reads_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, entry in read_registry().items():
        if entry.role == "teacher":
            assert _edge(monkeypatch, "show", name, "--contract") == 2
            assert "it has no contract" in capsys.readouterr().err
            assert _edge(monkeypatch, "show", name) == 0
            assert "Apache-2.0" in capsys.readouterr().out
            continue
        assert _edge(monkeypatch, "show", name, "--contract") == 0
        file = tmp_path / f"{name}.toml"
        file.write_text(capsys.readouterr().out)
        assert ModelContract.from_toml(file) == entry.contract


def test_fetch_refuses_wrong_bytes_and_unknown_names_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, cache: Path
) -> None:
    wrong = tmp_path / "yunet.onnx"
    wrong.write_bytes(b"not YuNet")
    for arguments in (("yunet-n-dynamic", "--from", str(wrong)), ("yunet-n-dynamic", "--offline"), ("nothing",)):
        assert _edge(monkeypatch, "fetch", *arguments) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("edge weights: ")
        assert said.err.count("\n") == 1
    monkeypatch.setenv("ARCEDGE_OFFLINE", "1")
    assert _edge(monkeypatch, "fetch", "yunet-n-dynamic") == 2
    assert "offline" in capsys.readouterr().err
    assert not list(cache.rglob("*.onnx"))


@pytest.mark.realdata
def test_fetch_then_use_then_verify_then_damage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shared_data: Path
) -> None:
    source = shared_data / "models" / "yunet_n_dynamic.onnx"
    assert _edge(monkeypatch, "fetch", "yunet-n-dynamic", "--from", str(source)) == 0
    said = capsys.readouterr()
    assert "Apache-2.0" in said.err
    path = Path(said.out.strip())
    assert path == find_weights("yunet-n-dynamic", "detector")
    assert path.read_bytes() == source.read_bytes()
    assert _edge(monkeypatch, "verify", "yunet-n-dynamic") == 0
    assert capsys.readouterr().out == "yunet-n-dynamic: ok\n"
    path.write_bytes(path.read_bytes()[:-1])
    assert _edge(monkeypatch, "verify", "--json") == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["yunet-n-dynamic"].startswith("does not have sha256:104ee26c")
    assert "yunet-n-dynamic" in said.err
    assert _edge(monkeypatch, "verify", "nothing") == 2
