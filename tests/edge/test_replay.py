"""Trouble in simulated time: the same line as a camera's, a day of it in seconds."""

from __future__ import annotations

import gc
import logging
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.analyze import FaceAnalyzer
from edge.bundle import Bundle
from edge.clock import SimulatedClock
from edge.errors import EdgeError, EngineError, InputError
from edge.gallery import Binding, Gallery
from edge.pipeline import Pipeline, Stream
from edge.replay import World, read_scenario
from edge.replay.scenario import Scenario
from edge.sources.backoff import Backoff
from edge.summary import Summary, as_text
from edge.tracking import Tracker, TrackerOptions
from edge.tracking.evidence import EvidenceOptions
from edge.types import FrameResult

HOUR = 3600.0


class Kept:
    def __init__(self) -> None:
        self.results: list[FrameResult] = []

    def write(self, result: FrameResult) -> None:
        self.results.append(result)

    def close(self) -> None:
        return

    def arrivals(self) -> list[float]:
        return [result.frame.arrived or 0.0 for result in self.results]

    def names(self, start: float, end: float) -> list[str | None]:
        """Of everybody decided on in frames that arrived in between."""
        return [
            decision.match.identity
            for result in self.results
            if start <= (result.frame.arrived or 0.0) < end
            for decision in result.decisions
            if decision.track is None or decision.track.state != "pending"
        ]


@pytest.fixture(scope="module")
def pictures(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """p1.png and p2.png: one person each, as the toy detector finds them, in the size they are shown."""
    folder = tmp_path_factory.mktemp("pictures")
    for person in (1, 2):
        toy.write_scene(folder / f"p{person}.png", 96, 96, [(person, 16, 16)])
    return folder


@pytest.fixture(scope="module")
def analyzer(toy: Any) -> Iterator[FaceAnalyzer]:
    with FaceAnalyzer(toy.bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def gallery(toy: Any, analyzer: FaceAnalyzer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    with Gallery.create(tmp_path_factory.mktemp("g") / "g", Binding.of(analyzer.embedder_variant)) as made:
        for person in (1, 2):
            image = toy.scene(160, 160, [(person, 48, 48)])
            made.add(f"p{person}", analyzer.embed(analyzer.align(image, analyzer.detect(image))), ["portrait"])
        yield made


HEAD = 'length = "10m"\nsize = [160, 96]\nfps = 1\nseed = 3\n'
ALWAYS_P1 = '[[show]]\npicture = "p1.png"\nheight = 1.0\nfor = "10m"\n'


def scenario(folder: Path, text: str) -> Scenario:
    path = folder / "scenario.toml"
    path.write_text(text)
    return read_scenario(path)


def played(plan: Scenario, analyzer: Any, gallery: Gallery, threshold: float, sink: Any) -> tuple[Summary, Any]:
    world = World({"cam": plan})
    (source,) = world.sources()
    tracker = Tracker(TrackerOptions(EvidenceOptions(threshold)))
    pipeline = world.troubled(Pipeline([analyzer], gallery.snapshot, threshold, [sink]))
    return pipeline.run_streams([Stream(source, tracker)]), source.counts()


@pytest.fixture
def play(toy: Any, pictures: Path, analyzer: FaceAnalyzer, gallery: Gallery) -> Any:
    """Runs a scenario's text; gives what the sink kept, the summary and the source's counts."""

    def run(text: str) -> tuple[Kept, Summary, Any]:
        kept = Kept()
        return kept, *played(scenario(pictures, text), analyzer, gallery, toy.threshold, kept)

    return run


def test_without_trouble_every_frame_comes_at_its_time_and_the_person_is_named(play: Any) -> None:
    kept, summary, counts = play(HEAD + ALWAYS_P1)
    np.testing.assert_allclose(kept.arrivals(), np.arange(1.0, 600.0), atol=1e-6)
    assert set(kept.names(5, 600)) == {"p1"}
    assert (summary.frames, counts.frames, counts.dropped, counts.reconnects) == (599, 599, 0, 0)
    assert summary.to_dict({"cam": counts})["seconds"] == pytest.approx(600, abs=1)


def test_the_same_seed_gives_the_same_and_another_does_not(play: Any) -> None:
    text = (
        HEAD.replace("10m", "3m")
        + ALWAYS_P1
        + '[[trouble]]\nkind = "drop"\ntimes = 5\nfor = ["5s", "20s"]\nshare = 0.5\n'
    )
    first, again, other = (play(each)[0].arrivals() for each in (text, text, text.replace("seed = 3", "seed = 4")))
    assert first == again
    assert first != other


@pytest.mark.parametrize("kind", ["stall", "disconnect"])
@pytest.mark.parametrize("lasting", [20, 95, 240])
def test_a_lost_camera_is_back_within_twice_the_bound_and_decisions_are_right_at_once(
    play: Any, kind: str, lasting: int
) -> None:
    kept, _, counts = play(HEAD + ALWAYS_P1 + f'[[trouble]]\nkind = "{kind}"\nat = "1m"\nfor = {lasting}\n')
    arrivals = np.array(kept.arrivals())
    assert not ((arrivals >= 60) & (arrivals < 60 + lasting)).any()
    back = float(arrivals[arrivals >= 60 + lasting].min())
    assert back - (60 + lasting) <= 2 * Backoff().longest
    assert counts.reconnects == 1
    assert set(kept.names(back + 4, 600)) == {"p1"}


def test_a_short_stall_is_waited_out_without_a_new_connection(play: Any) -> None:
    kept, _, counts = play(HEAD + ALWAYS_P1 + '[[trouble]]\nkind = "stall"\nat = "1m"\nfor = "5s"\n')
    assert counts.reconnects == 0
    assert max(np.diff(kept.arrivals())) == pytest.approx(5.5, abs=1.01)


def test_somebody_else_after_an_outage_does_not_inherit_the_name(play: Any) -> None:
    shows = (
        '[[show]]\npicture = "p1.png"\nheight = 1.0\nfor = "65s"\n'
        '[[show]]\npicture = "p2.png"\nheight = 1.0\nat = "65s"\nfor = "5m"\n'
    )
    kept, _, _ = play(HEAD + shows + '[[trouble]]\nkind = "disconnect"\nat = "1m"\nfor = "20s"\n')
    assert set(kept.names(5, 60)) == {"p1"}
    assert set(kept.names(80, 300)) == {"p2"}


def test_corrupt_and_missing_frames_are_survived(play: Any) -> None:
    kept, summary, counts = play(
        HEAD
        + ALWAYS_P1
        + '[[trouble]]\nkind = "corrupt"\nfor = "5m"\nshare = 0.5\n'
        + '[[trouble]]\nkind = "drop"\nat = "5m"\nfor = "5m"\nshare = 0.5\n'
    )
    assert 120 < counts.corrupt < 180
    assert summary.frames == counts.frames
    assert 260 < counts.frames < 340
    assert set(kept.names(10, 600)) == {"p1"}


def test_black_frames_show_nobody_and_another_size_is_seen_as_it_is(play: Any) -> None:
    kept, _, _ = play(
        HEAD
        + ALWAYS_P1
        + '[[trouble]]\nkind = "black"\nat = "1m"\nfor = "1m"\n'
        + '[[trouble]]\nkind = "resolution"\nat = "3m"\nfor = "1m"\nsize = [80, 48]\n'
    )
    dark = [result for result in kept.results if 60 <= (result.frame.arrived or 0) < 120]
    assert all(result.frame.image.max() == 0 and not result.decisions for result in dark)
    assert {r.frame.image.shape for r in kept.results} == {(96, 160, 3), (48, 80, 3)}
    assert set(kept.names(125, 180)) == set(kept.names(245, 600)) == {"p1"}


@pytest.mark.parametrize("by", ["-1h", "1h"])
def test_a_wall_clock_that_jumps_moves_times_and_nothing_else(play: Any, by: str) -> None:
    kept, summary, _ = play(HEAD + ALWAYS_P1 + f'[[trouble]]\nkind = "clock"\nat = "5m"\nby = "{by}"\n')
    np.testing.assert_allclose(kept.arrivals(), np.arange(1.0, 600.0), atol=1e-6)
    steps = np.diff([result.frame.time for result in kept.results])
    assert sorted(np.round(steps))[0 if by[0] == "-" else -1] == pytest.approx(-HOUR if by[0] == "-" else HOUR, abs=1)
    assert set(kept.names(5, 600)) == {"p1"}
    assert summary.people["p1"].seconds == pytest.approx(600, abs=5)


def test_a_slow_consumer_gets_the_newest_frame_and_drops_are_counted(play: Any) -> None:
    kept, _, counts = play(HEAD + ALWAYS_P1 + '[[trouble]]\nkind = "slow"\nat = "1m"\nfor = "2m"\nby = "3s"\n')
    assert counts.frames == 599
    assert counts.dropped == 599 - len(kept.results)
    assert counts.dropped == pytest.approx(80, abs=5)
    assert min(np.diff(kept.arrivals())) > 0
    assert set(kept.names(185, 600)) == {"p1"}


def test_an_engine_that_fails_now_and_then_costs_frames_and_one_that_stays_down_ends_the_run(play: Any) -> None:
    kept, summary, counts = play(HEAD + ALWAYS_P1 + '[[trouble]]\nkind = "engine"\nfor = "5m"\nshare = 0.4\n')
    assert 80 < summary.of("cam").failed < 200
    assert len(kept.results) + summary.of("cam").failed == counts.frames
    assert set(kept.names(10, 600)) == {"p1"}
    with pytest.raises(EngineError, match="cam: 26 frames in a row failed, the last one so: the engine failed"):
        play(HEAD + ALWAYS_P1 + '[[trouble]]\nkind = "engine"\nat = "1m"\nfor = "5m"\n')


def test_a_full_disk_and_a_locked_gallery_are_gone_through_with_a_line_each_way(play: Any, caplog: Any) -> None:
    kept, summary, _ = play(
        HEAD
        + ALWAYS_P1
        + '[[trouble]]\nkind = "disk"\nat = "1m"\nfor = "1m"\n'
        + '[[trouble]]\nkind = "gallery"\nat = "3m"\nfor = "1m"\n'
    )
    arrivals = np.array(kept.arrivals())
    assert not ((arrivals >= 60) & (arrivals < 120)).any()
    assert summary.frames == 599
    figures = summary.to_dict({})
    assert figures["sinks"]["kept"]["lost"] == 60
    assert "  kept: 60 results lost" in as_text(figures).splitlines()
    assert set(kept.names(5, 600)) == {"p1"}
    assert [record.message for record in caplog.records] == [
        "Kept: cannot be written (No space left on device); going on without",
        "Kept: takes results again; 60 were lost so far",
        "the gallery is locked by another process; going on with the people known so far",
        "the gallery can be read again",
    ]


def test_a_full_disk_is_full_for_the_sinks_of_one_source_too(
    toy: Any, pictures: Path, analyzer: FaceAnalyzer, gallery: Gallery
) -> None:
    plan = scenario(pictures, HEAD + ALWAYS_P1 + '[[trouble]]\nkind = "disk"\nat = "1m"\nfor = "1m"\n')
    world, shared, own = World({"cam": plan}), Kept(), Kept()
    (source,) = world.sources()
    pipeline = world.troubled(Pipeline([analyzer], gallery.snapshot, toy.threshold, [shared]))
    summary = pipeline.run_streams([world.troubled_stream(Stream(source, sinks=[own]))])
    assert own.arrivals() == shared.arrivals()
    assert summary.sink_counts["kept"].lost == 120


DAY = (
    """
length = "24h"
size = [160, 96]
fps = 0.05
seed = 11
"""
    + "".join(
        f'[[show]]\npicture = "p{person}.png"\nheight = 1.0\nat = "{at}"\nevery = "1h"\nfor = "15s"\nfps = 4\n'
        for person, at in ((1, "10m"), (2, "40m"))
    )
    + "".join(
        f'[[trouble]]\nkind = "{kind}"\ntimes = {times}\n{rest}\n'
        for kind, times, rest in (
            ("stall", 24, 'for = ["2s", "5m"]'),
            ("disconnect", 24, 'for = ["2s", "10m"]'),
            ("corrupt", 24, 'for = ["5s", "5m"]\nshare = 0.7'),
            ("drop", 24, 'for = "5m"\nshare = 0.5'),
            ("black", 24, 'for = "1m"'),
            ("resolution", 24, 'for = "2m"\nsize = [80, 48]'),
            ("clock", 3, 'by = "-1h"'),
            ("clock", 3, 'by = "2h"'),
            ("slow", 12, 'for = "2m"\nby = "3s"'),
            ("engine", 24, 'for = "2m"\nshare = 0.5'),
            ("disk", 12, 'for = "5m"'),
            ("gallery", 12, 'for = "5m"'),
        )
    )
)


class Diary:
    """What was said when, and what the process holds at the first frame of each hour: bytes resident, objects alive."""

    def __init__(self) -> None:
        self.said: list[tuple[float, str | None]] = []
        self.resident: list[int] = []
        self.objects: list[int] = []

    def write(self, result: FrameResult) -> None:
        moment = result.frame.arrived or 0.0
        self.said += [
            (moment, decision.match.identity)
            for decision in result.decisions
            if decision.track is not None and decision.track.state != "pending"
        ]
        if moment >= HOUR * len(self.resident):
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident.append(pages * resource.getpagesize())
            self.objects.append(len(gc.get_objects()))

    def close(self) -> None:
        return

    def names(self, start: float, end: float) -> set[str | None]:
        return {name for moment, name in self.said if start <= moment < end}


@pytest.fixture(scope="module")
def day(toy: Any, pictures: Path, analyzer: FaceAnalyzer, gallery: Gallery) -> tuple[Scenario, Diary, Summary, Any]:
    """A day of every trouble there is."""
    plan, diary = scenario(pictures, DAY), Diary()
    # What pytest keeps of the log would be taken for a leak.
    logging.disable(logging.CRITICAL)
    # What is there before is not counted, nor looked through at every hour: it is no garbage, and may stay frozen.
    gc.collect()
    gc.freeze()
    try:
        return plan, diary, *played(plan, analyzer, gallery, toy.threshold, diary)
    finally:
        logging.disable(logging.NOTSET)


def test_a_day_of_trouble_is_survived_in_flat_memory(day: Any) -> None:
    plan, diary, summary, counts = day
    assert len(plan.troubles) == 24 * 7 + 3 * 2 + 12 * 3
    assert counts.reconnects >= 20
    assert summary.frames > 4000
    assert summary.of("cam").failed > 20
    assert len(diary.resident) >= 20
    # By the fourth hour everything has happened once: caches, histograms, the scaled pictures are there.
    assert max(diary.resident[4:]) - diary.resident[3] < 4 << 20
    assert max(diary.objects[4:]) - diary.objects[3] < 500


def test_in_a_day_nobody_is_called_by_anothers_name_and_every_quiet_visit_is_recognised(day: Any) -> None:
    plan, diary, _, _ = day
    quiet = 0
    for place, show in enumerate(sorted(plan.shows, key=lambda each: each.window.start)):
        start, end, name = show.window.start, show.window.end, ("p1", "p2")[place % 2]
        assert diary.names(start, end) <= {name, None}
        # A camera may be in its back-off a minute after the trouble, and evidence takes a second or two.
        if not any(t.window.start < end and t.window.end + 60 > start for t in plan.troubles if t.kind != "clock"):
            quiet += 1
            assert diary.names(start + 3, end) == {name}
    assert quiet >= 10


def test_two_cameras_share_one_world_and_one_that_is_down_does_not_hold_up_the_other(
    toy: Any, pictures: Path, analyzer: FaceAnalyzer, gallery: Gallery
) -> None:
    down = scenario(pictures, HEAD + ALWAYS_P1 + '[[trouble]]\nkind = "stall"\nat = "1m"\nfor = "8m"\n')
    well = scenario(pictures, HEAD + ALWAYS_P1.replace("p1.png", "p2.png"))
    world, kept = World({"down": down, "well": well}), Kept()
    pipeline = world.troubled(Pipeline([analyzer], gallery.snapshot, toy.threshold, [kept]))
    streams = [Stream(source, Tracker(TrackerOptions(EvidenceOptions(toy.threshold)))) for source in world.sources()]
    summary = pipeline.run_streams(streams)
    assert summary.of("well").frames == 599
    assert 90 < summary.of("down").frames < 150
    assert set(summary.of("well").people) == {"p2"}
    assert set(summary.of("down").people) == {"p1"}
    assert kept.arrivals() == sorted(kept.arrivals())


def test_simulated_time_goes_on_only_when_somebody_waits() -> None:
    clock = SimulatedClock(start=1000.0, jumps=[(5.0, -100.0)])
    assert (clock.time(), clock.monotonic()) == (1000.0, 0.0)
    clock.sleep(4.0)
    assert clock.time() == 1004.0
    clock.sleep(1.0)
    assert (clock.time(), clock.monotonic()) == (905.0, 5.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("length = ", "not a TOML file"),
        ("fps = 1", "length is missing"),
        ('length = "soon"', "length is not a time"),
        ('length = "1h"\nfsp = 1', "fsp is not known"),
        ('length = "1h"\nsize = [1, 2]', "size is not"),
        ('length = "1h"\nfps = 0', "fps is not a number"),
        ('length = "1h"\nseed = 1.5', "seed is not a whole number"),
        ('length = "1h"\nshow = 1', "show is not a list of tables"),
        ('length = "1h"\n[[show]]\nfor = 1', "show 1: picture is missing"),
        ('length = "1h"\n[[show]]\npicture = "none.png"\nfor = 1', r"none\.png"),
        ('length = "1h"\n[[trouble]]\nkind = "flood"\nfor = 1', "trouble 1: kind is none of stall, drop"),
        ('length = "1h"\n[[trouble]]\nkind = "stall"', "trouble 1: for is missing"),
        ('length = "1h"\n[[trouble]]\nkind = "stall"\nfor = ["2m", "1m"]', "for is neither a time nor two"),
        ('length = "1h"\n[[trouble]]\nkind = "stall"\nfor = 1\nshare = 0.5', "share is not known"),
        ('length = "1h"\n[[trouble]]\nkind = "drop"\nfor = 1\nshare = 1.5', "share is not a number from 0 to 1"),
        ('length = "1h"\n[[trouble]]\nkind = "slow"\nfor = 1', "by is missing"),
        ('length = "1h"\n[[trouble]]\nkind = "slow"\nfor = 1\nby = "-1s"', "by is not a time"),
        ('length = "1h"\n[[trouble]]\nkind = "resolution"\nfor = 1', "size is missing"),
        ('length = "1h"\n[[trouble]]\nkind = "stall"\nfor = 1\nevery = "1ms"', "every is too short"),
        ('length = "1h"\n[[trouble]]\nkind = "stall"\nfor = 1\ntimes = 0', "times is not a number from 1"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused_in_one_line(pictures: Path, text: str, message: str) -> None:
    with pytest.raises(EdgeError, match=message) as caught:
        scenario(pictures, text)
    assert "\n" not in str(caught.value)


def test_the_documented_scenario_is_one(repository: Path, tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (repository / "docs" / "camera.md").read_text(), re.DOTALL)
    cv2.imwrite(str(tmp_path / "ada.jpg"), np.zeros((90, 60, 3), np.uint8))
    plan = scenario(tmp_path, example)
    assert (plan.seed, plan.length, plan.size, plan.fps) == (7, 24 * HOUR, (640, 360), 0.1)
    assert [len(plan.shows), len(plan.of("disconnect")), len(plan.of("corrupt"))] == [24, 24, 1]
    assert all(5 <= each.window.end - each.window.start <= 600 for each in plan.of("disconnect"))


def test_a_scenario_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.toml: cannot be read"):
        read_scenario(tmp_path / "nothing.toml")


@pytest.fixture(scope="module")
def shipped(shipped_bundle: Path) -> Iterator[FaceAnalyzer]:
    """The weights that ship with the project, in FP32."""
    cv2.setNumThreads(1)
    with FaceAnalyzer(Bundle.open(shipped_bundle)) as opened:
        yield opened


@pytest.mark.slow
def test_real_people_are_known_after_every_outage_and_never_by_anothers_name(
    shipped: FaceAnalyzer, tmp_path: Path
) -> None:
    """Two hours of trouble before the astronaut of scikit-image and Matplotlib's Grace Hopper, who is a stranger."""
    matplotlib_cbook = pytest.importorskip("matplotlib.cbook")
    skimage_data = pytest.importorskip("skimage.data")
    astronaut = cv2.cvtColor(skimage_data.astronaut(), cv2.COLOR_RGB2BGR)
    hopper = cv2.imread(str(matplotlib_cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    cv2.imwrite(str(tmp_path / "astronaut.png"), astronaut)
    cv2.imwrite(str(tmp_path / "hopper.png"), hopper)
    plan = scenario(
        tmp_path,
        'length = "2h"\nsize = [480, 270]\nfps = 0.05\nseed = 5\n'
        '[[show]]\npicture = "astronaut.png"\nat = "4m"\nevery = "10m"\nfor = "12s"\nfps = 4\n'
        '[[show]]\npicture = "hopper.png"\nat = "9m"\nevery = "10m"\nfor = "12s"\nfps = 4\n'
        # Each visit begins seconds after an outage, a blackout or a jump of the clock.
        '[[trouble]]\nkind = "disconnect"\nat = "3m55s"\nevery = "20m"\nfor = "7s"\n'
        '[[trouble]]\nkind = "stall"\nat = "8m56s"\nevery = "20m"\nfor = "6s"\n'
        '[[trouble]]\nkind = "black"\nat = "13m58s"\nevery = "20m"\nfor = "4s"\n'
        '[[trouble]]\nkind = "clock"\nat = "14m4s"\nby = "-30m"\n'
        '[[trouble]]\nkind = "engine"\nat = "18m"\nfor = "5m"\nshare = 0.3\n'
        '[[trouble]]\nkind = "gallery"\nat = "34m"\nfor = "10m"\n'
        '[[trouble]]\nkind = "corrupt"\nat = "54m"\nfor = "10m"\nshare = 0.3\n',
    )
    assert shipped.threshold is not None
    threshold, diary = shipped.threshold.similarity, Diary()
    with Gallery.create(tmp_path / "g", Binding.of(shipped.embedder_variant)) as known:
        faces = shipped.detect(astronaut)[:1]
        known.add("eileen_collins", shipped.embed(shipped.align(astronaut, faces)), ["astronaut"])
        _, counts = played(plan, shipped, known, threshold, diary)
    assert counts.reconnects >= 3
    visits = sorted(plan.shows, key=lambda show: show.window.start)
    assert len(visits) == 24
    for place, visit in enumerate(visits):
        # A camera that was lost is back within twice the first waits of its back-off: 0.5, 1, 2 and 4 seconds.
        said = diary.names(visit.window.start + 8, visit.window.end)
        assert said == ({"eileen_collins"} if place % 2 == 0 else {None}), place
