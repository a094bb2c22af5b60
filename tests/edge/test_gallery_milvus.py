"""A gallery in real Milvus Lite: as a file, and as a server in a process of its own that several others write to."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clock import Clock, SharedClock
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import serving_milvus, until

from edge.analyze import FaceAnalyzer
from edge.cli.main import main
from edge.errors import EdgeError, GalleryError
from edge.gallery import Binding, Gallery, Key, MilvusPlace, NewEntry, parse_place
from edge.gallery import lease as leases
from edge.gallery.lease import Lease
from edge.gallery.milvus_client import Client
from edge.gallery.store import ANOTHERS_PICTURE, Outcome, Picture, StoreUnavailableError
from edge.types import Floats

pytest.importorskip("pymilvus", reason="needs the extra milvus")
pytest.importorskip("milvus_lite", reason="needs the extra milvus")

SIZE = 16
BINDING = Binding("c" * 64, "a" * 64, "embedder-fp32", SIZE)
NAMES = ("ada", 'Bob "the" Böb\'s \\', "eve/1")

Contents = dict[str, dict[bytes, tuple[bool, str, bytes | None]]]
"""By name and vector: whether it is a negative, where from, the crop."""


def unit(count: int, seed: int) -> Floats:
    vectors = np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def contents(gallery: Gallery) -> Contents:
    found: Contents = {person.name: {} for person in gallery.identities()}
    for entry in gallery.entries():
        found[entry.identity][entry.vector.tobytes()] = (entry.negative, entry.source, entry.crop)
    return found


def searched(gallery: Gallery) -> dict[str, set[bytes]]:
    snapshot = gallery.snapshot()
    return {name: {row.tobytes() for row in snapshot.of(name)} for name in snapshot.names}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("milvus") / "people.db"


@pytest.fixture(scope="module")
def fresh(file: Path) -> Callable[[], MilvusPlace]:
    """Gives a gallery of its own in one file at each call: making a file takes longer."""
    numbers = itertools.count()
    return lambda: MilvusPlace(str(file), f"g{next(numbers)}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("people", Path("people")),
        ("milvus:people.db", MilvusPlace("people.db")),
        ("milvus:/srv/a.db/people.db/staff/berlin", MilvusPlace("/srv/a.db/people.db", "staff", "berlin")),
        ("milvus:http://host:19530", MilvusPlace("http://host:19530")),
        ("milvus:https://host/staff", MilvusPlace("https://host", "staff")),
        ("milvus:https://host:1/staff/berlin-2", MilvusPlace("https://host:1", "staff", "berlin-2")),
    ],
)
def test_an_address_says_where_a_gallery_is(text: str, place: object) -> None:
    assert parse_place(text) == place
    assert parse_place(str(place)) == place


@pytest.mark.parametrize("text", ["milvus:", "milvus:people", "milvus:ftp://host", "milvus:http://host/no-dash/a/b"])
def test_a_wrong_address_is_refused(text: str) -> None:
    with pytest.raises(GalleryError, match="not a gallery in Milvus"):
        parse_place(text)


DEEDS = st.tuples(
    st.sampled_from(["add", "add", "add", "reject", "rename", "merge", "forget", "remove"]),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 4),
)


def do(gallery: Gallery, deed: tuple[str, int, int, int]) -> object:
    what, first, second, seed = deed
    one, other = NAMES[first], NAMES[second]
    try:
        if what in ("add", "reject"):
            # Few different vectors, so that the same come again, of others and with another sign.
            crops = [b"crop", None] if what == "add" else None
            return getattr(gallery, what)(one, unit(2, seed), ["x", "Ü"], crops)
        if what in ("rename", "merge"):
            return getattr(gallery, what)(one, other)
        if what == "forget":
            return gallery.forget(one)
        entries = sorted(gallery.entries(one), key=lambda entry: entry.vector.tobytes())
        return gallery.remove(entries[seed % len(entries)].number)
    except GalleryError as error:
        return str(error).partition(": ")[2] or str(error)


@given(st.lists(DEEDS, max_size=8))
@settings(max_examples=8, deadline=None)
def test_any_history_leaves_what_sqlite_has(
    tmp_path_factory: pytest.TempPathFactory, fresh: Callable[[], MilvusPlace], history: list[tuple[str, int, int, int]]
) -> None:
    with (
        Gallery.create(tmp_path_factory.mktemp("g") / "g", BINDING) as plain,
        Gallery.create(replace(fresh(), site="berlin"), BINDING) as central,
    ):
        for deed in history:
            expected, outcome = do(plain, deed), do(central, deed)
            assert outcome == expected
            assert contents(central) == contents(plain)
            assert searched(central) == searched(plain)
        assert check(central)


def check(gallery: Gallery) -> bool:
    """Whether the digest that the head states is that of what is there."""
    from edge.gallery.digest import as_text, combined, embedding_digest, identity_digest
    from edge.gallery.milvus import MilvusStore

    store = gallery._store
    assert isinstance(store, MilvusStore)
    total = sum(identity_digest(p.number, p.site, p.name, p.created) for p in store._people())
    fields = ("number", "identity", "vector", "source", "created", "negative")
    for row in store._rows(fields):
        vector = np.asarray(row["vector"], "<f4").tobytes()
        values = (row["number"], row["identity"], vector, row["source"], row["created"], row["negative"])
        total += embedding_digest(*values)
    return store.tables.head().digest == as_text(combined(total))


def test_a_new_file_lets_its_owner_in(file: Path, fresh: Callable[[], MilvusPlace]) -> None:
    Gallery.create(fresh(), BINDING).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o700


def test_a_removed_embedding_is_gone(fresh: Callable[[], MilvusPlace]) -> None:
    with Gallery.create(fresh(), BINDING) as gallery:
        gallery.add("ada", unit(3, 1), ["a", "b", "c"])
        number = next(entry.number for entry in gallery.entries() if entry.source == "b")
        gallery.remove(number)
        assert [entry.source for entry in gallery.entries("ada")] == ["a", "c"]
        assert len(gallery.snapshot()) == 2
        assert check(gallery)
        with pytest.raises(GalleryError, match=f"no embedding has number {number}"):
            gallery.remove(number)


def test_a_foreign_contract_is_refused_and_the_collection_carries_its_own(
    fresh: Callable[[], MilvusPlace], tmp_path: Path
) -> None:
    place = fresh()
    with Gallery.create(place, BINDING) as gallery:
        (row,) = Client(place).get(f"arcedge_{place.gallery}_records", ["head"], ["value"])
        assert json.loads(row["value"])["binding"]["contract_digest"] == BINDING.contract_digest
        foreign = Binding("d" * 64, "a" * 64, "embedder-fp32", SIZE)
        with pytest.raises(GalleryError, match="holds vectors of embedder-fp32"):
            Gallery.open_or_create(place, foreign)
        assert gallery.identities() == []
    with pytest.raises(GalleryError, match="a gallery is there already"):
        Gallery.create(place, BINDING)
    with pytest.raises(GalleryError, match="no gallery here"):
        Gallery.open(MilvusPlace(place.uri, "nobody"))
    with pytest.raises(GalleryError, match="only galleries in a directory can be encrypted"):
        Gallery.create(MilvusPlace(place.uri, "nobody"), BINDING, Key.random())
    (tmp_path / "old.db").write_bytes(b"something else")
    with pytest.raises(GalleryError, match="not a file of this Milvus Lite"):
        Gallery.open(MilvusPlace(str(tmp_path / "old.db")))


def test_a_site_sees_and_changes_only_its_own(fresh: Callable[[], MilvusPlace]) -> None:
    place = fresh()
    berlin, paris = (MilvusPlace(place.uri, place.gallery, site) for site in ("berlin", "paris"))
    with Gallery.create(place, BINDING) as every, Gallery.open(berlin) as one, Gallery.open(paris) as two:
        one.add("ada", unit(2, 1), ["b"] * 2)
        two.add("ada", unit(2, 2), ["p"] * 2)
        every.add("eve", unit(1, 3), ["e"])
        every.add("paris/bob", unit(1, 4), ["p"])
        assert [person.name for person in every.identities()] == ["berlin/ada", "eve", "paris/ada", "paris/bob"]
        assert searched(one) == {"ada": {row.tobytes() for row in unit(2, 1)}}
        assert set(searched(two)) == {"ada", "bob"}
        # The nearest of all is not at this site.
        assert [hit.identity for hit in every.search(unit(2, 2)[:1], 1)[0]] == ["paris/ada"]
        assert {hit.source for hit in one.search(unit(2, 2)[:1], 5)[0]} == {"b"}
        number = two.entries("bob")[0].number
        with pytest.raises(GalleryError, match="no embedding has number"):
            one.remove(number)
        with pytest.raises(GalleryError, match="nobody moves between sites"):
            every.merge("berlin/ada", "paris/ada")
        with pytest.raises(GalleryError, match="nobody moves between sites"):
            every.rename("berlin/ada", "ada")
        one.forget("ada")
        assert [person.name for person in every.identities()] == ["eve", "paris/ada", "paris/bob"]
    with pytest.raises(GalleryError, match="is no site"):
        Gallery.open(MilvusPlace(place.uri, place.gallery, 'a" or "'))


def test_pictures_that_were_indexed_count_once_as_in_sqlite(fresh: Callable[[], MilvusPlace], tmp_path: Path) -> None:
    rows = unit(4, 1)
    first = [
        Picture(b"f1", b"c1", NewEntry("ada", rows[0], "1")),
        Picture(b"f2", b"c1", NewEntry("ada", rows[0], "2")),
        Picture(b"f3", b"c3", NewEntry("ada", rows[0], "3")),
        Picture(b"f4", None, None, "cannot be read"),
        Picture(b"f5", b"c5", None, "no face found"),
        Picture(b"f6", b"c1", NewEntry("bob", rows[1], "6")),
    ]
    second = [
        Picture(b"f7", b"c3", NewEntry("bob", rows[1], "7")),
        Picture(b"f8", b"c8", NewEntry("bob", rows[2], "8")),
    ]
    files = [b"f%d" % number for number in range(1, 10)]
    with Gallery.create(tmp_path / "g", BINDING) as plain, Gallery.create(fresh(), BINDING) as central:
        for gallery in (plain, central):
            assert gallery.add_pictures(first) == [
                Outcome.ADDED,
                Outcome.DUPLICATE,
                Outcome.KNOWN,
                Outcome.NOTHING,
                Outcome.NOTHING,
                Outcome.ANOTHERS,
            ]
            assert gallery.add_pictures(second) == [Outcome.ANOTHERS, Outcome.ADDED]
            assert gallery.seen(files) == [True] * 8 + [False]
            told = {b"f4": "cannot be read", b"f5": "no face found"}
            others = dict.fromkeys((b"f6", b"f7"), ANOTHERS_PICTURE)
            assert gallery.problems(files) == told | others
            gallery.merge("ada", "bob")
            assert gallery.problems(files) == told | others
            gallery.forget("bob")
            assert gallery.problems(files) == told
        assert central.seen(files) == plain.seen(files)
        assert contents(central) == contents(plain)
        assert check(central)


class KilledError(BaseException):
    pass


HISTORY: list[tuple[str, Callable[[Gallery], object]]] = [
    ("add", lambda gallery: gallery.add("dora", unit(2, 7), ["x"] * 2)),
    ("flip", lambda gallery: gallery.reject("ada", unit(3, 1)[:1], ["no"])),
    ("rename", lambda gallery: gallery.rename("ada", "countess")),
    ("merge", lambda gallery: gallery.merge("ada", "bob")),
    ("forget", lambda gallery: gallery.forget("ada")),
    ("remove", lambda gallery: gallery.remove(gallery.entries("ada")[0].number)),
]


@pytest.mark.parametrize(("name", "deed"), HISTORY, ids=[name for name, _ in HISTORY])
def test_a_writer_killed_before_any_of_its_writes_leaves_its_change_done_or_not_at_all(
    fresh: Callable[[], MilvusPlace], name: str, deed: Callable[[Gallery], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = fresh()
    outcomes = []
    for survived in itertools.count():
        site = MilvusPlace(place.uri, f"{place.gallery}_{survived}")
        with Gallery.create(site, BINDING) as gallery:
            gallery.add("ada", unit(3, 1), ["1", "2", "3"])
            gallery.add("bob", np.concatenate([unit(3, 1)[:1], unit(1, 5)]), ["4", "5"])
            before = contents(gallery)
            writes = itertools.count()
            with monkeypatch.context() as patched:
                for method in ("upsert", "delete"):
                    patched.setattr(Client, method, _dying(getattr(Client, method), writes, survived))
                with contextlib.suppress(KilledError):
                    deed(gallery)
            ended = next(writes) <= survived
            with Gallery.open(site) as reader:
                now = contents(reader)
                assert set(searched(reader)) == {person for person, rows in now.items() if not _all_negative(rows)}
            with Gallery.open(site) as writer:
                writer.add("last", unit(1, 9), ["l"])
                assert check(writer)
                expected = contents(writer)
                assert expected.pop("last")
                assert expected == now
            outcomes.append(now)
            if ended:
                break
    done = outcomes[-1]
    assert before != done
    changed = outcomes.index(done)
    assert changed >= 1, "some kill must come before it counts"
    assert all(outcome == before for outcome in outcomes[:changed])
    assert all(outcome == done for outcome in outcomes[changed:])


def test_a_writer_killed_while_it_enrols_what_is_known_takes_no_older_mark_with_it(
    fresh: Callable[[], MilvusPlace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its mark a picture is known again where another engine gives another vector of it."""
    place = fresh()
    names, files = ["1", "2", "3"], [bytes([number]) * 32 for number in range(3)]
    rows = unit(3, 1)
    others = rows + np.float32(0.002)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    for survived in itertools.count():
        site = MilvusPlace(place.uri, f"{place.gallery}_{survived}")
        with Gallery.create(site, BINDING) as gallery:
            gallery.add("ada", rows[:2], names[:2], contents=files[:2])
            gallery.add_pictures([Picture(b"f", b"c", NewEntry("ada", unit(1, 5)[0], "f"), "blurred")])
            writes, died = itertools.count(), False
            with monkeypatch.context() as patched:
                for method in ("upsert", "delete"):
                    patched.setattr(Client, method, _dying(getattr(Client, method), writes, survived))
                try:
                    gallery.add("ada", rows[:2], names[:2], contents=files[:2])
                    gallery.add("ada", rows, names, contents=files)
                    gallery.add_pictures([Picture(b"f", b"c", NewEntry("ada", unit(1, 5)[0], "f"), "blurred")])
                except KilledError:
                    died = True
            with Gallery.open(site) as writer:
                writer.add("last", unit(1, 9), ["l"])
                assert writer.add("ada", others[:2], names[:2], contents=files[:2]) == 0
                assert writer.seen([b"f"]) == [True]
                assert writer.problems([b"f"]) == {b"f": "blurred"}
                assert check(writer)
        if not died:
            break
    assert survived > 2, "some kill must come before it counts"


def _all_negative(rows: dict[bytes, tuple[bool, str, bytes | None]]) -> bool:
    return all(negative for negative, _, _ in rows.values())


def _dying(call: Callable[..., object], writes: Iterator[int], survived: int) -> Callable[..., object]:
    def dies(*args: Any, **options: Any) -> object:
        if next(writes) >= survived:
            raise KilledError
        return call(*args, **options)

    return dies


def test_every_verb_works_on_a_gallery_in_milvus(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for person, name in ((1, "ada"), (2, "bob"), (3, "eve")):
        for i in range(2):
            toy.write_scene(tmp_path / "in" / name / f"{name}{i}.png", 200, 200, [(person, 40 + 9 * i, 56)])
    toy.write_scene(tmp_path / "stranger.png", 200, 200, [(4, 64, 56)])
    place, bundle = f"milvus:{tmp_path / 'people.db'}", ["--bundle", str(toy.path)]
    everybody = str(tmp_path / "in")
    assert main(["enroll", *bundle, "--gallery", place, "--keep-crops", everybody]) == 0
    assert main(["enroll", *bundle, "--gallery", f"{place}/gallery/berlin", str(tmp_path / "in")]) == 0
    assert main(["gallery", "forget", f"{place}/gallery/berlin", "bob"]) == 0
    assert main(["gallery", "rename", place, "ada", "countess"]) == 0
    assert main(["gallery", "merge", place, "eve", "countess"]) == 0
    assert main(["gallery", "reject", place, "countess", str(tmp_path / "stranger.png"), *bundle]) == 0
    assert main(["gallery", "show", place, "countess"]) == 0
    assert main(["gallery", "list", f"{place}/gallery"]) == 0
    said = capsys.readouterr().out
    assert said.endswith("4 people, 10 embeddings of embedder-fp32\n")
    assert "not countess: " in said
    find = ["gallery", "find", place, str(tmp_path / "in" / "bob"), *bundle, "--top", "2"]
    assert main([*find, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [[hit["name"] for hit in line["found"]] for line in lines] == [["bob", "bob"]] * 2
    assert all(line["found"][0]["source"] == line["picture"] for line in lines)
    assert main(["gallery", "find", f"{place}/gallery/berlin", str(tmp_path / "in" / "bob"), *bundle]) == 0
    assert "bob  (" not in capsys.readouterr().out
    assert main(["gallery", "export", place, str(tmp_path / "people.npz")]) == 0
    assert main(["gallery", "import", str(tmp_path / "back"), str(tmp_path / "people.npz")]) == 0
    assert main(["gallery", "import", f"{place}/again", str(tmp_path / "people.npz")]) == 0
    with Gallery.open(tmp_path / "back") as back, Gallery.open(parse_place(f"{place}/again")) as again:
        assert contents(again) == contents(back)
        assert all(entry.crop for entry in again.entries("bob"))
    assert main(["gallery", "migrate", place, str(tmp_path / "moved"), *bundle]) == 0
    index = ["index", *bundle, "--workers", "1", "--gallery", f"{place}/indexed", everybody, "--json"]
    assert main(index) == 0
    assert main(index) == 0
    assert '"seen_before": 6, "added": 0' in capsys.readouterr().out
    assert main(["gallery", "compact", place]) == 0
    assert main(["gallery", "rekey", place, "--plain"]) == 2
    assert main(["run", *bundle, "--gallery", place, "--source", everybody]) == 2
    said = capsys.readouterr().err
    assert "only galleries in a directory can be encrypted" in said
    assert "copy it first: edge gallery pull" in said


def test_the_snapshot_goes_on_while_the_server_is_away_and_sees_what_came_when_it_is_back(tmp_path: Path) -> None:
    with serving_milvus(tmp_path / "data") as (process, address):
        place = MilvusPlace(address)
        gallery = Gallery.create(place, BINDING)
        gallery.add("ada", unit(2, 1), ["a"] * 2)
        before = gallery.snapshot()
        process.kill()
        process.wait()
        assert gallery.snapshot() is before
        with pytest.raises(StoreUnavailableError, match="Milvus cannot be used now"):
            gallery.add("bob", unit(1, 2), ["b"])
        with pytest.raises(StoreUnavailableError, match="Milvus cannot be used now"):
            Gallery.open(place)
    with serving_milvus(tmp_path / "data", int(address.rpartition(":")[2])):

        def added() -> bool:
            with contextlib.suppress(StoreUnavailableError):
                gallery.add("bob", unit(1, 2), ["b"])
                return True
            return False

        until(added)
        assert set(searched(gallery)) == {"ada", "bob"}
        gallery.close()


def test_a_call_that_runs_out_of_time_is_said_in_one_line(
    fresh: Callable[[], MilvusPlace], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gallery.create(fresh(), BINDING) as gallery:
        gallery.add("ada", unit(1, 1), ["a"])
        monkeypatch.setattr("edge.gallery.milvus_client.WRITE_SECONDS", 1e-6)
        with pytest.raises(StoreUnavailableError, match=r"Milvus cannot be used now \(.+\)$"):
            gallery.compact()


def test_a_collection_that_another_releases_again_and_again_is_loaded_again(
    fresh: Callable[[], MilvusPlace], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = fresh()
    monkeypatch.setattr("edge.gallery.milvus_client.LARGE_PAGE", 1)
    with Gallery.create(place, BINDING) as gallery:
        gallery.add("ada", unit(3, 1), ["a"] * 3)
        gallery.snapshot()
        client = gallery._store._client  # type: ignore[attr-defined]
        milvus, collection = client._client, f"arcedge_{place.gallery}"
        load, loads = milvus.load_collection, itertools.count()

        def load_in_vain_at_first(name: str, **options: Any) -> None:
            load(name, **options)
            if next(loads) % 2 == 0:
                milvus.release_collection(name)

        monkeypatch.setattr(milvus, "load_collection", load_in_vain_at_first)
        numbers = []
        for row in client.rows(collection, "number >= 0", ["number"]):  # one a page
            numbers.append(row["number"])
            milvus.release_collection(collection)
        assert numbers == sorted(entry.number for entry in gallery.entries())
        assert len(numbers) == 3
        assert next(loads) >= 6


WRITER = """
import sys
import numpy as np
from edge.gallery import Gallery, parse_place
with Gallery.open(parse_place(sys.argv[1])) as gallery:
    for number in range(int(sys.argv[3])):
        vector = np.random.default_rng([int(sys.argv[2]), number]).normal(size=(1, 16)).astype(np.float32)
        gallery.add("same", vector / np.linalg.norm(vector), [f"{sys.argv[2]} {number}"])
        print(number, flush=True)
"""


@pytest.mark.slow
def test_processes_that_write_at_once_take_turns_and_one_that_is_killed_loses_nothing_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_milvus(tmp_path / "data") as (_, address):
        place = MilvusPlace(address)
        Gallery.create(place, BINDING).close()
        # Written as the first of them, so that no writer has to wait a minute for the one that is killed.
        fast = "import edge.gallery.lease as lease; lease.KEEP_SECONDS = 4.0; lease.WAIT_SECONDS = 60.0\n"
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", fast + WRITER, str(place), str(who), "15" if who else "100000"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for who in range(3)
        ]
        outputs = [process.stdout for process in processes if process.stdout is not None]
        begun = "".join(outputs[0].readline() for _ in range(3))  # it lets no other in before it is killed
        processes[0].kill()
        said = [output.read().split() for output in outputs]
        said[0] = begun.split() + said[0]
        for process in processes:
            process.wait()
        assert [process.returncode for process in processes[1:]] == [0, 0]
        monkeypatch.setattr(leases, "WAIT_SECONDS", 60.0)
        with Gallery.open(place) as gallery:
            gallery.add("last", unit(1, 1), ["l"])
            sources = [entry.source for entry in gallery.entries("same")]
            assert len(sources) == len(set(sources))
            acknowledged = {f"{who} {number}" for who, lines in enumerate(said) for number in lines}
            assert acknowledged <= set(sources)
            assert len(set(sources) - acknowledged) <= 1
            assert check(gallery)


class Shelf:
    """Rows whose reads and writes take the time that `delay` gives: what a read gives may be as old as that."""

    def __init__(self, clock: Clock, delay: Callable[[], float]) -> None:
        self.rows: dict[str, str] = {}
        self.delay = delay
        self._clock = clock

    def read(self) -> dict[str, str]:
        rows = dict(self.rows)
        self._clock.sleep(self.delay())
        return rows

    def write(self, name: str, text: str) -> None:
        self._clock.sleep(self.delay())
        self.rows[name] = text

    def remove(self, names: Iterable[str]) -> None:
        self._clock.sleep(self.delay())
        for name in names:
            self.rows.pop(name, None)


@pytest.mark.parametrize("slowest", [0.1, 3.0, 1.5 * leases.KEEP_SECONDS])
@pytest.mark.parametrize("seed", range(20))
def test_two_never_hold_the_lease_at_once(monkeypatch: pytest.MonkeyPatch, seed: int, slowest: float) -> None:
    clock, chance = SharedClock(threads=4), random.Random(seed)
    monkeypatch.setattr(leases, "time", clock)
    monkeypatch.setattr(leases, "WAIT_SECONDS", 1e6)
    shelf = Shelf(clock, lambda: slowest if chance.random() < 0.1 else chance.uniform(0, 0.1))
    inside, most, turns = [0], [0], []

    def work() -> None:
        lease = Lease(shelf, "here", clock.monotonic)
        for _ in range(3):
            lease.take()
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            clock.sleep(chance.uniform(0, 1))
            inside[0] -= 1
            turns.append(1)
            if chance.random() < 0.8:  # else it goes on with what it has
                lease.give_back()
        lease.give_back()
        clock.leave()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], len(turns), shelf.rows) == (1, 12, {})


def test_a_lease_ends_by_itself_and_who_is_late_queues_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    shelf = Shelf(clock, lambda: 0.01)
    killed, other, third = (Lease(shelf, "here", clock.monotonic) for _ in range(3))
    killed.take()
    with pytest.raises(StoreUnavailableError, match="another one is writing"):
        other.take()
    assert len(shelf.rows) == 1, "who gives up leaves the queue"
    clock.sleep(leases.KEEP_SECONDS + 1)
    other.take()
    with pytest.raises(StoreUnavailableError, match="another one is writing"):
        killed.take()
    clock.sleep(0.6 * leases.KEEP_SECONDS)
    other.take()
    clock.sleep(0.6 * leases.KEEP_SECONDS)
    with pytest.raises(StoreUnavailableError, match="another one is writing"):
        third.take()
    clock.sleep(3 * leases.KEEP_SECONDS)
    third.take()
    assert len(shelf.rows) == 1, "rows that ended long ago go"


def test_a_file_that_another_process_has_open_is_said_in_one_line(file: Path, fresh: Callable[[], MilvusPlace]) -> None:
    place = fresh()
    Gallery.create(place, BINDING).close()
    code = "from edge.cli.main import main; import sys; sys.exit(main())"
    with Gallery.open(place):
        command = [sys.executable, "-c", code, "gallery", "list", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "another process has the file open" in done.stderr


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(EdgeError, match=r"pip install 'arcedge\[milvus\]'"):
        Gallery.open(MilvusPlace("people.db"))


def test_faces_are_found_by_the_index(toy: Any, fresh: Callable[[], MilvusPlace]) -> None:
    with (
        FaceAnalyzer(toy.bundle) as analyzer,
        Gallery.create(fresh(), Binding.of(analyzer.embedder_variant)) as gallery,
    ):
        for person in range(5):
            image = toy.scene(200, 200, [(person, 40, 56)])
            crops = analyzer.align(image, analyzer.detect(image))
            gallery.add(f"p{person}", analyzer.embed(crops), ["x"])
        image = toy.scene(200, 200, [(3, 73, 61)])
        probe = analyzer.embed(analyzer.align(image, analyzer.detect(image)))
        hits = gallery.search(probe, 3)[0]
        assert hits[0].identity == "p3"
        assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)
        assert hits[0].similarity == pytest.approx(float(gallery.snapshot().of("p3")[0] @ probe[0]), abs=1e-5)
