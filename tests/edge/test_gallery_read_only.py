"""A gallery that may not be written is read all the same, by a user who may not: root lays its rights down for that."""

from __future__ import annotations

import codecs
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.cli.main import main
from edge.errors import GalleryError
from edge.gallery import Binding, Gallery, Key, looking, read_only, sqlite_file
from edge.gallery.schema import DATABASE_NAME
from edge.gallery.sqlite import SqliteStore
from edge.gallery.store import StoreUnavailableError

NOBODY = 65534
BINDING = Binding("c" * 64, "a" * 64, "made", 8)
ROWS = np.eye(8, dtype=np.float32)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody can look into, as pytest's own is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        _allow(folder, writing=True)
        shutil.rmtree(folder)


@contextmanager
def powerless() -> Iterator[None]:
    """Without the right to write what belongs to others, which root has over everything."""
    if os.geteuid() != 0:
        yield
        return
    codecs.lookup("cp437")  # names in a .npz; nobody might not be let into the library it is in
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _allow(folder: Path, *, writing: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o755 if writing else 0o555) if path.is_dir() else (0o644 if writing else 0o444))


@contextmanager
def somebody_writes(folder: Path) -> Iterator[None]:
    """For a moment, as who may."""
    _allow(folder, writing=True)
    try:
        yield
    finally:
        _allow(folder, writing=False)


def made(folder: Path, key: Key | None = None) -> Path:
    """A gallery of two people, which only its owner may write."""
    with Gallery.create(folder, BINDING, key) as gallery:
        gallery.add("ada", ROWS[:2], ["1.png", "2.png"])
        gallery.add("bob", ROWS[2:3], ["3.png"])
    _allow(folder, writing=False)
    return folder


def looks(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())}


def names(gallery: Gallery) -> list[str]:
    return sorted(gallery.snapshot().names)


@pytest.mark.parametrize("private", [False, True], ids=["plain", "encrypted"])
def test_it_is_read_and_nothing_is_left_in_it(place: Path, private: bool) -> None:
    if private:
        pytest.importorskip("cryptography")
    key = Key.random() if private else None
    folder = made(place / "people", key)
    before = looks(folder)
    with powerless():
        with pytest.raises(PermissionError):
            (folder / "mine").touch()
        with Gallery.open(folder, key) as gallery:
            assert [(person.name, person.embeddings) for person in gallery.identities()] == [("ada", 2), ("bob", 1)]
            assert names(gallery) == ["ada", "bob"]
            assert gallery.search(ROWS[2:3], 1)[0][0].identity == "bob"
            assert [entry.source for entry in gallery.entries("ada")] == ["1.png", "2.png"]
    assert looks(folder) == before


def test_who_comes_while_it_is_read_is_seen(place: Path) -> None:
    folder = made(place / "people")
    with powerless():
        gallery = Gallery.open(folder)
        assert names(gallery) == ["ada", "bob"]
    with somebody_writes(folder), Gallery.open(folder) as writer:
        writer.add("cy", ROWS[3:4], ["4.png"])
    with powerless():
        assert names(gallery) == ["ada", "bob", "cy"], "a writer that has come and gone"
    _allow(folder, writing=True)
    with Gallery.open(folder) as writer:
        writer.add("di", ROWS[4:5], ["5.png"])
        assert (folder / f"{DATABASE_NAME}-wal").stat().st_size > 0
        _allow(folder, writing=False)
        with powerless():
            assert names(gallery) == ["ada", "bob", "cy", "di"], "a writer that is there, with its log"
        _allow(folder, writing=True)
        writer.add("eve", ROWS[5:6], ["6.png"])
        _allow(folder, writing=False)
        with powerless():
            assert names(gallery) == ["ada", "bob", "cy", "di", "eve"]
        _allow(folder, writing=True)
    _allow(folder, writing=False)
    with powerless():
        assert len(names(gallery)) == 5
        gallery.close()
        with Gallery.open(folder) as again:
            assert len(names(again)) == 5


def test_what_changes_in_the_middle_of_a_read_is_not_taken_for_true(place: Path) -> None:
    folder = made(place / "people")
    with powerless():
        store = SqliteStore(folder)
        state = store.state()

    def read_while_it_changes() -> None:
        with store.reading():
            assert store.count() == 3
            with somebody_writes(folder), Gallery.open(folder) as writer:
                writer.add("cy", ROWS[3:4], ["4.png"])

    with pytest.raises(StoreUnavailableError, match="was changed while it was read"):
        read_while_it_changes()
    with powerless(), store.reading():
        assert store.state().generation == state.generation + 1
        assert store.count() == 4
    store.close()


class Coming:
    """Somebody who writes, and comes or goes just when a reader has looked for the `when`-th time who is there."""

    def __init__(self, folder: Path, when: int, deed: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.deed, self.left, self.writer = folder, deed, when, None
        if deed == "goes":
            self._as_who_may(self._open)
        for module in (read_only, sqlite_file):
            monkeypatch.setattr(module, "stamp_of", self._look)

    def _look(self, path: Path) -> read_only.Stamp | None:
        seen = STAMP_OF(path)
        self.left -= 1
        if self.left == 0:
            if self.deed != "goes":
                self._as_who_may(self._open)
            if self.deed != "comes and stays":
                self._as_who_may(self.end)
        return seen

    def _open(self) -> None:
        self.writer = Gallery.open(self.folder)
        self.writer.add("cy", ROWS[3:4], ["4.png"])

    def end(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _as_who_may(self, do: Callable[[], None]) -> None:
        before = os.geteuid()
        os.seteuid(os.getuid())
        try:
            with somebody_writes(self.folder):
                do()
        finally:
            os.seteuid(before)


STAMP_OF = read_only.stamp_of


@pytest.mark.parametrize("deed", ["comes and goes", "comes and stays", "goes"])
@pytest.mark.parametrize("when", range(1, 10))
def test_who_comes_or_goes_while_it_is_opened_keeps_nobody_out(
    place: Path, when: int, deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(place / "people")
    writer = Coming(folder, when, deed, monkeypatch)
    with powerless(), Gallery.open(folder) as gallery:
        for _ in range(5):
            listed = names(gallery)
            assert [person.name for person in gallery.identities()][:2] == ["ada", "bob"]
        assert listed == ["ada", "bob", "cy"] or writer.left > 0
    writer.end()


def test_what_never_stands_still_is_said_in_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(place / "people")
    numbers = itertools.count()
    monkeypatch.setattr(looking, "BETWEEN_SECONDS", 0)
    monkeypatch.setattr(sqlite_file, "stamp_of", lambda path: read_only.Stamp(0, 0, next(numbers)))
    with powerless(), pytest.raises(StoreUnavailableError, match="was changed while it was read; try again") as caught:
        Gallery.open(folder)
    assert "\n" not in str(caught.value)


def test_an_index_that_was_left_without_its_log_is_nobody(place: Path) -> None:
    folder = made(place / "people")
    _allow(folder, writing=True)
    with Gallery.open(folder):
        index = (folder / f"{DATABASE_NAME}-shm").read_bytes()
    (folder / f"{DATABASE_NAME}-shm").write_bytes(index)
    _allow(folder, writing=False)
    before = looks(folder)
    with powerless(), Gallery.open(folder) as gallery:
        assert names(gallery) == ["ada", "bob"]
    assert looks(folder) == before


def test_another_gallery_in_its_place_is_not_taken_for_it(place: Path) -> None:
    folder = made(place / "people")
    with powerless():
        gallery = Gallery.open(folder)
    _allow(folder, writing=True)
    shutil.rmtree(folder)
    made(folder)
    with powerless(), gallery, pytest.raises(GalleryError, match="another gallery has taken its place"):
        gallery.identities()


def test_a_log_that_was_left_is_read_in_or_missed_in_words(place: Path) -> None:
    folder = made(place / "people")
    _allow(folder, writing=True)
    with Gallery.open(folder) as writer:
        writer.add("cy", ROWS[3:4], ["4.png"])
        for copy, parts in (("killed", ("", "-wal", "-shm")), ("copied", ("", "-wal"))):
            (place / copy).mkdir()
            for part in parts:
                shutil.copy(folder / f"{DATABASE_NAME}{part}", place / copy)
            _allow(place / copy, writing=False)
    with powerless():
        with Gallery.open(place / "killed") as gallery:
            assert names(gallery) == ["ada", "bob", "cy"]
        with pytest.raises(GalleryError, match="its last changes are in") as caught:
            Gallery.open(place / "copied")
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_looked_into_is_one_line(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a folder of somebody else takes root to make")
    folder = made(place / "people")
    folder.chmod(0o700)
    for look in (Gallery.open, Gallery.exists):  # edge enroll asks first whether there is one
        with powerless(), pytest.raises(GalleryError, match=r"people: cannot be looked at \(Permission denied\)"):
            look(folder)


@pytest.fixture
def world(place: Path, toy: Any) -> Path:
    """A bundle, pictures, and a gallery of them that may not be written."""
    shutil.copytree(toy.path, place / "bundle")
    for person in (1, 2):
        toy.write_scene(place / "photos" / f"p{person}" / "0.png", 200, 200, [(person, 40, 48)])
    binding = Binding.of(Bundle.open(place / "bundle").select("embedder"))
    with Gallery.create(place / "people", binding):
        pass
    assert main(_words("enroll", place, "photos")) == 0
    assert main(["gallery", "export", str(place / "people"), str(place / "people.npz")]) == 0
    _allow(place, writing=False)
    return place


def _words(verb: str, place: Path, *more: str) -> list[str]:
    paths = [str(place / word) if (place / word).exists() else word for word in more]
    return [verb, "--bundle", str(place / "bundle"), "--gallery", str(place / "people"), *paths]


READING: list[Callable[[Path], list[str]]] = [
    lambda place: _words("run", place, "--source", "photos", "--events", "-"),
    lambda place: ["gallery", "list", str(place / "people")],
    lambda place: ["gallery", "show", str(place / "people"), "p1"],
    lambda place: [
        *("gallery", "find", str(place / "people"), str(place / "photos" / "p1" / "0.png")),
        *("--bundle", str(place / "bundle")),
    ],
]


@pytest.mark.parametrize("words", READING, ids=["run", "list", "show", "find"])
def test_verbs_that_read_it_do(
    words: Callable[[Path], list[str]], world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # With all rights first, which imports what nobody might not be let into.
    assert main(words(world)) == 0
    before = looks(world / "people")
    capsys.readouterr()
    with powerless():
        assert main(words(world)) == 0
    assert "p1" in capsys.readouterr().out
    assert looks(world / "people") == before


CHANGING = [
    ["rename", "{g}", "p1", "ada"],
    ["merge", "{g}", "p1", "p2"],
    ["reject", "{g}", "p1", "{p}/photos/p2/0.png", "--bundle", "{p}/bundle"],
    ["forget", "{g}", "p1"],
    ["forget", "{g}", "--number", "1"],
    ["compact", "{g}"],
    ["rekey", "{g}", "--plain"],
    ["import", "{g}", "{p}/people.npz"],
]


@pytest.mark.parametrize("words", CHANGING, ids=lambda words: words[0])
def test_verbs_that_change_it_say_that_they_cannot(
    words: list[str], world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _refused(["gallery", *(word.format(g=world / "people", p=world) for word in words)], world, capsys, powerless())


@pytest.mark.parametrize("verb", ["enroll", "index"])
def test_enrolment_says_so_before_it_opens_a_model(
    verb: str, world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.analyze.open_session", lambda *_: pytest.fail("a model was opened for nothing"))
    _refused(_words(verb, world, "photos"), world, capsys, powerless())


def _refused(
    words: list[str], world: Path, capsys: pytest.CaptureFixture[str], without_rights: AbstractContextManager[None]
) -> None:
    before = looks(world / "people")
    capsys.readouterr()
    with without_rights:
        assert main(words) == 2
    said = capsys.readouterr().err
    assert f"{world / 'people'}: cannot be changed: its file system is read-only" in said
    assert len(said.strip().splitlines()) == 1
    assert looks(world / "people") == before
