"""Copies of a central gallery in real Milvus Lite: equal after any history, and whole after any interruption."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import serving_milvus

from edge.cli.main import main
from edge.errors import GalleryError
from edge.gallery import Binding, Gallery, Key, MilvusPlace, centre
from edge.gallery.centre import MilvusCentre, Version
from edge.gallery.milvus import MilvusStore
from edge.gallery.milvus_client import Client
from edge.gallery.pull import Pulled, pull
from edge.gallery.replica import DigestError, ReplicaStore
from edge.gallery.store import StoreUnavailableError
from edge.types import Floats

pytest.importorskip("pymilvus", reason="needs the extra milvus")
pytest.importorskip("milvus_lite", reason="needs the extra milvus")

SIZE = 16
BINDING = Binding("c" * 64, "a" * 64, "embedder-fp32", SIZE)
NAMES = ("ada", "bob", "eve")
SITES = ("", "berlin/", "paris/")


def unit(count: int, seed: int) -> Floats:
    vectors = np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def contents(gallery: Gallery) -> object:
    """Everything but crops, numbers included."""
    people = [(person.name, person.embeddings, person.negatives, person.created) for person in gallery.identities()]
    rows = [
        (entry.number, entry.identity, entry.vector.tobytes(), entry.source, entry.created, entry.negative)
        for entry in gallery.entries()
    ]
    return people, rows


def searched(gallery: Gallery) -> object:
    snapshot = gallery.snapshot()
    found = {name: {row.tobytes() for row in snapshot.of(name)} for name in snapshot.names}
    negatives = snapshot.negatives
    if negatives is None:
        return found, set()
    pairs = zip(negatives.vectors, negatives.owners, strict=True)
    return found, {(snapshot.names[owner], row.tobytes()) for row, owner in pairs}


def pulled(place: MilvusPlace, path: Path, key: Key | None = None) -> Pulled:
    with MilvusCentre(place) as there:
        return pull(there, path, key)


def assert_equal(place: MilvusPlace, path: Path, key: Key | None = None) -> None:
    with Gallery.open(place) as central, Gallery.open(path, key) as copy:
        assert contents(copy) == contents(central)
        assert searched(copy) == searched(central)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], MilvusPlace]:
    file = tmp_path_factory.mktemp("milvus") / "people.db"
    numbers = itertools.count()
    return lambda: MilvusPlace(str(file), f"g{next(numbers)}")


@pytest.fixture
def place(fresh: Callable[[], MilvusPlace]) -> MilvusPlace:
    """A centre with 3 people of 40 embeddings each, and a change for each person."""
    made = fresh()
    fill(made)
    return made


def fill(place: MilvusPlace) -> None:
    with Gallery.create(place, BINDING) as gallery:
        for number, name in enumerate(NAMES):
            gallery.add(name, unit(40, number), [f"{name}{i}" for i in range(40)])


DEEDS = st.tuples(
    st.sampled_from(["add", "add", "reject", "rename", "merge", "forget", "remove", "pull"]),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 4),
)


def do(gallery: Gallery, what: str, one: str, other: str, seed: int) -> None:
    with contextlib.suppress(GalleryError):
        if what in ("add", "reject"):
            getattr(gallery, what)(one, unit(2, seed), ["x", "Ü"])
        elif what in ("rename", "merge"):
            getattr(gallery, what)(one, other)
        elif what == "forget":
            gallery.forget(one)
        elif what == "remove" and (entries := gallery.entries(one)):
            gallery.remove(entries[seed % len(entries)].number)


@given(st.lists(st.tuples(DEEDS, st.sampled_from(SITES)), max_size=12))
@settings(max_examples=8, deadline=None)
def test_any_history_of_changes_and_pulls_leaves_what_the_centre_has(
    tmp_path_factory: pytest.TempPathFactory,
    fresh: Callable[[], MilvusPlace],
    history: list[tuple[tuple[str, int, int, int], str]],
) -> None:
    place, home = fresh(), tmp_path_factory.mktemp("g")
    views = [place, replace(place, site="berlin")]
    with Gallery.create(place, BINDING) as central:
        for (what, first, second, seed), site in history:
            if what == "pull":
                for number, view in enumerate(views):
                    pulled(view, home / str(number))
            else:
                do(central, what, site + NAMES[first], site + NAMES[second], seed)
    for number, view in enumerate(views):
        pulled(view, home / str(number))
        assert_equal(view, home / str(number))
        assert pulled(view, home / str(number)).records == 0
        pulled(view, home / f"all at once {number}")
        assert_equal(view, home / f"all at once {number}")


def test_only_what_changed_is_fetched(place: MilvusPlace, tmp_path: Path) -> None:
    assert pulled(place, tmp_path / "g") == Pulled(0, 3, 123)
    with Gallery.open(place) as central:
        central.add("new", unit(2, 9), ["n"] * 2)
        central.rename("ada", "countess")
        central.remove(central.entries("bob")[0].number)
    assert pulled(place, tmp_path / "g") == Pulled(3, 6, 2 + 1 + 1 + 1)
    assert pulled(place, tmp_path / "g") == Pulled(6, 6, 0)
    assert_equal(place, tmp_path / "g")


def test_two_people_who_change_names_arrive_with_their_own_embeddings(place: MilvusPlace, tmp_path: Path) -> None:
    pulled(place, tmp_path / "g")
    with Gallery.open(place) as central:
        for old, new in (("ada", "x"), ("bob", "ada"), ("x", "bob")):
            central.rename(old, new)
    pulled(place, tmp_path / "g")
    assert_equal(place, tmp_path / "g")


def test_a_running_camera_sees_the_new_version_and_additions_cost_it_no_new_matrix(
    place: MilvusPlace, tmp_path: Path
) -> None:
    pulled(place, tmp_path / "g")
    with Gallery.open(tmp_path / "g") as running:
        before = running.snapshot()
        assert pulled(place, tmp_path / "g").records == 0
        assert running.snapshot() is before
        with Gallery.open(place) as central:
            central.add("new", unit(1, 9), ["n"])
        pulled(place, tmp_path / "g")
        late = running.snapshot().late
        assert late is not None
        np.testing.assert_array_equal(late.vectors, unit(1, 9))
        with Gallery.open(place) as central:
            central.forget("ada")
        pulled(place, tmp_path / "g")
        assert set(running.snapshot().names) == {"bob", "eve", "new"}


def test_who_is_forgotten_at_the_centre_leaves_no_trace_in_a_copy(
    place: MilvusPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(centre, "PART_ROWS", 10)
    pulled(place, tmp_path / "g")
    with Gallery.open(place) as central:
        central.add("secret", unit(3, 50), ["hidden"] * 3)
    # Fetched but not yet applied when it is forgotten.
    with MilvusCentre(place) as there:
        store = ReplicaStore(tmp_path / "g", there)
        for part in there.parts(3, 4, 0):
            store.stage(part)
        store.close()
    assert traces(tmp_path / "g", unit(3, 50)[0], b"hidden") == {"vector", "source"}
    with Gallery.open(place) as central:
        central.forget("secret")
        central.forget("ada")
    assert traces(tmp_path / "g", unit(40, 0)[7], b"ada7") == {"vector", "source"}
    pulled(place, tmp_path / "g")
    assert_equal(place, tmp_path / "g")
    assert not traces(tmp_path / "g", unit(3, 50)[0], b"hidden")
    assert not traces(tmp_path / "g", unit(40, 0)[7], b"ada7")


@pytest.mark.parametrize("erased", ["somebody", "what was fetched in vain"])
def test_a_camera_of_a_copy_knows_those_who_are_left_after_a_pull_that_erases(
    place: MilvusPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, erased: str
) -> None:
    pulled(place, tmp_path / "g")
    apply = ReplicaStore.apply
    with Gallery.open(tmp_path / "g") as running:
        running.snapshot()

        def apply_before_a_frame(store: ReplicaStore, version: Version) -> None:
            apply(store, version)
            running.snapshot()

        monkeypatch.setattr(ReplicaStore, "apply", apply_before_a_frame)
        bob = running.snapshot().of("bob").copy()
        if erased == "somebody":
            with Gallery.open(place) as central:
                central.forget("ada")
        else:
            with MilvusCentre(place) as there:
                store = ReplicaStore(tmp_path / "g", there)
                store.begin(store.incoming().after)
                assert store.incoming().erase
                store.close()
            with Gallery.open(place) as central:
                central.add("new", unit(1, 9), ["n"])
        pulled(place, tmp_path / "g")
        np.testing.assert_array_equal(running.snapshot().of("bob"), bob)
        assert bob.any()
        assert ("ada" in running.snapshot().names) == (erased != "somebody")


def traces(path: Path, vector: Floats, source: bytes) -> set[str]:
    content = b"".join(file.read_bytes() for file in path.iterdir())
    marks = {"vector": vector.tobytes(), "source": source}
    return {what for what, mark in marks.items() if mark in content}


def test_what_changes_while_a_pull_fetches_is_in_it(
    place: MilvusPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(centre, "PART_ROWS", 10)
    deeds: list[Callable[[Gallery], object]] = [
        lambda gallery: gallery.forget("ada"),
        lambda gallery: gallery.add("late", unit(2, 9), ["l"] * 2),
        lambda gallery: gallery.merge("eve", "bob"),
    ]
    with Gallery.open(place) as central, MilvusCentre(place) as there:

        def change(records: int) -> None:
            if deeds:
                deeds.pop(0)(central)

        pull(there, tmp_path / "g", None, change)
    assert not deeds
    assert_equal(place, tmp_path / "g")


def test_a_centre_that_never_rests_leaves_the_copy_as_it_was(
    place: MilvusPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.gallery.pull.ROUNDS", 3)
    pulled(place, tmp_path / "g")
    with Gallery.open(tmp_path / "g") as copy:
        before = contents(copy)
        seeds = itertools.count(100)
        with Gallery.open(place) as central, MilvusCentre(place) as there:
            central.rename("ada", "countess")
            with pytest.raises(StoreUnavailableError, match="changes faster than it can be copied"):
                pull(there, tmp_path / "g", None, lambda *_: central.add("x", unit(1, next(seeds)), ["x"]))
        assert contents(copy) == before
    pulled(place, tmp_path / "g")
    assert_equal(place, tmp_path / "g")


@pytest.mark.parametrize("method", ["pages", "get"])
def test_a_centre_that_goes_at_any_call_leaves_the_old_copy_and_what_was_fetched_is_not_fetched_again(
    place: MilvusPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(centre, "PART_ROWS", 10)
    pulled(place, tmp_path / "g")
    with Gallery.open(place) as central, Gallery.open(tmp_path / "g") as copy:
        for number in range(6):
            central.add(f"p{number}", unit(12, 60 + number), ["p"] * 12)
        central.forget("ada")
        before, fetched = contents(copy), []
        honest = getattr(Client, method)
        for survived in itertools.count():
            calls = itertools.count()

            def count(calls: Iterator[int] = calls, survived: int = survived) -> None:
                if next(calls) >= survived:
                    raise StoreUnavailableError("gone")

            def going(*args: Any, count: Callable[[], None] = count) -> Any:
                count()
                return honest(*args)

            def going_pages(*args: Any, count: Callable[[], None] = count) -> Iterator[Any]:
                for page in honest(*args):
                    count()
                    yield page

            with monkeypatch.context() as patched:
                patched.setattr(Client, method, going_pages if method == "pages" else going)
                try:
                    fetched.append(pulled(place, tmp_path / "g").records)
                    break
                except StoreUnavailableError:
                    assert contents(copy) == before
    assert survived > 3
    assert fetched[0] < 119 - 3 * 13  # three people of twelve and more had been kept by the pulls before
    assert_equal(place, tmp_path / "g")


def test_a_damaged_copy_is_found_by_its_digest_and_made_anew(place: MilvusPlace, tmp_path: Path) -> None:
    pulled(place, tmp_path / "g")
    database = sqlite3.connect(tmp_path / "g" / "gallery.sqlite3")
    with database:
        database.execute("UPDATE embedding SET source = CAST('wrong' AS BLOB) WHERE id = 3")
    database.close()
    with Gallery.open(place) as central:
        central.remove(3)
    pulled(place, tmp_path / "g")
    assert_equal(place, tmp_path / "g")


def test_what_does_not_make_the_centres_digest_is_not_let_in(place: MilvusPlace, tmp_path: Path) -> None:
    pulled(place, tmp_path / "g")
    with Gallery.open(place) as central:
        central.add("new", unit(5, 9), ["n"] * 5)
    client = Client(place)
    client.delete(f"arcedge_{place.gallery}", "number == 122")
    client.close()
    with Gallery.open(tmp_path / "g") as copy:
        before = contents(copy)
        with pytest.raises(DigestError, match="the copy stays as it was"):
            pulled(place, tmp_path / "g")
        assert contents(copy) == before


def test_a_centre_set_back_to_an_older_state_is_copied_as_a_whole(place: MilvusPlace, tmp_path: Path) -> None:
    with Gallery.open(place) as central:
        central.add("lost", unit(1, 9), ["l"])
    pulled(place, tmp_path / "g")
    # As after restoring a backup: the same gallery, an older version, which then goes another way.
    with Gallery.open(place) as central:
        central.forget("lost")
        store = central._store
        assert isinstance(store, MilvusStore)
        store.tables.put_head(replace(store.tables.head(), version=3))
    client = Client(place)
    client.delete(f"arcedge_{place.gallery}_records", "version > 3")
    client.close()
    pulled(place, tmp_path / "g")
    assert_equal(place, tmp_path / "g")


def test_a_copy_is_changed_by_pulls_alone_and_of_one_gallery_alone(
    place: MilvusPlace, fresh: Callable[[], MilvusPlace], tmp_path: Path
) -> None:
    pulled(place, tmp_path / "g")
    with Gallery.open(tmp_path / "g") as copy:
        assert copy.origin == f"{place}, version 3"
        for deed in (
            lambda: copy.add("ada", unit(1, 9), ["x"]),
            lambda: copy.rename("ada", "x"),
            lambda: copy.forget("ada"),
        ):
            with pytest.raises(GalleryError, match=r"is a copy of milvus:.*; make the change there and pull it"):
                deed()
    other = fresh()
    fill(other)
    with pytest.raises(GalleryError, match=r"is a copy of milvus:.*, not of milvus:"):
        pulled(other, tmp_path / "g")
    with pytest.raises(GalleryError, match=r"is a copy of milvus:.*, not of milvus:"):
        pulled(replace(place, site="berlin"), tmp_path / "g")
    with Gallery.create(tmp_path / "own", BINDING) as own:
        own.add("ada", unit(1, 9), ["x"])
    with pytest.raises(GalleryError, match="is a gallery of its own, not a copy"):
        pulled(place, tmp_path / "own")
    with Gallery.create(tmp_path / "foreign", Binding("d" * 64, "b" * 64, "other-fp32", SIZE)):
        pass
    with pytest.raises(GalleryError, match="holds vectors of other-fp32"):
        pulled(place, tmp_path / "foreign")


def test_an_encrypted_copy_holds_nothing_in_the_clear_and_changes_its_key(place: MilvusPlace, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    key, other = Key.random(), Key.random()
    pulled(place, tmp_path / "g", key)
    with Gallery.open(place) as central:
        central.add("new", unit(1, 9), ["hidden"])
    with MilvusCentre(place) as there:
        store = ReplicaStore(tmp_path / "g", there, key)
        for part in there.parts(3, 4, 0):
            store.stage(part)
        store.close()
    assert not traces(tmp_path / "g", unit(1, 9)[0], b"hidden")
    with Gallery.open(tmp_path / "g", key) as copy:
        copy.rekey(other)
    pulled(place, tmp_path / "g", other)
    assert_equal(place, tmp_path / "g", other)


def test_the_verb(place: MilvusPlace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = str(tmp_path / "g")
    assert main(["gallery", "pull", str(place), copy]) == 0
    assert capsys.readouterr().out == f"{copy}: version 0 is now 3; 123 records fetched\n"
    assert main(["gallery", "pull", str(place), copy]) == 0
    assert main(["gallery", "list", copy]) == 0
    said = capsys.readouterr().out
    assert f"{copy}: up to date, version 3\n" in said
    assert said.endswith(f"3 people, 120 embeddings of embedder-fp32\na copy of {place}, version 3\n")
    assert main(["gallery", "pull", copy, str(tmp_path / "other")]) == 2
    assert main(["gallery", "pull", str(replace(place, gallery="nobody")), str(tmp_path / "other")]) == 2
    said = capsys.readouterr().err
    assert "a directory is no centre" in said
    assert "no gallery here" in said
    assert not (tmp_path / "other").exists()


PULL = """
import sys
from pathlib import Path
from edge.gallery import centre
centre.PART_ROWS = 20
from edge.gallery import parse_place
from edge.gallery.pull import pull
with centre.MilvusCentre(parse_place(sys.argv[1])) as there:
    print("ready", flush=True)
    pull(there, Path(sys.argv[2]))
    print("done", flush=True)
"""


@pytest.mark.slow
def test_a_pull_killed_at_any_moment_leaves_the_old_or_the_new_snapshot_and_so_does_a_centre_killed_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(0)
    with serving_milvus(tmp_path / "data") as (process, address):
        place = MilvusPlace(address)
        fill(place)
        pulled(place, tmp_path / "g")
        outcomes = set()
        with Gallery.open(place) as central, Gallery.open(tmp_path / "g") as copy:
            # Right after its beginning, right after its end, and somewhere; a busy machine may kill too late.
            moments = [0.0, None, *(chance.uniform(0, 0.3) for _ in range(3)), *[0.0] * 30]
            for round_, moment in enumerate(moments):
                if round_ >= 5 and outcomes == {True, False}:
                    break
                before = contents(copy)
                for number in range(4):
                    central.add(f"p{number}", unit(30, 1000 + 10 * round_ + number), ["p"] * 30)
                central.forget(f"p{round_ % 4}")
                after = contents(central)
                command = [sys.executable, "-c", PULL, str(place), str(tmp_path / "g")]
                child = subprocess.Popen(command, stdout=subprocess.PIPE)
                assert child.stdout is not None
                assert child.stdout.readline() == b"ready\n"
                if moment is None:
                    assert child.stdout.readline() == b"done\n"
                else:
                    time.sleep(moment)
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
                now = contents(copy)
                assert now in (before, after)
                outcomes.add(now == after)
                pulled(place, tmp_path / "g")
                assert contents(copy) == after
            assert outcomes == {True, False}
            # Now the centre goes, in the middle, for real.
            monkeypatch.setattr(centre, "PART_ROWS", 20)
            for number in range(5):
                central.add(f"q{number}", unit(30, 5000 + number), ["q"] * 30)
            before, after = contents(copy), contents(central)
            done = []

            def kill(records: int) -> None:
                done.append(records)
                if sum(done) > 78:
                    process.kill()
                    process.wait()

            with MilvusCentre(place) as there, pytest.raises(StoreUnavailableError, match="Milvus cannot be used now"):
                pull(there, tmp_path / "g", None, kill)
            assert contents(copy) == before
            assert searched(copy)
    with serving_milvus(tmp_path / "data", int(address.rpartition(":")[2])):
        again = pulled(place, tmp_path / "g")
        assert 0 < again.records == 155 - sum(done)
        with Gallery.open(tmp_path / "g") as copy:
            assert contents(copy) == after


def test_a_machine_that_keeps_pulling_bears_what_passes_but_no_first_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_use = GalleryError("deleted, but another process keeps the log")
    steps = iter([Pulled(0, 1, 3), in_use, in_use, Pulled(1, 2, 1)])

    def step(*_: object) -> Pulled:
        found = next(steps, None)
        if found is None:
            os.kill(os.getpid(), signal.SIGTERM)
            return Pulled(2, 2, 0)
        if isinstance(found, GalleryError):
            raise found
        return found

    monkeypatch.setattr("edge.cli.pulling._pull", step)
    keep = ["gallery", "pull", "milvus:nowhere.db", str(tmp_path / "g"), "--every", "0.01"]
    assert main(keep) == 0
    said = capsys.readouterr()
    ours = [line for line in said.err.splitlines() if line.startswith("edge ")]  # gRPC of earlier tests may speak too
    assert ours == [
        "edge gallery pull: deleted, but another process keeps the log; going on with the last copy",
        "edge gallery pull: the copy can be changed again",
    ]
    assert "version 1 is now 2" in said.out
    steps = iter([in_use])
    assert main(keep) == 2


@pytest.mark.slow
def test_a_machine_that_keeps_pulling_goes_on_without_the_centre_and_with_it_again(tmp_path: Path) -> None:
    with serving_milvus(tmp_path / "data") as (process, address):
        place = MilvusPlace(address)
        fill(place)
        command = [sys.executable, "-m", "edge", "gallery", "pull", str(place), str(tmp_path / "g"), "--every", "0.2"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert child.stdout is not None
            assert child.stderr is not None
            assert child.stdout.readline().endswith("version 0 is now 3; 123 records fetched\n")
            process.kill()
            process.wait()
            assert "going on with the last copy" in child.stderr.readline()
            with Gallery.open(tmp_path / "g") as copy:
                assert len(copy.snapshot()) == 120
            with serving_milvus(tmp_path / "data", int(address.rpartition(":")[2])):
                with Gallery.open(place) as central:
                    central.forget("ada")
                assert "the centre is there again" in child.stderr.readline()
                assert "version 3 is now 4" in child.stdout.readline()
                child.terminate()
                assert child.wait(60) == 0
        finally:
            child.kill()
            child.communicate()
    with Gallery.open(tmp_path / "g") as copy:
        assert {person.name for person in copy.identities()} == {"bob", "eve"}
