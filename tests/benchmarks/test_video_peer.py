from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.frames import load_frames
from benchmarks.peers.video import DECODE, Way, child, lines, measure, scaled_copy, ways
from benchmarks.precisions import Precisions
from edge.analyze import AnalyzerOptions
from edge.errors import InputError


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (320, 240))
    for i in range(12):
        writer.write(np.full((240, 320, 3), 20 * i, np.uint8))
    writer.release()
    return path


def test_a_video_is_scaled_down_and_keeps_its_frames(video: Path, tmp_path: Path) -> None:
    scaled_copy(video, 120, tmp_path / "small.mp4")
    frames = load_frames(tmp_path / "small.mp4", [], 100)
    assert frames.describe()["sizes"] == ["160×120"]
    assert len(frames.images) == 12
    assert load_frames(video, [], 100, height=120).source.endswith("scaled to 120 lines")
    assert load_frames(video, [], 100, height=1080).describe()["sizes"] == ["320×240"]


def test_decoding_alone_counts_every_frame(video: Path) -> None:
    found = child(DECODE, video, None)
    assert (found["frames"], found["faces"]) == (12, 0)
    assert found["cpu_ms_a_frame"] >= 0


def spinning(name: str, milliseconds: float) -> Way:
    """A process that says it took so long."""
    text = f'{{"cpu_ms_a_frame": {milliseconds}, "frames": 10, "faces": 20}}'
    return Way(name, "made up", ("-c", f"print('a word before'); print('{text}')"))


def test_decoding_is_taken_off_every_way_and_ratios_are_to_edge_run() -> None:
    figures = measure([spinning(DECODE, 2.0), spinning("edge run", 12.0), spinning("peer", 42.0)], turns=3)
    assert figures["edge run"]["cpu_ms_a_frame"] == {"value": 10.0, "low": 10.0, "high": 10.0}
    said = lines({"ways": figures})
    assert said[1].startswith(
        "peer: 40.00 ms CPU a frame beyond decoding [40.00, 40.00], 20 faces in 10 frames, 4.00 times"
    )


def test_a_way_that_fails_is_named() -> None:
    broken = Way("peer", "made up", ("-c", "import sys; sys.exit('no such model')"))
    with pytest.raises(InputError, match="peer could not be measured: no such model"):
        measure([broken], turns=1)


def test_edge_run_takes_the_arguments_it_is_given(tmp_path: Path) -> None:
    import argparse

    from edge.cli.run import VERB

    both = (Precisions("fp32"), Precisions("int8", "fp32"))
    for precisions in ((), both):
        asked = []
        for way in ways(tmp_path, tmp_path, tmp_path, tmp_path, ("insightface",), precisions):
            if way.arguments[:2] == ("-m", "edge"):
                parser = argparse.ArgumentParser()
                VERB.configure(parser)
                parsed = parser.parse_args(list(way.arguments[3:]))
                assert parsed.json_summary
                chosen = Precisions(parsed.precision, parsed.detector_precision) if parsed.precision else None
                asked.append(chosen)
                assert chosen is None or way.name.endswith(" " + " ".join(chosen.arguments))
        assert asked == [precision for precision in precisions or (None,) for _ in range(3)]


def test_precisions_are_one_for_all_or_one_for_each() -> None:
    import argparse

    assert [str(Precisions.parse(text)) for text in ("fp16", "int8/fp32")] == ["fp16", "int8/fp32"]
    assert Precisions.parse("int8/fp32") == Precisions("int8", "fp32")
    assert Precisions.parse("int8/fp32").options == AnalyzerOptions(precision="int8", detector_precision="fp32")
    for text in ("", "int4", "int8/", "int8/fp32/fp32"):
        with pytest.raises(argparse.ArgumentTypeError, match="as in int8/fp32"):
            Precisions.parse(text)


def test_frames_that_cannot_be_made_up_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-image, whose portrait they show, comes with no extra of a user's."""
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.delitem(sys.modules, "skimage.data", raising=False)
    with pytest.raises(InputError, match=r"name --video or --pictures: .* scikit-image, which is not"):
        load_frames(None, [])
