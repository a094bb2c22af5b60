"""The command line from outside: exit codes, one-line errors, what lands on disk and on standard output."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from servers import until

from edge.cli import main as command
from edge.cli.verb import Verb

RUNTIME = ("enroll", "gallery", "run", "embed", "verify", "doctor")


LOADED_BY_OTHERS = {"edge.cli.run", "edge.cli.enroll", "training.cli", "export.cli", "benchmarks.cli", "email", "numpy"}


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def edge(*arguments: object) -> Done:
    """Runs a command in this process: what it prints and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command.main([str(argument) for argument in arguments])
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def world(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of persons 1 and 2 by folder, a gallery of them, and a video in which 1 and a stranger walk."""
    root = tmp_path_factory.mktemp("world")
    for person in (1, 2):
        for i in range(2):
            toy.write_scene(root / "people" / f"p{person}" / f"{i}.png", 200, 200, [(person, 40 + 3 * i, 48)])
    frames = [toy.scene(320, 200, [(1, 2 * i, 24), (9, 200, 120)]) for i in range(40)]
    toy.write_video(root / "walk.mp4", frames)
    done = edge("enroll", "--bundle", toy.path, "--gallery", root / "gallery", root / "people")
    assert done.returncode == 0, done.stderr
    assert "p1: 2 new of 2" in done.stdout
    return root


def test_help_lists_every_verb_and_each_has_an_example() -> None:
    done = subprocess.run([sys.executable, "-m", "edge", "--help"], capture_output=True, text=True, check=True)
    for verb in command.find_verbs():
        assert f"\n    {verb.name} " in done.stdout
    for verb in command.find_verbs():
        if verb.name in RUNTIME:
            assert verb.example.startswith(f"edge {verb.name}")


def test_a_verb_is_found_alone_and_is_the_one_registered() -> None:
    every = {verb.name: verb for verb in command.find_verbs()}
    for name, verb in every.items():
        assert command.find_verbs(name) == [verb]
    for name in ("options", "main", "no.module", "-h", ""):
        assert [verb.name for verb in command.find_verbs(name)] == [*every]


def test_a_camera_loads_no_other_verb() -> None:
    script = "import sys; from edge.cli.main import find_verbs; find_verbs('run'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"edge.cli.run"} == {name for name in done.stdout.split() if name in LOADED_BY_OTHERS}


def test_no_verb_prints_the_help_and_an_unknown_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    assert "commands" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        command.main(["fly"])
    assert caught.value.code == 2


def test_a_verb_whose_packages_are_missing_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = Verb("cook", "cooks", lambda parser: None, lambda args: 0, requires=("json", "no_such_thing"), extra="food")
    monkeypatch.setattr(command, "find_verbs", lambda *_: [verb])
    assert command.main(["cook"]) == 2
    assert capsys.readouterr().err == (
        "edge cook: no_such_thing is not installed; install it with: pip install 'arcedge[food]'\n"
    )


@pytest.mark.parametrize("lines", [1, 10_000])  # the buffer alone, and more than it holds
def test_a_full_disk_behind_standard_output_is_told_in_one_line(lines: int) -> None:
    script = (
        "import sys; from edge.cli import main as command; from edge.cli.verb import Verb\n"
        f"verb = Verb('cook', 'cooks', lambda parser: None, lambda args: print('soup\\n' * {lines}) or 0)\n"
        "command.find_verbs = lambda *_: [verb]; sys.exit(command.main(['cook']))"
    )
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.stderr == "edge cook: the disk is full (standard output); make room\n"
    assert ended.returncode == 2


@pytest.mark.parametrize(
    ("raised", "code", "said"), [(KeyboardInterrupt, 130, "edge cook: stopped\n"), (BrokenPipeError, 0, "")]
)
def test_an_interrupt_and_a_closed_pipe_end_quietly(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    raised: type[BaseException],
    code: int,
    said: str,
) -> None:
    def run(_: object) -> int:
        raise raised

    monkeypatch.setattr(command, "find_verbs", lambda *_: [Verb("cook", "cooks", lambda parser: None, run)])
    monkeypatch.setattr(command.os, "dup2", lambda *_: None)
    assert command.main(["cook"]) == code
    assert capfd.readouterr().err == said


def test_an_interrupt_while_modules_are_imported_ends_quietly_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_verbs(*_: object) -> list[Verb]:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "find_verbs", find_verbs)
    assert command.main(["cook"]) == 130
    assert capsys.readouterr().err == "edge: stopped\n"


def test_an_interrupt_while_the_command_itself_is_imported_ends_quietly_too() -> None:
    script = (
        "import runpy, sys\n"
        "class Pressed:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'argparse': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed()); sys.modules.pop('argparse', None)\n"
        "runpy.run_module('edge', run_name='__main__', alter_sys=True)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "edge: stopped\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("run", "--workers", "0"), "edge run: argument --workers: 0 is not 1 or more; see: edge run --help"),
        (("bench", "--out", "r", "--long-side", "5"), "argument --long-side: 5 pixels are too few: the least is 32"),
        (("gallery", "forget", "people"), "one of the arguments name --number is required; see: edge gallery forget"),
        (("train", "detector"), "edge train detector: the following arguments are required: --data"),
        (("doctor", "--cook"), "edge doctor: unrecognized arguments: --cook; see: edge doctor --help"),
        (
            ("gallery", "list", "p", "--cook", "it"),
            "edge gallery list: unrecognized arguments: --cook it; see: edge gallery list",
        ),
        (("cook",), "edge: argument COMMAND: invalid choice: 'cook'"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_line(
    words: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert line in said.err


def test_what_lies_in_a_folder_of_somebody_else_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container or a unit runs as another user than who made the folder. Without a path it is no word of ours."""
    denied = [
        PermissionError(13, "Permission denied", "/data/my.bundle"),
        PermissionError(1, "Operation not permitted"),
    ]

    def run(_: object) -> int:
        raise denied.pop(0)

    monkeypatch.setattr(command, "find_verbs", lambda *_: [Verb("cook", "cooks", lambda parser: None, run)])
    assert command.main(["cook"]) == 2
    assert capsys.readouterr().err == "edge cook: /data/my.bundle: this user may not open it (Permission denied)\n"
    with pytest.raises(PermissionError):
        command.main(["cook"])


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(command, "find_verbs", lambda *_: [Verb("cook", "cooks", lambda parser: None, run)])
    with pytest.raises(ZeroDivisionError):
        command.main(["cook"])


def test_a_run_writes_events_video_and_summary(toy: Any, world: Path, tmp_path: Path) -> None:
    done = edge(
        *("run", "--bundle", toy.path, "--gallery", world / "gallery", "--source", world / "walk.mp4"),
        *("--events", tmp_path / "e.jsonl", "--video", tmp_path / "v.mp4", "--json-summary"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert len(events) == 80
    for event in events:
        walker = event["box"][1] < 72
        assert event["identity"] == ("p1" if walker and event["frame"] >= 3 else None) or event["frame"] < 3
        assert event["track"]["number"] == (1 if walker else 2) or event["frame"] == 0
        assert event["threshold"] == toy.threshold
    assert {event["track"]["state"] for event in events} == {"pending", "known", "unknown"}
    summary = json.loads(done.stdout)
    assert (summary["frames"], summary["faces"], summary["tracks"]) == (40, 80, 2)
    assert summary["people"]["p1"]["frames"] >= 37
    assert summary["models"]["engine"] == "onnxruntime"
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 40


def test_a_run_counts_as_faces_what_reaches_the_score_named(toy: Any, world: Path) -> None:
    """The toy's faces have a score a little below 1."""
    words = ("run", "--bundle", toy.path, "--gallery", world / "gallery", "--source", world / "walk.mp4")
    faces = []
    for score in ("0.99", "1"):
        done = edge(*words, "--detection-score", score, "--json-summary")
        assert (done.returncode, done.stderr) == (0, "")
        faces.append(json.loads(done.stdout)["faces"])
    assert faces == [80, 0]


def test_events_on_standard_output_are_nothing_but_events(toy: Any, world: Path) -> None:
    arguments = ("--bundle", toy.path, "--gallery", world / "gallery", "--source", world / "walk.mp4")
    done = edge("run", *arguments, "--events", "-", "--max-frames", 3, "--no-tracking", "--workers", 2)
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["frame"] for event in events] == [0, 0, 1, 1, 2, 2]
    assert sorted(str(event["identity"]) for event in events) == ["None"] * 3 + ["p1"] * 3
    assert all("track" not in event for event in events)
    assert "3 frames" in done.stderr


def test_several_sources_share_a_run_and_have_a_video_each(toy: Any, world: Path, tmp_path: Path) -> None:
    done = edge(
        *("run", "--bundle", toy.path, "--gallery", world / "gallery", "--source", f"door={world / 'walk.mp4'}"),
        *("--source", world / "walk.mp4", "--events", tmp_path / "e.jsonl", "--video", tmp_path / "v.mp4"),
        *("--max-frames", 5, "--json-summary"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert {event["source"] for event in events} == {"door", str(world / "walk.mp4")}
    summary = json.loads(done.stdout)
    assert [figures["frames"] for figures in summary["sources"].values()] == [5, 5]
    videos = sorted(tmp_path.glob("v.*"))
    assert len(videos) == 2
    assert videos[0].name == "v.door.mp4"
    assert all(cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 5 for video in videos)


def test_pictures_of_a_folder_are_told_to_others_and_shown_on_the_page(toy: Any, world: Path, tmp_path: Path) -> None:
    """Each under the name of its source, with the file beside it: a topic, a lane and a label belong to the source."""
    told: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["events"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = edge(
            *("run", "--bundle", toy.path, "--gallery", world / "gallery", "--source", f"album={world / 'people'}"),
            *("--webhook", f"http://127.0.0.1:{server.server_port}/hook", "--spool", tmp_path / "spool"),
            *("--events", tmp_path / "e.jsonl", "--serve", "127.0.0.1:0", "--json-summary"),
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    files = sorted(str(path) for path in (world / "people").rglob("*.png"))
    for events in (told, lines):
        assert [event["picture"] for event in events] == files
        assert {event["source"] for event in events} == {"album"}
        assert [event["identity"] for event in events] == ["p1", "p1", "p2", "p2"]
    assert {event["type"] for event in told} == {"picture"}


def test_a_run_over_pictures_none_of_which_can_be_read_is_a_mistake(toy: Any, world: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("hello")
    arguments = ("run", "--bundle", toy.path, "--gallery", world / "gallery", "--source")
    for source in (tmp_path, tmp_path / "a.jpg"):
        done = edge(*arguments, source)
        assert done.returncode == 2
        assert f"{source}: none of 1 pictures can be read" in done.stderr
    toy.write_scene(tmp_path / "b.png", 200, 200, [(1, 40, 48)])
    assert edge(*arguments, tmp_path).returncode == 0


def test_a_file_is_no_place_for_a_gallery(toy: Any, world: Path, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    done = edge("enroll", "--bundle", toy.path, "--gallery", file, world / "people")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{file}: no gallery can be made here (File exists); name a folder" in done.stderr
    assert file.read_text() == "mine"


def test_a_replay_is_run_from_the_command_line(
    toy: Any, world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toy.write_scene(tmp_path / "p1.png", 96, 96, [(1, 16, 16)])
    plan = tmp_path / "trouble.toml"
    plan.write_text(
        'length = "2m"\nsize = [160, 96]\nfps = 1\n'
        '[[show]]\npicture = "p1.png"\nheight = 1.0\nfor = "2m"\n'
        '[[trouble]]\nkind = "disconnect"\nat = "30s"\nfor = "10s"\n'
    )
    arguments = ("run", "--bundle", toy.path, "--gallery", world / "gallery", "--source", f"cam=replay://{plan}")
    done = edge(*arguments, "--json-summary")
    summary = json.loads(done.stdout)
    assert done.returncode == 0
    assert caplog.records[0].message == "cam: gives no frame; trying again"
    assert (summary["reconnects"], list(summary["people"])) == (1, ["p1"])
    assert summary["seconds"] == pytest.approx(120, abs=2)
    for extra, message in (
        (("--source", world / "walk.mp4"), "run them apart"),
        (("--workers", 2), "leave --workers out"),
    ):
        refused = edge(*arguments, *extra)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert message in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_everything_whole(
    toy: Any, world: Path, tmp_path: Path, number: signal.Signals
) -> None:
    toy.write_video(tmp_path / "long.mp4", [toy.scene(320, 200, [(1, i % 200, 24)]) for i in range(400)])
    events = tmp_path / "e.jsonl"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "edge", "run", "--bundle", toy.path, "--gallery", world / "gallery"),
            *("--source", tmp_path / "long.mp4", "--realtime", "--events", events, "--video", tmp_path / "v.mp4"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: process.poll() is not None or (events.exists() and events.read_text().count("\n") >= 10))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    lines = events.read_text()
    assert lines.endswith("\n")
    frames = {json.loads(line)["frame"] for line in lines.splitlines()}
    assert f"{len(frames)} frames in" in out
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == len(frames)


def test_enrolment_is_told_as_json_and_goes_to_the_same_gallery(toy: Any, world: Path, tmp_path: Path) -> None:
    toy.write_scene(tmp_path / "in" / "p3.png", 200, 200, [(3, 40, 40)])
    toy.write_scene(tmp_path / "in" / "p4.png", 200, 200, [])
    done = edge("enroll", "--bundle", toy.path, "--gallery", tmp_path / "g", tmp_path / "in", "--json")
    report = {entry["name"]: entry for entry in json.loads(done.stdout)["people"]}
    assert report["p3"]["added"] == 1
    assert report["p4"]["added"] == 0
    assert report["p4"]["warnings"][0]["problem"] == "no face"
    done = edge(
        *("enroll", "--bundle", toy.path, "--gallery", tmp_path / "g"),
        *("--camera", world / "walk.mp4", "--name", "p1", "--seconds", "1"),
    )
    assert done.returncode == 2
    assert "exactly one face" in done.stderr


def test_pictures_that_are_given_with_a_name_are_of_one_person(toy: Any, world: Path, tmp_path: Path) -> None:
    pictures = world / "people" / "p1"
    base = ("enroll", "--bundle", toy.path, "--gallery", tmp_path / "g", "--name", "ada lovelace")
    done = edge(*base, pictures / "0.png")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "ada lovelace: 1 new of 1")
    done = edge(*base, pictures / "0.png", pictures / "1.png")
    assert done.stdout.splitlines()[0] == "ada lovelace: 1 new of 2"
    assert edge(*base, pictures).stdout.splitlines()[0] == "ada lovelace: 0 new of 2"
    listed = json.loads(edge("gallery", "list", tmp_path / "g", "--json").stdout)
    assert [(person["name"], person["embeddings"]) for person in listed["people"]] == [("ada lovelace", 2)]


def test_a_gallery_is_looked_after(toy: Any, world: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert edge("gallery", "export", world / "gallery", tmp_path / "g.npz").returncode == 0
    for target in (one, two):
        assert "4 embeddings added" in edge("gallery", "import", target, tmp_path / "g.npz").stdout
    listed = json.loads(edge("gallery", "list", one, "--json").stdout)
    assert [(person["name"], person["embeddings"]) for person in listed["people"]] == [("p1", 2), ("p2", 2)]
    assert edge("gallery", "rename", one, "p1", "ada").returncode == 0
    assert "2 embeddings" in edge("gallery", "merge", one, "p2", "ada").stdout
    shown = json.loads(edge("gallery", "show", one, "ada", "--json").stdout)
    assert len(shown["embeddings"]) == 4
    number = shown["embeddings"][0]["number"]
    assert edge("gallery", "forget", one, "--number", number).returncode == 0
    assert "with 3 embeddings" in edge("gallery", "forget", one, "ada").stdout
    assert "0 people" in edge("gallery", "list", one).stdout
    refused = edge("gallery", "forget", two, "nobody")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_embeddings_and_verdicts_come_from_the_same_line(toy: Any, world: Path, tmp_path: Path) -> None:
    done = edge("embed", "--bundle", toy.path, world / "people", "--out", tmp_path / "e.npz", "--json")
    assert json.loads(done.stdout) == {"pictures": 4, "faces": 4, "without_face": 0, "out": str(tmp_path / "e.npz")}
    with np.load(tmp_path / "e.npz") as file:
        vectors = file["embedding"]
    people = world / "people"
    for other, same in ((people / "p1" / "1.png", True), (people / "p2" / "0.png", False)):
        done = edge("verify", "--bundle", toy.path, people / "p1" / "0.png", other, "--json")
        verdict = json.loads(done.stdout)
        assert (done.returncode, verdict["same"], verdict["threshold"]) == (0, same, toy.threshold)
        assert verdict["similarity"] == pytest.approx(float(vectors[0] @ vectors[1 if same else 2]), abs=1e-5)


def test_verify_says_which_of_several_faces_it_took_or_refuses(toy: Any, world: Path, tmp_path: Path) -> None:
    alone = world / "people" / "p1" / "0.png"
    group = toy.write_scene(tmp_path / "group.png", 400, 300, [(2, 16, 16), (1, 168, 120), (3, 320, 200)])
    for pictures in ((alone, group), (group, alone)):
        done = edge("verify", "--bundle", toy.path, *pictures, "--json")
        verdict = json.loads(done.stdout)
        assert (done.returncode, verdict["same"]) == (0, True)
        assert verdict["faces"] == [1 if picture == alone else 3 for picture in pictures]
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"edge verify: {group}: 3 faces; ")
        (left, right), (top, bottom) = re.findall(r"[xy] (\d+) to (\d+)", line)
        np.testing.assert_allclose([int(value) for value in (left, top, right, bottom)], [168, 120, 232, 184], atol=9)
    refused = edge("verify", "--bundle", toy.path, alone, group, "--strict")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == f"edge verify: {group}: 3 faces; cut out the one meant, or leave --strict out\n"
    done = edge("verify", "--bundle", toy.path, alone, alone, "--strict")
    assert (done.returncode, done.stderr) == (0, ""), "nothing is said of a picture with one face"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "--bundle", "nowhere", "a", "b"], "no bundle here"),
        (["verify", "--bundle", "{toy}", "nowhere.png", "b"], "cannot be read"),
        (["verify", "--bundle", "{toy}", "--engine", "warp", "a", "b"], "no engine is called 'warp'"),
        (["verify", "--bundle", "{toy}", "--precision", "int8", "a", "b"], "no int8 embedder"),
        (["run", "--bundle", "{toy}", "--gallery", "nowhere", "--source", "x"], "no gallery here"),
        (["run", "--bundle", "{toy}", "--gallery", "{gallery}", "--source", "x"], "no such file, folder or camera"),
        (
            ["run", "--bundle", "{toy}", "--gallery", "{gallery}", "--source", "{video}", "--events", "/no/e"],
            "cannot be written",
        ),
        (["enroll", "--bundle", "{toy}", "--gallery", "g"], "either pictures or --camera"),
        (["enroll", "--bundle", "{toy}", "--gallery", "g", "--camera", "0", "{people}"], "either pictures or --camera"),
        (["enroll", "--bundle", "{toy}", "--gallery", "g", "--camera", "0"], "say it with --name"),
        (["enroll", "--bundle", "{toy}", "--gallery", "g", "nowhere"], "no such folder"),
        (["enroll", "--bundle", "{toy}", "--gallery", "g", "{picture}"], "say it with --name"),
        (["enroll", "--bundle", "{toy}", "--gallery", "g", "a", "b"], "one person, named with --name"),
        (["enroll", "--bundle", "{toy}", "--gallery", "g", "--name", "eve", "nowhere"], "no such file or folder"),
        (["enroll", "--bundle", "{toy}", "--gallery", "g", "--name", "eve", "{people}"], "as of several people"),
        (["embed", "--bundle", "{toy}", "nowhere", "--out", "x.npz"], "no such file"),
        (["embed", "--bundle", "{toy}", "{people}", "--out", "no/x.npz"], "does not exist"),
        (["gallery", "list", "nowhere"], "no gallery here"),
        (["gallery", "show", "{gallery}", "eve"], "nobody here is called 'eve'"),
        (["gallery", "import", "g", "nowhere.npz"], "not an exported gallery"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    toy: Any,
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"toy": toy.path, "gallery": world / "gallery", "video": world / "walk.mp4", "people": world / "people"}
    places["picture"] = world / "people" / "p1" / "0.png"
    assert command.main([argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"edge {arguments[0]}: ")
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--max-frames", "0"],
        ["run", "--size", "12"],
        ["run", "--size", "0x5"],
        ["verify", "--threshold", "1.5"],
        ["enroll", "--seconds", "-1"],
        ["embed", "--detection-score", "0"],
        ["index", "--detection-score", "1.2"],
    ],
)
def test_arguments_out_of_range_are_refused_by_the_parser(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert arguments[1] in capsys.readouterr().err


def test_a_gallery_of_another_bundle_is_refused(
    toy: Any, world: Path, own_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "ada.png").write_text("no picture")
    assert command.main(["enroll", *_over(toy.path, tmp_path / "g"), str(tmp_path / "people")]) == 2
    manifest = json.loads((own_bundle / "bundle.json").read_text())
    manifest["variants"][1]["contract"]["std"] = [2, 2, 2]
    (own_bundle / "bundle.json").write_text(json.dumps(manifest))
    source = str(world / "walk.mp4")
    arguments = ["run", "--bundle", str(own_bundle), "--gallery", str(world / "gallery"), "--source", source]
    assert command.main(arguments) == 2
    assert "holds vectors of embedder-fp32" in capsys.readouterr().err
    assert command.main(["enroll", *_over(own_bundle, tmp_path / "g"), str(world / "people")]) == 2
    assert "holds nobody, but was made for embedder-fp32" in capsys.readouterr().err


def _over(bundle: Path, gallery: Path) -> list[str]:
    return ["--bundle", str(bundle), "--gallery", str(gallery)]


def test_the_doctor_speaks_json() -> None:
    findings = json.loads(edge("doctor", "--json").stdout)
    assert {"area", "name", "usable", "detail"} == set(findings[0])


def test_a_missing_threshold_is_noticed_before_a_model_is_opened(
    own_bundle: Path, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((own_bundle / "bundle.json").read_text())
    for variant in manifest["variants"]:
        variant.pop("threshold", None)
    (own_bundle / "bundle.json").write_text(json.dumps(manifest))

    def opened(*_: Any) -> None:
        raise AssertionError("an engine may take minutes to build")

    monkeypatch.setattr("edge.analyze.FaceAnalyzer.__init__", opened)
    bundle = ["--bundle", str(own_bundle)]
    runs = ["run", *bundle, "--gallery", str(world / "gallery"), "--source", str(world / "walk.mp4")]
    for arguments in (runs, ["verify", *bundle, "a.png", "b.png"]):
        assert command.main(arguments) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert said.endswith("states no threshold for embedder-fp32; give one with --threshold")
