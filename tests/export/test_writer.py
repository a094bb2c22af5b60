from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge.bundle import Bundle
from edge.contract import ModelContract
from edge.errors import BundleError
from edge.signing import PublicKey, SigningKey, generate
from export.writer import Artefact, require_writable, write_bundle

CONTRACT = ModelContract(role="detector", size=None)


def artefacts(content: bytes = b"model") -> list[Artefact]:
    return [Artefact(f"detector-{p}", p, CONTRACT, content + p.encode()) for p in ("fp32", "int8")]


def test_a_bundle_opens_with_what_was_put_in(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "a.bundle", artefacts(), {"why": "test"}, {"note.json": b"{}"})
    again = Bundle.open(tmp_path / "a.bundle")
    assert again.manifest == bundle.manifest
    assert again.load(again.select("detector", "int8")) == b"modelint8"
    assert again.manifest.provenance == {"why": "test"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bundle"], "no leftovers beside it"


def test_a_bundle_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bundle"
    write_bundle(path, artefacts(b"old"), {}, {"old-extra": b"x"})
    write_bundle(path, artefacts(b"new")[:1], {})
    assert sorted(file.name for file in path.iterdir()) == ["bundle.json", "detector-fp32.onnx"]
    assert Bundle.open(path).load(Bundle.open(path).select("detector")) == b"newfp32"
    assert [p.name for p in path.parent.iterdir()] == ["a.bundle"]


def test_what_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "precious.jpg").write_bytes(b"1")
    file = tmp_path / "file"
    file.write_bytes(b"1")
    link = tmp_path / "link"
    link.symlink_to(photos)
    for target in (photos, file, link):
        with pytest.raises(BundleError):
            write_bundle(target, artefacts(), {})
    assert (photos / "precious.jpg").read_bytes() == b"1"
    require_writable(tmp_path / "new")


def test_two_variants_of_one_name_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="share a name"):
        write_bundle(tmp_path / "a", [*artefacts(), *artefacts()], {})
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from export import writer
from export.writer import Artefact, write_bundle
from edge.contract import ModelContract
real, left = writer.write_through, [int(sys.argv[2])]
def write(file, data):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    real(file, data)
writer.write_through = write
contract = ModelContract(role="detector", size=None)
models = [Artefact(f"detector-{p}", p, contract, b"new" + p.encode()) for p in ("fp32", "int8")]
write_bundle(Path(sys.argv[1]), models, {})
"""


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("existing", [False, True])
def test_a_killed_export_leaves_the_old_bundle_or_none(
    tmp_path: Path, repository: Path, after: int, existing: bool
) -> None:
    path = tmp_path / "a.bundle"
    if existing:
        write_bundle(path, artefacts(b"old"), {})
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(after)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    if existing:
        bundle = Bundle.open(path)
        assert [bundle.load(variant) for variant in bundle.manifest.variants] == [b"oldfp32", b"oldint8"]
    else:
        assert not path.exists()
    # And the next export goes through, whatever the killed one left beside.
    write_bundle(path, artefacts(b"next"), {})
    assert Bundle.open(path).load(Bundle.open(path).select("detector")) == b"nextfp32"


KILLED_WHILE_MOVING = """
import os, signal, sys
from pathlib import Path
from export import writer
from export.writer import Artefact, write_bundle
from edge.contract import ModelContract
real = writer._exchange
def exchange(one, other):
    if sys.argv[2] == "after":
        real(one, other)
    os.kill(os.getpid(), signal.SIGKILL)
writer._exchange = exchange
contract = ModelContract(role="detector", size=None)
write_bundle(Path(sys.argv[1]), [Artefact(f"detector-{p}", p, contract, b"new" + p.encode()) for p in ("fp32",)], {})
"""


@pytest.mark.parametrize(("moment", "there"), [("before", b"oldfp32"), ("after", b"newfp32")])
def test_killed_at_the_last_step_there_is_a_whole_bundle(
    tmp_path: Path, repository: Path, moment: str, there: bytes
) -> None:
    path = tmp_path / "a.bundle"
    write_bundle(path, artefacts(b"old"), {})
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    words = [sys.executable, "-c", KILLED_WHILE_MOVING, str(path), moment]
    assert subprocess.run(words, env=environment, check=False).returncode == -signal.SIGKILL
    bundle = Bundle.open(path)
    assert bundle.load(bundle.select("detector")) == there


def test_where_directories_cannot_be_exchanged_the_old_one_steps_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.writer._exchange", lambda one, other: False)
    path = tmp_path / "a.bundle"
    write_bundle(path, artefacts(b"old"), {})
    write_bundle(path, artefacts(b"new"), {})
    assert Bundle.open(path).load(Bundle.open(path).select("detector")) == b"newfp32"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bundle"]


def test_a_bundle_is_signed_before_it_is_in_its_place(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    generate(tmp_path / "k")
    write_bundle(tmp_path / "b", artefacts(), {}, key=SigningKey.read(tmp_path / "k"))
    assert Bundle.open(tmp_path / "b", PublicKey.read(tmp_path / "k.pub")).manifest.variants
