from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cli.main import main
from edge.errors import GalleryError, InputError, MissingExtraError
from edge.gallery import Binding, Gallery, Key, NewEntry, envelope
from edge.gallery.cipher import Sealed
from edge.gallery.exchange import export_gallery, import_gallery
from edge.gallery.sqlite import SqliteStore
from edge.gallery.vectors import MATRIX_NAME
from edge.types import Floats

SIZE = 16
BINDING = Binding("c" * 64, "a" * 64, "embedder-fp32", SIZE)
KEY, OTHER = Key(bytes(range(32))), Key(bytes(32))
SECRETS = ("Ada Lovelace", "photos/ada-at-home.png", "PNG of a face")


def unit(count: int, seed: int = 0) -> Floats:
    vectors = np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(gallery: Gallery) -> Floats:
    """Three vectors of Ada and one that is not her."""
    vectors = unit(4)
    name, source, crop = SECRETS
    gallery.add_entries([NewEntry(name, row, source, crop.encode(), i == 3) for i, row in enumerate(vectors)])
    return vectors


def in_the_clear(folder: Path, vectors: Floats) -> set[str]:
    """Which of the secrets stand in any file."""
    content = b"\0".join(file.read_bytes() for file in folder.iterdir() if file.is_file())
    found = {secret for secret in SECRETS if secret.encode() in content}
    # Eight bytes of a vector are enough to betray it.
    parts = [row.tobytes()[start : start + 8] for row in vectors for start in range(0, SIZE * 4, 8)]
    return found | {"vector" for part in parts if part in content}


def whole(gallery: Gallery) -> list[tuple[Any, ...]]:
    return [(e.identity, e.vector.tobytes(), e.source, e.crop, e.negative) for e in gallery.entries()]


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.create(tmp_path / "g", BINDING, KEY) as gallery:
        yield gallery


def test_nothing_of_an_encrypted_gallery_stands_in_a_file_and_all_of_it_is_found(sealed: Gallery) -> None:
    vectors = fill(sealed)
    snapshot = sealed.snapshot()
    assert {file.suffix for file in sealed.path.iterdir()} >= {".sqlite3", ".sqlite3-wal"}  # the log is searched too
    assert in_the_clear(sealed.path, vectors) == set()
    np.testing.assert_array_equal(snapshot.of("Ada Lovelace"), vectors[:3])
    sealed.close()
    assert in_the_clear(sealed.path, vectors) == set()
    with Gallery.open(sealed.path, KEY) as again:
        assert whole(again) == [
            (SECRETS[0], row.tobytes(), *SECRETS[1:2], SECRETS[2].encode(), i == 3) for i, row in enumerate(vectors)
        ]
        assert again.add("Ada Lovelace", vectors[:3], ["x"] * 3) == 0
        again.rename("Ada Lovelace", "Countess")
        assert again.forget("Countess") == 4
        assert again.identities() == []


def test_the_search_for_traces_finds_what_a_plain_gallery_holds(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", BINDING) as gallery:
        assert in_the_clear(gallery.path, fill(gallery)) == {*SECRETS, "vector"}


def test_without_the_right_key_it_is_said_in_one_line(sealed: Gallery) -> None:
    fill(sealed)
    with pytest.raises(GalleryError, match="is encrypted; name its key"):
        Gallery.open(sealed.path)
    with pytest.raises(GalleryError, match="not the key it was encrypted with"):
        Gallery.open(sealed.path, OTHER)
    with pytest.raises(GalleryError, match="is encrypted"):
        Gallery.open_or_create(sealed.path, BINDING)


def test_a_plain_gallery_takes_no_key(tmp_path: Path) -> None:
    Gallery.create(tmp_path / "g", BINDING).close()
    with pytest.raises(GalleryError, match="is not encrypted"):
        Gallery.open(tmp_path / "g", KEY)


@pytest.mark.parametrize(("before", "after"), [(None, KEY), (KEY, OTHER), (KEY, None)])
def test_rekeying_changes_what_opens_it_and_nothing_else(tmp_path: Path, before: Key | None, after: Key | None) -> None:
    with Gallery.create(tmp_path / "g", BINDING, before) as gallery:
        vectors = fill(gallery)
        gallery.snapshot()
        records = whole(gallery)
        gallery.rekey(after)
        assert in_the_clear(gallery.path, vectors) == (set() if after else {*SECRETS, "vector"})
        assert whole(gallery) == records
        np.testing.assert_array_equal(gallery.snapshot().of("Ada Lovelace"), vectors[:3])
    with pytest.raises(GalleryError):
        Gallery.open(tmp_path / "g", before)
    with Gallery.open(tmp_path / "g", after) as again:
        assert whole(again) == records
        assert again.add("Ada Lovelace", vectors[:3], ["x"] * 3) == 0


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (None, KEY, "is encrypted with a new key; start again with it"),
        (KEY, OTHER, "is encrypted with a new key; start again with it"),
        (KEY, None, "is not encrypted any more; start again"),
    ],
)
def test_a_camera_that_runs_while_it_is_rekeyed_says_so_and_leaves_nothing(
    tmp_path: Path, before: Key | None, after: Key | None, said: str
) -> None:
    with Gallery.create(tmp_path / "g", BINDING, before) as gallery, Gallery.open(tmp_path / "g", before) as camera:
        vectors = fill(gallery)
        camera.snapshot()
        gallery.rekey(after)
        for _ in range(2):
            with pytest.raises(GalleryError, match=said):
                camera.snapshot()
        with pytest.raises(GalleryError, match=said):
            camera.add("eve", unit(1, 5), ["where eve was seen"])
        assert not (tmp_path / "g" / MATRIX_NAME).exists()
        assert in_the_clear(gallery.path, vectors) == (set() if after else {*SECRETS, "vector"})
        np.testing.assert_array_equal(gallery.snapshot().of("Ada Lovelace"), vectors[:3])


def test_no_matrix_in_the_clear_stays_though_a_camera_makes_one_while_it_is_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gallery.create(tmp_path / "g", BINDING) as gallery, Gallery.open(tmp_path / "g") as camera:
        vectors = fill(gallery)
        rekey = SqliteStore.rekey

        def rekey_after_a_frame(store: SqliteStore, key: Key | None) -> None:
            camera.snapshot()
            rekey(store, key)

        monkeypatch.setattr(SqliteStore, "rekey", rekey_after_a_frame)
        gallery.rekey(KEY)
        assert in_the_clear(gallery.path, vectors) == set()


def test_a_rekeying_that_fails_leaves_all_as_it_was(sealed: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(sealed)
    records = whole(sealed)
    calls: list[str] = []
    real = Sealed.seal

    def full_disk(self: Sealed, data: bytes, kind: str) -> bytes:
        calls.append(kind)
        if len(calls) == 5:
            raise OSError("disk full")
        return real(self, data, kind)

    with monkeypatch.context() as patch:
        patch.setattr(Sealed, "seal", full_disk)
        with pytest.raises(OSError, match="disk full"):
            sealed.rekey(OTHER)
    sealed.close()
    with Gallery.open(sealed.path, KEY) as again:
        assert whole(again) == records


class TestKey:
    def test_it_comes_back_from_its_file_that_only_the_owner_reads(self, tmp_path: Path) -> None:
        key = Key.random()
        key.write(tmp_path / "key")
        assert Key.read(tmp_path / "key") == key
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
        with pytest.raises(InputError, match="exists"):
            Key.random().write(tmp_path / "key")
        assert Key.random() != key

    def test_it_is_not_shown(self) -> None:
        assert "1f" not in repr(KEY)
        assert repr(KEY) == "Key()"

    @pytest.mark.parametrize("text", ["", "short", "A" * 43, "ключ", "A" * 80])
    def test_what_is_no_key_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "key").write_text(text, encoding="utf-8")
        with pytest.raises(GalleryError, match="no key of a gallery"):
            Key.read(tmp_path / "key")

    def test_the_environment_names_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ARCEDGE_GALLERY_KEY", raising=False)
        monkeypatch.delenv("ARCEDGE_GALLERY_KEY_FILE", raising=False)
        assert Key.from_environment() is None
        KEY.write(tmp_path / "key")
        monkeypatch.setenv("ARCEDGE_GALLERY_KEY_FILE", str(tmp_path / "key"))
        assert Key.from_environment() == KEY
        monkeypatch.setenv("ARCEDGE_GALLERY_KEY", (tmp_path / "key").read_text())
        monkeypatch.delenv("ARCEDGE_GALLERY_KEY_FILE")
        assert Key.from_environment() == KEY


@given(data=st.binary(max_size=300), kind=st.sampled_from(["name", "vector"]), flip=st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_a_sealed_field_opens_unchanged_and_only_as_what_it_is(data: bytes, kind: str, flip: int) -> None:
    cipher = Sealed(KEY, b"g" * 16)
    stored = cipher.seal(data, kind)
    assert cipher.open(stored, kind) == data
    assert cipher.seal(data, kind) != stored
    damaged = bytearray(stored)
    damaged[flip % len(stored)] ^= 1 << flip % 8
    for other, content, what in (
        (cipher, bytes(damaged), kind),
        (cipher, stored, "crop"),
        (cipher, stored[:-1], kind),
        (Sealed(KEY, b"h" * 16), stored, kind),
        (Sealed(OTHER, b"g" * 16), stored, kind),
    ):
        with pytest.raises(GalleryError, match="cannot be decrypted"):
            other.open(content, what)
    assert cipher.token(data, kind) == cipher.token(data, kind) != Sealed(OTHER, b"g" * 16).token(data, kind)


class TestExport:
    def test_an_encrypted_gallery_travels_encrypted(self, sealed: Gallery, tmp_path: Path) -> None:
        vectors = fill(sealed)
        out = tmp_path / "out"
        out.mkdir()
        assert export_gallery(sealed, out / "g.npz", KEY) == 4
        assert in_the_clear(out, vectors) == set()
        with pytest.raises(GalleryError, match="is encrypted"):
            import_gallery(out / "g.npz", tmp_path / "h", OTHER)
        with pytest.raises(InputError, match="another key"):
            import_gallery(out / "g.npz", tmp_path / "h", OTHER, OTHER)
        assert not (tmp_path / "h").exists()
        assert import_gallery(out / "g.npz", tmp_path / "h", OTHER, KEY) == 4
        with Gallery.open(tmp_path / "h", OTHER) as other:
            assert whole(other) == whole(sealed)

    @given(size=st.integers(0, 50), cut=st.integers(0, 10_000))
    @settings(max_examples=60, deadline=None)
    def test_no_part_of_a_file_can_be_cut_off_or_moved(
        self, tmp_path_factory: pytest.TempPathFactory, size: int, cut: int
    ) -> None:
        path = tmp_path_factory.mktemp("x") / "f"
        data = bytes(range(size))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(envelope, "CHUNK", 10)
            with path.open("wb") as file:
                envelope.seal(memoryview(data), file, KEY)
        stored = path.read_bytes()
        assert envelope.is_sealed(stored)
        assert envelope.unseal(stored, path, KEY) == data
        chunk = 4 + 10 + 28
        shorter = stored[: 24 + cut % (len(stored) - 24)]
        swapped = stored[:24] + stored[24 + chunk : 24 + 2 * chunk] + stored[24 : 24 + chunk] + stored[24 + 2 * chunk :]
        for wrong in (shorter, swapped) if size > 20 else (shorter,):
            with pytest.raises(InputError):
                envelope.unseal(wrong, path, KEY)


def test_the_command_line_encrypts_reads_and_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key = str(tmp_path / "g"), str(tmp_path / "key")
    with Gallery.create(tmp_path / "g", BINDING) as gallery:
        vectors = fill(gallery)
    assert main(["gallery", "key", key]) == 0
    assert main(["gallery", "rekey", path, "--new-key-file", key]) == 0
    assert in_the_clear(tmp_path / "g", vectors) == set()
    assert main(["gallery", "list", path]) == 2
    assert capsys.readouterr().err.endswith("name its key with --key-file or ARCEDGE_GALLERY_KEY_FILE\n")
    assert main(["gallery", "list", path, "--key-file", key]) == 0
    assert "     3  " in (shown := capsys.readouterr().out)
    assert "Ada Lovelace  (and 1 not them)" in shown
    monkeypatch.setenv("ARCEDGE_GALLERY_KEY_FILE", key)
    assert main(["gallery", "show", path, "Ada Lovelace"]) == 0
    assert "not Ada Lovelace: photos/ada-at-home.png" in capsys.readouterr().out
    out = tmp_path / "out"
    out.mkdir()
    assert main(["gallery", "export", path, str(out / "x.npz")]) == 0
    assert in_the_clear(out, vectors) == set()
    assert main(["gallery", "export", path, str(out / "x.npz"), "--plain"]) == 0
    assert "vector" in in_the_clear(out, vectors)
    assert main(["gallery", "rekey", path, "--plain"]) == 0
    monkeypatch.delenv("ARCEDGE_GALLERY_KEY_FILE")
    assert main(["gallery", "list", path]) == 0


def test_without_the_package_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(MissingExtraError, match=r"arcedge\[crypto\]"):
        Gallery.create(tmp_path / "g", BINDING, KEY)
    assert not Gallery.exists(tmp_path / "g")
