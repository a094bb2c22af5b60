from __future__ import annotations

import hashlib
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import GalleryError
from edge.gallery import Binding, Gallery, NewEntry
from edge.gallery.files import replacing
from edge.gallery.sqlite import SqliteStore
from edge.gallery.store import State
from edge.gallery.vectors import MATRIX_NAME
from edge.live.gallery import WatchedGallery
from edge.pipeline.guards import LastSnapshot
from edge.types import Floats

SIZE = 16
BINDING = Binding("c" * 64, "a" * 64, "embedder-fp32", SIZE)


def unit(count: int, seed: int = 0) -> Floats:
    vectors = np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def add(gallery: Gallery, name: str, count: int, seed: int) -> Floats:
    vectors = unit(count, seed)
    assert gallery.add(name, vectors, [f"{name}{i}.png" for i in range(count)]) == count
    return vectors


def contents(gallery: Gallery) -> dict[str, set[bytes]]:
    """Who is found by search, and with which vectors."""
    snapshot = gallery.snapshot()
    return {name: {vector.tobytes() for vector in snapshot.of(name)} for name in snapshot.names}


def bytes_of(*vectors: Floats) -> set[bytes]:
    return {row.tobytes() for row in np.concatenate(vectors)}


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return Gallery.create(tmp_path / "g", BINDING)


def test_what_was_added_comes_back_in_a_new_process_and_from_the_matrix(gallery: Gallery) -> None:
    ada, bob = add(gallery, "ada", 3, 1), add(gallery, "bob", 2, 2)
    more = unit(1, 3)
    gallery.add("ada", more, ["later.png"])
    first = gallery.snapshot()
    gallery.close()
    with Gallery.open(gallery.path) as again:
        found = again.snapshot()
        for snapshot in (first, found):
            assert snapshot.names == ("ada", "bob")
            np.testing.assert_array_equal(snapshot.of("ada"), np.concatenate([ada, more]))
            np.testing.assert_array_equal(snapshot.of("bob"), bob)
            assert snapshot.of("eve").shape == (0, SIZE)
        assert isinstance(found.vectors.base, np.memmap)
        assert [(p.name, p.embeddings) for p in again.identities()] == [("ada", 4), ("bob", 2)]
        assert [entry.source for entry in again.entries("bob")] == ["bob0.png", "bob1.png"]


def test_a_new_directory_lets_its_owner_in_and_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o755)
    for name, mode in (("new", 0o700), ("shared", 0o755)):
        Gallery.create(tmp_path / name, BINDING).close()
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_adding_the_same_vectors_again_adds_nothing(gallery: Gallery) -> None:
    vectors = add(gallery, "ada", 3, 1)
    assert gallery.add("ada", vectors, ["x"] * 3) == 0
    assert len(gallery.entries("ada")) == 3


def test_vectors_of_another_model_are_refused(gallery: Gallery) -> None:
    other = Binding("c" * 64, "b" * 64, "embedder-int8", SIZE)
    with pytest.raises(GalleryError, match=r"holds vectors of embedder-fp32 .*not of embedder-int8"):
        Gallery.open_or_create(gallery.path, other)
    with pytest.raises(ValueError, match="16"):
        gallery.add("ada", np.ones((1, 8), np.float32), ["x"])
    with pytest.raises(ValueError, match="unit length"):
        gallery.add("ada", np.full((1, SIZE), 3.0, np.float32), ["x"])
    assert gallery.identities() == []


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201, "\x00"])
def test_unfit_names_are_refused(gallery: Gallery, name: str) -> None:
    with pytest.raises(GalleryError, match="is no name"):
        gallery.add(name, unit(1), ["x"])


def test_rename_and_merge_move_the_vectors(gallery: Gallery) -> None:
    ada, bob = add(gallery, "ada", 2, 1), add(gallery, "bob", 1, 2)
    gallery.add("bob", ada[:1], ["the same picture"])
    gallery.rename("ada", "ada lovelace")
    with pytest.raises(GalleryError, match="merge"):
        gallery.rename("bob", "ada lovelace")
    assert gallery.merge("bob", "ada lovelace") == 1
    snapshot = gallery.snapshot()
    assert snapshot.names == ("ada lovelace",)
    assert contents(gallery) == {"ada lovelace": bytes_of(ada, bob)}
    with pytest.raises(GalleryError, match="nobody here is called 'bob'"):
        gallery.merge("bob", "ada lovelace")


def test_the_forgotten_are_gone_from_every_file(gallery: Gallery) -> None:
    secret, kept = add(gallery, "Remember Me Not", 4, 1), add(gallery, "bob", 4, 2)
    gallery.add("Remember Me Not", unit(1, 9), ["s"], [b"PNG of a crop that must go"])
    gallery.reject("Remember Me Not", unit(1, 10), ["a twin that must go"])
    gallery.snapshot()
    # What a process left that was killed while it wrote the matrix.
    (gallery.path / f".{MATRIX_NAME}.0123abcd").write_bytes(secret.tobytes())

    def traces() -> set[str]:
        found = set()
        for file in gallery.path.iterdir():
            data = file.read_bytes()
            hits = {
                "name": b"Remember Me Not",
                "crop": b"crop that must go",
                "negative": unit(1, 10).tobytes(),
                "source": b"a twin that must go",
                "vector": secret[2].tobytes(),
                "digest": hashlib.sha256(secret[2].tobytes()).digest(),
            }
            found |= {what for what, value in hits.items() if value in data}
        return found

    assert traces() == {"name", "crop", "vector", "negative", "source", "digest"}
    with Gallery.open(gallery.path) as running:
        running.snapshot()
        assert gallery.forget("Remember Me Not") == 6
        assert traces() == set()
        assert running.snapshot().names == ("bob",)
    np.testing.assert_array_equal(gallery.snapshot().vectors, kept)
    assert traces() == set()
    assert not list(gallery.path.glob(".*"))


def test_a_forget_that_was_killed_is_finished_at_the_next_opening(gallery: Gallery) -> None:
    secret = add(gallery, "ada", 3, 1)
    gallery.snapshot()
    gallery._store.forget("ada")  # as far as a kill right after the deletion lets it come
    gallery.close()
    assert secret[0].tobytes() in (gallery.path / MATRIX_NAME).read_bytes()
    with Gallery.open(gallery.path):
        assert not any(secret[0].tobytes() in file.read_bytes() for file in gallery.path.iterdir())


def look_after_each_commit(camera: Gallery, deed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a running reader see what a method of the store has done before the files are cleaned."""
    committed = getattr(SqliteStore, deed)

    def commit_before_a_frame(*args: Any) -> Any:
        done = committed(*args)
        camera.snapshot()
        return done

    monkeypatch.setattr(SqliteStore, deed, commit_before_a_frame)


class TestErasingBesideACamera:
    """A running reader has the matrix mapped, whose bytes are zeroed under it."""

    @pytest.fixture
    def camera(self, gallery: Gallery) -> Iterator[Gallery]:
        add(gallery, "ada", 3, 1)
        add(gallery, "eve", 2, 2)
        with Gallery.open(gallery.path) as running:
            assert isinstance(running.snapshot().vectors.base, np.memmap)
            yield running

    def test_it_still_knows_everybody_after_a_compact(self, gallery: Gallery, camera: Gallery) -> None:
        gallery.compact()
        assert contents(camera) == {"ada": bytes_of(unit(3, 1)), "eve": bytes_of(unit(2, 2))}

    def test_it_still_knows_everybody_after_an_opening_that_finishes_a_forget(
        self, gallery: Gallery, camera: Gallery
    ) -> None:
        gallery._store.forget("eve")  # as far as a kill right after the deletion lets it come
        assert camera.snapshot().names == ("ada",)
        with Gallery.open(gallery.path):
            assert contents(camera) == {"ada": bytes_of(unit(3, 1))}

    @pytest.mark.parametrize("deed", ["forget", "remove", "renew_copies"])
    def test_it_may_make_the_matrix_again_between_the_deletion_and_the_zeroing(
        self, gallery: Gallery, camera: Gallery, monkeypatch: pytest.MonkeyPatch, deed: str
    ) -> None:
        look_after_each_commit(camera, deed, monkeypatch)
        left = {"ada": bytes_of(unit(3, 1)), "eve": bytes_of(unit(2, 2))}
        if deed == "forget":
            gallery.forget("eve")
            del left["eve"]
        elif deed == "remove":
            gallery.remove(gallery.entries("eve")[0].number)
            left["eve"] = bytes_of(unit(2, 2)[1:])
        else:
            gallery.compact()
        assert contents(camera) == left
        gone = unit(2, 2)[0].tobytes()
        files = [file.name for file in gallery.path.iterdir() if gone in file.read_bytes()]
        assert (files == []) == (gone not in left.get("eve", set()))

    def test_what_a_reader_of_before_the_deletion_writes_late_is_erased_too(
        self, gallery: Gallery, camera: Gallery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = gallery.path / MATRIX_NAME
        before = file.read_bytes()
        erase = SqliteStore.erase

        def erase_after_a_late_writer(store: SqliteStore) -> None:
            with replacing(file) as late:
                late.write(before)
            erase(store)

        monkeypatch.setattr(SqliteStore, "erase", erase_after_a_late_writer)
        gallery.forget("eve")
        assert not file.exists()
        assert contents(camera) == {"ada": bytes_of(unit(3, 1))}

    @pytest.mark.parametrize("deed", ["remove", "renew_copies"])
    def test_its_screen_stays_where_nothing_of_it_was_deleted(
        self, gallery: Gallery, monkeypatch: pytest.MonkeyPatch, deed: str
    ) -> None:
        monkeypatch.setattr("edge.gallery.copies.SCREEN_FROM", 4)
        add(gallery, "ada", 5, 1)
        gallery.reject("ada", unit(1, 9), ["a twin"])
        with Gallery.open(gallery.path) as camera:
            assert camera.snapshot().screen is not None
            look_after_each_commit(camera, deed, monkeypatch)
            if deed == "remove":
                gallery.remove(next(entry.number for entry in gallery.entries() if entry.negative))
            else:
                gallery.compact()
            screen = camera.snapshot().screen
            assert screen is not None
            assert screen.blocks.any()
            assert screen.scale.all()

    def test_the_file_it_had_mapped_holds_nothing_of_the_forgotten(self, gallery: Gallery, camera: Gallery) -> None:
        mapped = camera.snapshot().vectors
        assert mapped.any()
        gallery.forget("eve")
        assert not mapped.any()


def test_what_comes_after_the_matrix_was_written_is_found_without_writing_it_again(gallery: Gallery) -> None:
    ada = add(gallery, "ada", 3, 1)
    gallery.snapshot()
    written = (gallery.path / MATRIX_NAME).read_bytes()
    bob, more = add(gallery, "bob", 2, 2), unit(2, 3)
    gallery.add("ada", more, ["x", "y"])
    with Gallery.open(gallery.path) as again:
        for one in (gallery, again):
            assert contents(one) == {"ada": bytes_of(ada, more), "bob": bytes_of(bob)}
    assert (gallery.path / MATRIX_NAME).read_bytes() == written


def test_many_late_ones_are_written_into_the_matrix(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.gallery.copies.LATE_ROWS", 4)
    ada = add(gallery, "ada", 3, 1)
    gallery.snapshot()
    more = unit(5, 3)
    gallery.add("ada", more, ["x"] * 5)
    assert len(gallery.snapshot().vectors) == 8
    assert gallery.snapshot().late is None
    assert contents(gallery) == {"ada": bytes_of(ada, more)}


class TestNegatives:
    def test_they_are_kept_apart_shown_moved_with_a_person_and_removed(self, gallery: Gallery) -> None:
        ada, twin = add(gallery, "ada", 2, 1), unit(1, 5)
        with pytest.raises(GalleryError, match="nobody here is called 'eve'"):
            gallery.reject("eve", twin, ["twin.png"])
        assert gallery.reject("ada", twin, ["twin.png"]) == 1
        assert gallery.reject("ada", twin, ["twin.png"]) == 0
        assert [(e.source, e.negative) for e in gallery.entries("ada")] == [
            ("ada0.png", False),
            ("ada1.png", False),
            ("twin.png", True),
        ]
        assert [(p.embeddings, p.negatives) for p in gallery.identities()] == [(2, 1)]
        assert contents(gallery) == {"ada": bytes_of(ada)}
        bob = add(gallery, "bob", 1, 7)
        gallery.rename("ada", "countess")
        assert gallery.merge("countess", "bob") == 2
        snapshot = gallery.snapshot()
        assert contents(gallery) == {"bob": bytes_of(ada, bob)}
        assert snapshot.negatives is not None
        np.testing.assert_array_equal(snapshot.negatives.vectors, twin)
        assert snapshot.negatives.owners.tolist() == [0]
        gallery.remove(next(e.number for e in gallery.entries("bob") if e.negative))
        assert gallery.snapshot().negatives is None

    def test_the_last_word_counts(self, gallery: Gallery) -> None:
        ada = add(gallery, "ada", 2, 1)
        gallery.snapshot()
        assert gallery.reject("ada", ada[:1], ["a mistake at enrolment"]) == 1
        assert contents(gallery) == {"ada": bytes_of(ada[1:])}
        assert gallery.add("ada", ada[:1], ["a mistake at rejecting"]) == 1
        assert contents(gallery) == {"ada": bytes_of(ada)}
        assert gallery.snapshot().negatives is None

    def test_two_names_made_one_forget_that_they_were_said_to_be_two(self, gallery: Gallery) -> None:
        ada, bob = add(gallery, "ada", 2, 1), add(gallery, "bob", 2, 2)
        gallery.reject("ada", bob[:1], ["x"])
        assert gallery.merge("ada", "bob") == 2
        assert contents(gallery) == {"bob": bytes_of(ada, bob)}
        assert gallery.snapshot().negatives is None

    def test_a_person_left_with_negatives_alone_is_not_searched(self, gallery: Gallery) -> None:
        add(gallery, "ada", 1, 1)
        gallery.reject("ada", unit(1, 5), ["x"])
        gallery.remove(gallery.entries("ada")[0].number)
        snapshot = gallery.snapshot()
        assert (snapshot.names, snapshot.negatives) == ((), None)


def test_entries_of_many_people_are_added_all_or_none(gallery: Gallery) -> None:
    rows = unit(3)
    with pytest.raises(GalleryError, match="nobody here is called 'eve'"):
        gallery.add_entries([NewEntry("ada", rows[0], "x"), NewEntry("eve", rows[1], "y", negative=True)])
    assert gallery.identities() == []
    assert gallery.add_entries([NewEntry(f"p{i}", row, "x") for i, row in enumerate(rows)]) == 3
    assert contents(gallery) == {f"p{i}": {row.tobytes()} for i, row in enumerate(rows)}


def test_a_gallery_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    old = sqlite3.connect(tmp_path / "g" / "gallery.sqlite3")
    old.executescript(
        """
        PRAGMA journal_mode = WAL; PRAGMA application_id = 1095059249; PRAGMA user_version = 1;
        CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE identity (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, created REAL NOT NULL)
            STRICT;
        CREATE TABLE embedding (id INTEGER PRIMARY KEY AUTOINCREMENT,
            identity INTEGER NOT NULL REFERENCES identity (id) ON DELETE CASCADE, vector BLOB NOT NULL,
            source TEXT NOT NULL, crop BLOB, created REAL NOT NULL, UNIQUE (identity, vector)) STRICT;
        """
    )
    vectors = unit(3)
    meta = {"binding": BINDING.to_json(), "gallery": "ab" * 16, "generation": "7"}
    old.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    old.executemany("INSERT INTO identity VALUES (?, ?, ?)", [(3, "Zoë", 10.0), (5, "bob", 20.0)])
    rows = [(7, 3, vectors[0].tobytes(), "a.png", b"png", 1.0), (8, 5, vectors[1].tobytes(), "b.png", None, 2.0)]
    old.executemany("INSERT INTO embedding VALUES (?, ?, ?, ?, ?, ?)", rows)
    old.commit()
    old.close()
    with Gallery.open(tmp_path / "g") as gallery:
        assert contents(gallery) == {"Zoë": {vectors[0].tobytes()}, "bob": {vectors[1].tobytes()}}
        assert [(e.number, e.source, e.crop, e.created) for e in gallery.entries()] == [
            (7, "a.png", b"png", 1.0),
            (8, "b.png", None, 2.0),
        ]
        assert gallery.add("Zoë", vectors[:1], ["again"]) == 0
        assert gallery.add("Zoë", vectors[2:], ["new"]) == 1
        assert gallery.entries()[1].number == 9


def test_a_gallery_of_a_newer_arcedge_says_what_to_update(tmp_path: Path) -> None:
    Gallery.create(tmp_path / "g", BINDING).close()
    with closing(sqlite3.connect(tmp_path / "g" / "gallery.sqlite3")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(GalleryError, match=r"of a newer arcedge \(version 99, .*; update arcedge"):
        Gallery.open(tmp_path / "g")


def test_one_embedding_can_be_removed(gallery: Gallery) -> None:
    vectors = add(gallery, "ada", 3, 1)
    gallery.remove(gallery.entries("ada")[1].number)
    np.testing.assert_array_equal(gallery.snapshot().vectors, vectors[[0, 2]])
    with pytest.raises(GalleryError, match="no embedding has number 999"):
        gallery.remove(999)


def test_a_running_reader_sees_what_another_process_adds(gallery: Gallery) -> None:
    add(gallery, "ada", 1, 1)
    first = gallery.snapshot()
    assert gallery.snapshot() is first
    with Gallery.open(gallery.path) as other:
        add(other, "bob", 1, 2)
    assert gallery.snapshot().names == ("ada", "bob")
    assert first.names == ("ada",)


@pytest.mark.parametrize("damage", ["bit", "short", "empty", "missing", "stale", "foreign"])
def test_a_matrix_that_is_not_this_gallery_is_never_searched(gallery: Gallery, tmp_path: Path, damage: str) -> None:
    add(gallery, "ada", 2, 1)
    gallery.snapshot()
    file = gallery.path / MATRIX_NAME
    stale = file.read_bytes()
    add(gallery, "eve", 2, 2)
    gallery.rename("eve", "bob")
    expected = contents(gallery)
    data = bytearray(file.read_bytes())
    assert data != stale
    if damage == "bit":
        data[100] ^= 1
    elif damage == "short":
        del data[-8:]
    elif damage == "empty":
        data.clear()
    elif damage == "stale":
        data = bytearray(stale)
    elif damage == "foreign":
        with Gallery.create(tmp_path / "other", BINDING) as other:
            add(other, "eve", 2, 5)
            add(other, "mallory", 2, 6)
            other.rename("mallory", "mallet")
            other.snapshot()
            data = bytearray((other.path / MATRIX_NAME).read_bytes())
    gallery.close()
    file.unlink() if damage == "missing" else file.write_bytes(data)
    with Gallery.open(gallery.path) as again:
        assert contents(again) == expected
        assert again.snapshot().names == ("ada", "bob")
        assert isinstance(again.snapshot().vectors.base, np.memmap)


def test_not_a_gallery_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="no gallery here"):
        Gallery.open(tmp_path)
    (tmp_path / "gallery.sqlite3").write_bytes(b"not a database, but long enough to look like one" * 50)
    with pytest.raises(GalleryError, match="cannot be opened"):
        Gallery.open(tmp_path)
    other = tmp_path / "x"
    other.mkdir()
    sqlite3.connect(other / "gallery.sqlite3").execute("CREATE TABLE t (a)")
    with pytest.raises(GalleryError, match="not a gallery"):
        Gallery.open(other)


def test_a_locked_gallery_is_searched_as_it_was_and_not_written(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.gallery.schema.BUSY_SECONDS", 0.05)
    add(gallery, "ada", 2, 1)
    with Gallery.open(gallery.path) as reader:
        before = reader.snapshot()
        gallery.close()
        locker = sqlite3.connect(gallery.path / "gallery.sqlite3", isolation_level=None)
        locker.execute("BEGIN EXCLUSIVE")
        assert reader.snapshot().names == before.names
        with pytest.raises(GalleryError, match="cannot be written"):
            reader.add("bob", unit(1, 5), ["x"])
        locker.execute("ROLLBACK")
        locker.close()
        assert reader.add("bob", unit(1, 5), ["x"]) == 1
        assert reader.snapshot().names == ("ada", "bob")


class TestAGalleryThatIsAway:
    """As a camera reads it: it goes on with whom it knew, says so once, and the metric sees it."""

    @pytest.fixture(autouse=True)
    def hasty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge.gallery.gallery.PATIENCE_SECONDS", 0.1)
        monkeypatch.setattr("edge.gallery.schema.BUSY_SECONDS", 0.01)
        monkeypatch.setattr("edge.gallery.sqlite_file.FOLLOW_SECONDS", 0.05)

    @pytest.fixture
    def watched(self, gallery: Gallery) -> Iterator[WatchedGallery]:
        add(gallery, "ada", 2, 1)
        gallery.close()
        with Gallery.open(gallery.path) as reader:
            yield WatchedGallery(reader.snapshot)

    def look(self, camera: LastSnapshot) -> tuple[str, ...]:
        """Who is known once the camera's patience is over."""
        camera()
        for _ in range(3):
            time.sleep(0.06)
            names = camera().names
        return names

    def test_one_that_cannot_be_read(
        self, watched: WatchedGallery, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(_: SqliteStore) -> State:
            raise sqlite3.OperationalError("disk I/O error")

        camera = LastSnapshot(watched)
        camera()
        with monkeypatch.context() as broken:
            broken.setattr(SqliteStore, "state", failing)
            assert (camera().names, watched.readable, caplog.text) == (("ada",), True, "")
            assert (self.look(camera), watched.readable) == (("ada",), False)
            assert caplog.text.count("cannot be read (disk I/O error)") == 1
        assert (self.look(camera), watched.readable) == (("ada",), True)
        assert "the gallery can be read again" in caplog.text

    def test_one_that_is_removed_and_comes_back_from_a_copy(
        self, gallery: Gallery, watched: WatchedGallery, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(gallery.path, copy)
        camera = LastSnapshot(watched)
        camera()
        with Gallery.open(gallery.path) as other:
            add(other, "eve", 1, 2)
        assert camera().names == ("ada", "eve")
        shutil.rmtree(gallery.path)
        assert (self.look(camera), watched.readable) == (("ada", "eve"), False)
        assert caplog.text.count("the gallery is not there any more") == 1
        # As many changes as before, so that only the file itself tells that it is another one.
        with Gallery.open(copy) as other:
            add(other, "bob", 1, 3)
        copy.rename(gallery.path)
        assert (self.look(camera), watched.readable) == (("ada", "bob"), True)
        np.testing.assert_array_equal(camera().of("bob"), unit(1, 3))

    def test_another_one_in_its_place_is_never_searched(
        self, gallery: Gallery, watched: WatchedGallery, caplog: pytest.LogCaptureFixture
    ) -> None:
        camera = LastSnapshot(watched)
        camera()
        gallery.path.rename(gallery.path.with_name("before"))
        with Gallery.create(gallery.path, BINDING) as other:
            add(other, "mallory", 1, 5)
        assert (self.look(camera), watched.readable) == (("ada",), False)
        assert caplog.text.count("another gallery has taken its place") == 1

    def test_nothing_is_written_into_one_that_was_removed(self, gallery: Gallery) -> None:
        add(gallery, "ada", 1, 1)
        shutil.rmtree(gallery.path)
        with pytest.raises(GalleryError, match="is not there any more"):
            gallery.add("bob", unit(1, 2), ["x"])


def test_a_damaged_database_is_said_in_one_line(gallery: Gallery) -> None:
    add(gallery, "ada", 50, 1)
    gallery.compact()
    gallery.close()
    file = gallery.path / "gallery.sqlite3"
    data = bytearray(file.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    file.write_bytes(data)
    with pytest.raises(GalleryError), Gallery.open(gallery.path) as again:
        again.snapshot()


def test_writers_of_two_threads_lose_nothing(gallery: Gallery) -> None:
    def work(name: str, seed: int) -> None:
        with Gallery.open(gallery.path) as mine:
            for i in range(20):
                mine.add(name, unit(1, seed + i), [str(i)])
                mine.snapshot()

    threads = [threading.Thread(target=work, args=(f"p{i}", 1000 * i)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [person.embeddings for person in gallery.identities()] == [20, 20, 20]
    assert len(gallery.snapshot()) == 60


@given(st.lists(st.tuples(st.sampled_from(["add", "merge", "rename", "forget"]), st.integers(0, 3), st.integers(0, 3))))
@settings(max_examples=15, deadline=None)
def test_any_history_leaves_the_matrix_equal_to_a_plain_model(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, int, int]]
) -> None:
    gallery = Gallery.create(tmp_path_factory.mktemp("g") / "g", BINDING)
    model: dict[str, set[bytes]] = {}
    for step, (action, a, b) in enumerate(history):
        one, two = f"p{a}", f"p{b}"
        if action == "add":
            vectors = unit(a + 1, step)
            gallery.add(two, vectors, ["x"] * (a + 1))
            model.setdefault(two, set()).update(v.tobytes() for v in vectors)
        elif one not in model or (action != "forget" and (one == two or (two in model) != (action == "merge"))):
            continue
        elif action == "merge":
            gallery.merge(one, two)
            model[two] |= model.pop(one)
        elif action == "rename":
            gallery.rename(one, two)
            model[two] = model.pop(one)
        else:
            gallery.forget(one)
            del model[one]
    assert contents(gallery) == model
    gallery.close()
