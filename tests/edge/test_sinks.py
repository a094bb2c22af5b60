from __future__ import annotations

import argparse
import errno
import io
import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from edge.cli import main as command
from edge.cli import sink_options
from edge.draw import KNOWN, UNKNOWN, annotate, label_of, place_label, printable
from edge.errors import InputError
from edge.pipeline.guards import LastingSink
from edge.sinks import JsonLines, Progress, VideoFileSink, Window, recordings
from edge.sinks.video import FRAMES_BETWEEN_LOOKS, SPARE_BYTES, fitted
from edge.sinks.window import why_no_window
from edge.types import Decision, Face, Frame, FrameResult, Match


def decision(name: str | None, x: float = 40, index: int = 0, similarity: float = 0.61) -> Decision:
    box = np.array([x, 60, x + 50, 120], np.float32)
    points = np.array([[15, 20], [35, 20], [25, 32], [17, 45], [33, 45]], np.float32)
    points += np.array([x, 60], np.float32)
    face = Face(box, points, 0.93)
    return Decision(index, index / 25, "cam", face, Match(name, similarity, 0.4, name or "ada"), {"detect": 1.234567})


def result(index: int, *decisions: Decision, size: tuple[int, int] = (160, 200)) -> FrameResult:
    image = np.full((*size, 3), 40 + index % 100, np.uint8)
    return FrameResult(Frame(image, index, index / 25, "cam"), decisions, {"detect": 1.0})


def frames_of(file: Path) -> list[int]:
    return [json.loads(line)["frame"] for line in file.read_text().splitlines()] if file.exists() else []


def frames_in(video: Path) -> int:
    capture = cv2.VideoCapture(str(video))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size`: what is written across is cut short, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestJsonLines:
    def test_a_line_a_decision_readable_at_once(self, tmp_path: Path) -> None:
        file = tmp_path / "e.jsonl"
        sink = JsonLines(file)
        sink.write(result(0))
        assert file.read_text() == ""
        sink.write(result(3, decision("ada", index=3), decision(None, index=3)))
        known, unknown = map(json.loads, file.read_text().splitlines())
        assert known == {
            "time": 0.12,
            "frame": 3,
            "source": "cam",
            "box": [40.0, 60.0, 90.0, 120.0],
            "landmarks": [[55.0, 80.0], [75.0, 80.0], [65.0, 92.0], [57.0, 105.0], [73.0, 105.0]],
            "score": 0.93,
            "identity": "ada",
            "nearest": "ada",
            "similarity": 0.61,
            "threshold": 0.4,
            "latency_ms": {"detect": 1.23},
        }
        assert (unknown["identity"], unknown["nearest"]) == (None, "ada")
        sink.close()
        sink.close()

    @pytest.mark.parametrize("mask", [0o000, 0o077])
    def test_what_is_made_is_its_owners_and_who_may_read_the_first_may_read_the_next(
        self, tmp_path: Path, mask: int
    ) -> None:
        file = tmp_path / "e.jsonl"
        before = os.umask(mask)
        try:
            sink = JsonLines(file, max_bytes=500)
            sink.write(result(0, decision("ada")))
            assert file.stat().st_mode & 0o777 == 0o600
            file.chmod(0o640)
            sink.write(result(1, decision("ada")))
            sink.close()
        finally:
            os.umask(before)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert modes == {"e.jsonl": 0o640, "e.jsonl.1": 0o640}

    def test_files_turn_over_at_their_size_and_the_oldest_goes(self, tmp_path: Path) -> None:
        sink = JsonLines(tmp_path / "e.jsonl", max_bytes=1000, keep=2)
        for index in range(30):
            sink.write(result(index, decision("ada", index=index)))
        sink.close()
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["e.jsonl", "e.jsonl.1", "e.jsonl.2"]
        frames = [
            json.loads(line)["frame"]
            for name in ("e.jsonl.2", "e.jsonl.1", "e.jsonl")
            for line in (tmp_path / name).read_text().splitlines()
        ]
        assert frames == list(range(frames[0], 30))

    def test_a_place_that_cannot_be_written_is_the_users_mistake(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be written"):
            JsonLines(tmp_path / "none" / "e.jsonl")

    def test_a_full_disk_is_said_in_one_line(self) -> None:
        sink = JsonLines(Path("/dev/full"))
        with pytest.raises(InputError, match="/dev/full: cannot be written"):
            sink.write(result(0, decision("ada")))

    def test_a_camera_that_is_started_beside_a_full_disk_goes_on(self, caplog: pytest.LogCaptureFixture) -> None:
        sink = LastingSink(JsonLines(Path("/dev/full")))
        for index in range(3):
            sink.write(result(index, decision("ada", index=index)))
        assert sink.counts().lost == 3
        assert [record.message for record in caplog.records] == [
            "/dev/full: cannot be written (No space left on device); going on without"
        ]

    def test_a_restart_goes_on_behind_what_is_there(self, tmp_path: Path) -> None:
        for index in range(2):
            sink = JsonLines(tmp_path / "e.jsonl")
            sink.write(result(index, decision("ada", index=index)))
            sink.close()
        assert frames_of(tmp_path / "e.jsonl") == [0, 1]

    def test_a_line_that_a_kill_cut_short_spoils_no_other(self, tmp_path: Path) -> None:
        file = tmp_path / "e.jsonl"
        file.write_text('{"frame": 7}\n{"frame": 8, "sou')
        sink = JsonLines(file)
        sink.write(result(9, decision("ada", index=9)))
        sink.close()
        assert file.read_text().splitlines()[1] == '{"frame": 8, "sou'
        assert json.loads(file.read_text().splitlines()[2])["frame"] == 9

    def test_a_line_that_a_full_disk_cut_short_spoils_no_other_and_is_not_written_later(self, tmp_path: Path) -> None:
        file = tmp_path / "e.jsonl"
        sink = JsonLines(file)
        sink.write(result(0, decision("ada", index=0)))
        with limited_files(file.stat().st_size + 50), pytest.raises(InputError, match="cannot be written"):
            sink.write(result(1, decision("ada", index=1)))
        sink.write(result(2, decision("ada", index=2)))
        sink.close()
        first, torn, last = file.read_text().splitlines()
        assert len(torn) == 50
        assert [json.loads(first)["frame"], json.loads(last)["frame"]] == [0, 2]

    def test_where_no_new_file_can_be_had_the_old_one_grows_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        sink = JsonLines(tmp_path / "e.jsonl", max_bytes=1000, keep=9)
        opened, full = Path.open, False

        def opening(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if full and mode[0] in "wa":
                raise OSError(errno.ENOSPC, "No space left on device")
            return opened(path, mode, *arguments, **named)

        monkeypatch.setattr(Path, "open", opening)
        for index in range(30):
            full = 5 <= index < 20
            sink.write(result(index, decision("ada", index=index)))
        sink.close()
        names = (*(f"e.jsonl.{number}" for number in range(9, 0, -1)), "e.jsonl")
        assert [frame for name in names for frame in frames_of(tmp_path / name)] == list(range(30))
        said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert said == [f"{tmp_path / 'e.jsonl'}: cannot be rotated (No space left on device); it grows on"]

    def test_a_rotation_that_fails_half_way_time_and_again_costs_no_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "e.jsonl"
        sink = JsonLines(file, max_bytes=300, keep=3)
        replaced, broken = Path.replace, False

        def replacing(path: Path, target: Path) -> Path:
            if broken and path == file:
                raise OSError(errno.EIO, "Input/output error")
            return replaced(path, target)

        monkeypatch.setattr(Path, "replace", replacing)
        for index in range(12):
            broken = index >= 4
            sink.write(result(index, decision("ada", index=index)))
        sink.close()
        everything = [frame for path in sorted(tmp_path.glob("e.jsonl*")) for frame in frames_of(path)]
        assert sorted(everything) == list(range(12))

    def test_an_old_file_that_cannot_be_finished_does_not_stop_the_new_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        sink = JsonLines(tmp_path / "e.jsonl", max_bytes=1000, keep=9)
        synchronise, broken = os.fsync, False

        def fsync(descriptor: int) -> None:
            if broken:
                raise OSError(errno.EIO, "Input/output error")
            synchronise(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        for index in range(12):
            broken = index < 6
            sink.write(result(index, decision("ada", index=index)))
        sink.close()
        files = [*sorted(tmp_path.glob("e.jsonl.*"), reverse=True), tmp_path / "e.jsonl"]
        assert len(files) > 3
        assert [frame for file in files for frame in frames_of(file)] == list(range(12))
        said = {record.message for record in caplog.records}
        assert said == {f"{tmp_path / 'e.jsonl.1'}: cannot be finished (Input/output error)"}


class TestVideo:
    def test_the_file_holds_every_frame_with_what_was_drawn(self, tmp_path: Path) -> None:
        file = tmp_path / "v.mp4"
        sink = VideoFileSink(file, 25)
        for index in range(12):
            sink.write(result(index, decision("ada"), size=(161, 201)))
        sink.close()
        sink.close()
        capture = cv2.VideoCapture(str(file))
        frames = []
        while (read := capture.read())[0]:
            frames.append(read[1])
        assert len(frames) == 12
        assert frames[0].shape == (160, 200, 3)
        assert capture.get(cv2.CAP_PROP_FPS) == 25
        edge = frames[5][90, 40].astype(int)
        assert np.abs(edge - KNOWN).max() < 90
        assert abs(int(frames[5][150, 190, 0]) - 45) < 8

    def test_a_recording_is_its_owners_and_the_next_takes_its_mode(self, tmp_path: Path) -> None:
        file = tmp_path / "v.mp4"
        for mode in (0o600, 0o640):
            sink = VideoFileSink(file, 25)
            sink.write(result(0))
            sink.close()
            assert file.stat().st_mode & 0o777 == mode
            file.chmod(0o640)

    def test_the_rate_is_that_of_a_source_which_knows_it_when_the_first_frame_is_there(self, tmp_path: Path) -> None:
        source = SimpleNamespace(fps=25.0)
        sink = VideoFileSink(tmp_path / "v.mp4", lambda: source.fps)
        source.fps = 10.0
        sink.write(result(0))
        sink.close()
        assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FPS) == 10

    def test_frames_of_another_size_are_fitted_in(self, tmp_path: Path) -> None:
        sink = VideoFileSink(tmp_path / "v.mp4", 5)
        sink.write(result(0))
        sink.write(result(1, size=(400, 300)))
        sink.close()
        white = np.full((400, 300, 3), 255, np.uint8)
        canvas = fitted(white, 200, 160)
        assert canvas.shape == (160, 200, 3)
        assert (canvas[:, 100] == 255).all()
        assert (canvas[:, :39] == 0).all()
        assert (canvas[:, -39:] == 0).all()

    @pytest.mark.parametrize(
        ("name", "message"),
        [("v.txt", "name the video"), ("no/v.mp4", "does not exist"), ("v\udcff.mp4", "is not UTF-8")],
    )
    def test_a_bad_place_is_refused_before_the_run(self, tmp_path: Path, name: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            VideoFileSink(tmp_path / name, 25)

    def test_a_video_that_was_cut_off_is_noticed_at_the_end(self, tmp_path: Path) -> None:
        file = tmp_path / "v.mp4"
        sink = VideoFileSink(file, 25)
        for index in range(5):
            sink.write(result(index))
        file.unlink()
        with pytest.raises(InputError, match="cannot be read again"):
            sink.close()

    def test_a_recording_that_is_there_is_put_aside_and_never_overwritten(self, tmp_path: Path) -> None:
        file = tmp_path / "v.mp4"
        for run in range(3):
            sink = VideoFileSink(file, 25)
            for index in range(4 + run):
                sink.write(result(index))
            sink.close()
            os.utime(file, (1_700_000_000, 1_700_000_000))
        names = ["v.20231114T221320Z-2.mp4", "v.20231114T221320Z.mp4", "v.mp4"]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        assert [frames_in(tmp_path / name) for name in names] == [5, 4, 6]

    def test_what_files_gave_is_written_anew_but_no_part_of_the_same_run(self, tmp_path: Path) -> None:
        for _ in range(2):
            sink = VideoFileSink(tmp_path / "v.mp4", 25, longest=0.19, overwrite=True)
            for index in range(8):
                sink.write(result(index))
            sink.close()
            os.utime(tmp_path / "v.mp4", (1_700_000_000, 1_700_000_000))
        counts = sorted(frames_in(path) for path in tmp_path.iterdir())
        assert counts == [3, 5, 5], "the first run's last part went, its first did not"

    def test_a_long_recording_is_divided_by_the_frames_times(self, tmp_path: Path) -> None:
        sink = VideoFileSink(tmp_path / "v.mp4", 25, longest=0.39)
        # The last as after a wall clock was put back.
        for index in (*range(100, 125), 0):
            sink.write(result(index))
        sink.close()
        sink.close()
        counts = sorted(frames_in(path) for path in tmp_path.iterdir())
        assert counts == [1, 5, 10, 10]
        assert frames_in(tmp_path / "v.mp4") == 1

    def test_the_oldest_go_where_all_together_may_take_so_much(self, tmp_path: Path) -> None:
        file = tmp_path / "v.mp4"
        others = [tmp_path / name for name in ("v.notes.mp4", "w.20200101T000000Z.mp4", "v.20200101T000000Z.mkv")]
        old = [tmp_path / f"v.2026010{day}T000000Z.mp4" for day in range(1, 5)]
        old[1:1] = [tmp_path / "v.20260101T000000Z-2.mp4", tmp_path / "v.20260101T000000Z-10.mp4"]
        for path in (*others, *old):
            path.write_bytes(bytes(1000))
        assert recordings.older(file) == old
        sink = VideoFileSink(file, 25, most_bytes=3500)
        sink.write(result(0))
        assert recordings.older(file) == old[-3:]
        old[-1].write_bytes(bytes(3000))
        for index in range(1, FRAMES_BETWEEN_LOOKS + 1):
            sink.write(result(index))
        sink.close()
        assert recordings.older(file) == old[-1:], "it is looked at again while one is written"
        assert frames_in(file) == FRAMES_BETWEEN_LOOKS + 1
        recordings.delete_oldest(file, 3000 + file.stat().st_size)
        assert old[-1].exists()
        recordings.delete_oldest(file, 2999 + file.stat().st_size)
        assert sorted(tmp_path.iterdir()) == sorted([*others, file]), "the newest counts, and stays"

    def test_one_that_cannot_be_deleted_stops_no_recording(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        old = [tmp_path / f"v.2026010{day}T000000Z.mp4" for day in range(1, 4)]
        for path in old:
            path.write_bytes(bytes(1000))
        unlink = Path.unlink

        def refuse(path: Path, missing_ok: bool = False) -> None:
            if path == old[0]:
                raise PermissionError(13, "Permission denied")
            unlink(path, missing_ok)

        monkeypatch.setattr(Path, "unlink", refuse)
        sink = VideoFileSink(tmp_path / "v.mp4", 25, most_bytes=1500)
        sink.write(result(0))
        sink.close()
        assert recordings.older(tmp_path / "v.mp4") == [old[0]]
        assert [record.message for record in caplog.records] == [f"{old[0]}: cannot be deleted (Permission denied)"]

    @pytest.mark.parametrize(
        ("said", "live", "seconds", "files"),
        [
            ([], True, 3590, 1),
            ([], True, 3600, 2),
            ([], False, 90_000, 1),
            (["--video-minutes", "5"], True, 300, 2),
            (["--video-minutes", "5"], False, 300, 2),
        ],
    )
    def test_a_camera_begins_a_new_one_each_hour_or_as_it_is_told(
        self, tmp_path: Path, said: list[str], live: bool, seconds: int, files: int
    ) -> None:
        parser = argparse.ArgumentParser()
        sink_options.add_sinks(parser)
        args = parser.parse_args(["--video", str(tmp_path / "v.mp4"), *said])
        source: Any = SimpleNamespace(name="cam", live=live, fps=25.0, length=None)
        (sink,) = sink_options.open_sinks_of(args, source, alone=True)
        sink.write(result(0))
        sink.write(result(seconds * 25))
        sink.close()
        assert len([*tmp_path.iterdir()]) == files

    @pytest.mark.parametrize("since", [0, 10])
    def test_a_full_disk_is_counted_and_said_once_and_spoils_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, since: int
    ) -> None:
        file, free = tmp_path / "v.mp4", SPARE_BYTES
        monkeypatch.setattr("edge.sinks.video.disk_usage", lambda folder: SimpleNamespace(free=free))
        sink = LastingSink(VideoFileSink(file, 25))
        for index in range(20):
            free = SPARE_BYTES - (since <= index < since + 5)
            sink.write(result(index))
        sink.close()
        assert sink.counts().lost == 5
        assert frames_in(file) == 15
        assert [record.message for record in caplog.records] == [
            f"{file}: cannot be written (less than 16 MB are free); going on without",
            f"{file}: takes results again; 5 were lost so far",
        ]

    @pytest.mark.parametrize("ending", ["mkv", "avi"])
    def test_a_killed_recording_can_be_read_as_far_as_it_was_written(self, tmp_path: Path, ending: str) -> None:
        file = tmp_path / f"v.{ending}"
        program = (
            "import os, sys, pathlib, numpy as np\n"
            "from edge.sinks import VideoFileSink\n"
            "from edge.types import Frame, FrameResult\n"
            "draw, sink = np.random.default_rng(1), VideoFileSink(pathlib.Path(sys.argv[1]), 25)\n"
            "for index in range(40):\n"
            "    image = draw.integers(0, 255, (360, 640, 3), np.uint8)\n"
            "    sink.write(FrameResult(Frame(image, index, index / 25, 'cam'), ()))\n"
            "os._exit(0)\n"
        )
        subprocess.run([sys.executable, "-c", program, str(file)], check=True)
        assert 10 < frames_in(file) <= 40

    def test_nothing_seen_writes_nothing(self, tmp_path: Path) -> None:
        VideoFileSink(tmp_path / "v.mp4", 25).close()
        assert not (tmp_path / "v.mp4").exists()


class TestDrawing:
    @pytest.mark.parametrize("height", [360, 1080])
    @pytest.mark.parametrize(("name", "color"), [("ada", KNOWN), (None, UNKNOWN)])
    def test_box_and_label_are_drawn_in_their_colour_and_the_frame_is_left_alone(
        self, height: int, name: str | None, color: tuple[int, int, int]
    ) -> None:
        image = np.zeros((height, height * 16 // 9, 3), np.uint8)
        drawn = annotate(image, [decision(name)])
        assert not image.any()
        assert (drawn[90, 40] == color).all()
        label = drawn[:59, 40:]
        assert (label == 255).all(axis=2).sum() > 20

    @pytest.mark.parametrize("x", [-30, 0, 560, 620])
    def test_a_label_at_the_border_stays_in_the_frame(self, x: float) -> None:
        image = np.zeros((360, 640, 3), np.uint8)
        face = decision("a rather long name of a person", x=x).face
        high = Face(face.box - np.array([0, 58, 0, 58], np.float32), face.landmarks, 0.9)
        found = decision("a rather long name of a person", x=x)
        drawn = annotate(image, [Decision(0, 0.0, "cam", high, found.match)])
        whole = annotate(np.zeros((360, 640, 3), np.uint8), [decision("a rather long name of a person", x=200)])
        letters, expected = (int((a == 255).all(axis=2).sum()) for a in (drawn, whole))
        assert letters == expected

    def test_labels_of_neighbours_lie_beside_each_other(self) -> None:
        frame, size = (640, 360), (110, 18)
        taken: list[tuple[int, int, int, int]] = []
        for x in (200, 240, 300, 330):  # heads side by side: each label is twice as wide as a face
            taken.append(place_label(decision("ada", x=x).face, size, frame, taken))
        assert taken[0] == (200, 42, 310, 60), "the first one above its box"
        for place, (x1, y1, x2, y2) in enumerate(taken):
            assert min(x1, y1) >= 0
            assert x2 <= frame[0]
            assert y2 <= frame[1]
            for other in taken[:place]:
                assert x1 >= other[2] or x2 <= other[0] or y1 >= other[3] or y2 <= other[1]

    def test_names_are_placed_before_strangers_and_crowds_are_no_error(self) -> None:
        alone = annotate(np.zeros((360, 640, 3), np.uint8), [decision("ada", x=240)])
        both = annotate(np.zeros((360, 640, 3), np.uint8), [decision(None, x=210), decision("ada", x=240)])
        letters = (alone == 255).all(axis=2)
        assert letters.sum() > 20
        assert (both[letters] == 255).all()
        annotate(np.zeros((40, 60, 3), np.uint8), [decision(None, x=x) for x in range(0, 60, 3)])

    def test_a_frame_smaller_than_its_label_is_no_error(self) -> None:
        near = decision("somebody")
        face = Face(np.array([4, 4, 16, 16], np.float32), near.face.landmarks, 0.9)
        drawn = annotate(np.zeros((20, 20, 3), np.uint8), [Decision(0, 0.0, "cam", face, near.match)])
        assert drawn.shape == (20, 20, 3)
        assert drawn[10, 4].any(), "the box's left side"

    def test_labels_name_and_quantify(self) -> None:
        assert label_of(decision("ada")) == "ada 0.61"
        assert label_of(decision(None, similarity=0.127)) == "unknown 0.13"
        nobody = Decision(0, 0.0, "cam", decision(None).face, Match(None, -1.0, 0.4))
        assert label_of(nobody) == "unknown"

    def test_names_are_drawn_in_the_letters_there_are(self) -> None:
        assert printable("Zoë Müller") == "Zoe Muller"
        assert printable("山") == "?"


def test_a_window_without_a_screen_says_what_to_install_or_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert why_no_window() is not None
    with pytest.raises(InputError, match=r"--show needs"):
        Window(lambda: None)


class Screen:
    """What a window does to the screen, in the place of OpenCV's functions.

    keys: pressed, one after each frame. visible: what OpenCV says of the window; -1 is that it cannot know.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[int] = []
        self.visible = 1.0
        self.windows: list[str] = []
        self.shown: list[tuple[str, np.ndarray]] = []
        self.sizes: list[tuple[int, int]] = []
        monkeypatch.setattr("edge.sinks.window.why_no_window", lambda: None)
        monkeypatch.setattr(cv2, "resizeWindow", lambda _, width, height: self.sizes.append((width, height)))
        monkeypatch.setattr(cv2, "namedWindow", lambda title, _: self.windows.append(title))
        monkeypatch.setattr(cv2, "imshow", lambda title, image: self.shown.append((title, image)))
        monkeypatch.setattr(cv2, "waitKey", lambda _: self.keys.pop(0) if self.keys else -1)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: self.visible)
        monkeypatch.setattr(cv2, "destroyAllWindows", self.windows.clear)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    return Screen(monkeypatch)


def test_a_window_shows_each_frame_with_its_names_and_is_gone_in_the_end(screen: Screen) -> None:
    window = Window(lambda: pytest.fail("nobody pressed q"))
    assert screen.windows == ["arcedge"]
    frames = [result(i, decision("ada")) for i in range(3)]
    for each in frames:
        window.write(each)
    assert [title for title, _ in screen.shown] == ["arcedge"] * 3
    for each, (_, image) in zip(frames, screen.shown, strict=True):
        np.testing.assert_array_equal(image, annotate(each.frame.image, each.decisions))
        assert len(np.unique(each.frame.image)) == 1, "the frame itself is left as it was"
    window.close()
    assert screen.windows == []


@pytest.mark.parametrize(
    ("frame", "window"), [((640, 360), (640, 360)), ((1920, 1080), (1280, 720)), ((480, 960), (360, 720))]
)
def test_a_window_opens_as_large_as_the_frames_and_no_larger_than_a_screen(
    screen: Screen, frame: tuple[int, int], window: tuple[int, int]
) -> None:
    shown = Window(lambda: None)
    for index in range(2):
        pixels = np.zeros((frame[1], frame[0], 3), np.uint8)
        shown.write(FrameResult(Frame(pixels, index, 0.0, "cam"), ()))
    assert screen.sizes == [window]


@pytest.mark.parametrize("key", [ord("q"), 27, 0x100000 | ord("q")])
def test_q_and_escape_in_the_window_end_the_run(screen: Screen, key: int) -> None:
    stopped: list[bool] = []
    window = Window(lambda: stopped.append(True))
    screen.keys = [-1, ord("x"), key]
    for i in range(2):
        window.write(result(i))
    assert stopped == []
    window.write(result(2))
    assert stopped == [True]


@pytest.mark.parametrize(("visible", "stops"), [([1, 1, 0], 1), ([0, 1, -1], 1), ([-1, -1, -1], 0), ([0, 0, 0], 0)])
def test_closing_the_window_ends_the_run_where_it_can_be_told(screen: Screen, visible: list[float], stops: int) -> None:
    stopped: list[bool] = []
    window = Window(lambda: stopped.append(True))
    for i, said in enumerate(visible):
        screen.visible = said
        assert not stopped
        window.write(result(i))
    assert len(stopped) == stops


def test_q_ends_edge_run_and_closes_the_window(
    screen: Screen, toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.write_video(tmp_path / "v.mp4", [toy.scene(160, 120, [(1, 20, 20)])] * 40)
    toy.write_scene(tmp_path / "people" / "ada.png", 160, 160, [(1, 40, 40)])
    base = ["--bundle", str(toy.path), "--gallery", str(tmp_path / "g")]
    assert command.main(["enroll", *base, str(tmp_path / "people")]) == 0
    screen.keys = [-1, -1, ord("q")]
    assert command.main(["run", *base, "--source", str(tmp_path / "v.mp4"), "--show"]) == 0
    assert 3 <= len(screen.shown) < 40
    assert f"{len(screen.shown)} frames in" in capsys.readouterr().out
    assert screen.windows == []


def test_the_progress_bar_prints_nothing_without_a_terminal() -> None:
    code = "from edge.sinks import Progress\np = Progress(5)\np.write(None)\np.close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_the_progress_bar_counts_frames_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = Progress(2)
    for index in range(2):
        time.sleep(0.12)  # a bar is drawn again after a tenth of a second
        bar.write(result(index))
    bar.close()
    for drawn in ("0/2", "1/2", "2/2"):
        assert drawn in terminal.getvalue()
