"""A camera of the toy world that runs as `edge run --serve` would, and a visitor of its page."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.analyze import FaceAnalyzer
from edge.gallery import Binding, Gallery, Snapshot
from edge.live.address import Address
from edge.live.page import LivePage, Opening, PageOptions
from edge.live.token import Token
from edge.live.watched import Models
from edge.pipeline import Pipeline, Stream
from edge.sources.live import LiveSource
from edge.tracking import Tracker, TrackerOptions
from edge.tracking.evidence import EvidenceOptions
from edge.types import Image

KNOWN, STRANGER = 1, 9
NAME = "Ada Ærø 彩"
"""Somebody whose name no font of OpenCV's holds."""


class ToyCamera:
    """25 frames a second, of one picture that may be changed; none at all while it is None."""

    fps = 25.0
    length = 0

    def __init__(self, picture: Image) -> None:
        self.picture: Image | None = picture

    def read(self) -> tuple[Image, float]:
        time.sleep(0.04)
        while (picture := self.picture) is None:
            time.sleep(0.01)
        return picture, time.time()

    def close(self) -> None:
        self.picture = np.zeros((8, 8, 3), np.uint8) if self.picture is None else self.picture


def grainy(scene: Image) -> Image:
    """As a camera sees it: without its grain a toy face counts as blurred. The patch that is looked for stays."""
    grain = np.random.default_rng(0).normal(0, 14, scene.shape)
    seen = np.clip(scene + grain, 0, 255).astype(np.uint8)
    return np.where((scene == (255, 0, 0)).all(axis=2, keepdims=True), scene, seen)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Rig:
    """A running camera. gallery: where its people are."""

    page: LivePage
    camera: ToyCamera
    gallery: Path

    @property
    def url(self) -> str:
        return self.page.address.url

    def ask(
        self, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: str | None = None
    ) -> Answer:
        """What the server answers; headers given as None are left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.page.address.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def post(self, path: str, entries: Any, headers: dict[str, str] | None = None) -> Answer:
        return self.ask(path, {"Content-Type": "application/json", **(headers or {})}, "POST", json.dumps(entries))

    def wait(self, condition: Callable[[Any], bool]) -> Any:
        """The page's state once it fulfils a condition."""
        end = time.monotonic() + 60
        while True:
            state = self.ask("/api/state").json
            if condition(state):
                return state
            assert time.monotonic() < end, state
            time.sleep(0.03)


Start = Callable[..., Any]


@pytest.fixture
def start(toy: Any, tmp_path: Path) -> Start:
    """Starts a camera before which a known person and a stranger stand; a context manager that gives the rig."""

    @contextmanager
    def started(
        token: Token | None = None, names: tuple[str, ...] = (), stale_after: float = 60.0, port: int = 0
    ) -> Iterator[Rig]:
        with ExitStack() as opened:
            analyzer = opened.enter_context(FaceAnalyzer(toy.bundle))
            gallery_at = tmp_path / "gallery"
            portrait = toy.scene(160, 160, [(KNOWN, 48, 48)])
            with Gallery.open_or_create(gallery_at, Binding.of(analyzer.embedder_variant)) as gallery:
                gallery.add(NAME, analyzer.embed(analyzer.align(portrait, analyzer.detect(portrait))), ["portrait"])
            read: list[Callable[[], Snapshot]] = []
            camera = ToyCamera(grainy(toy.scene(480, 320, [(KNOWN, 40, 120), (STRANGER, 240, 80)])))
            source = opened.enter_context(LiveSource(lambda: camera, "door <b>"))
            options = PageOptions(Address("127.0.0.1", port), token, names, stale_after)
            page = LivePage(options, [source], lambda: read[0](), toy.threshold)
            pipeline = Pipeline([analyzer], page.gallery, toy.threshold, [page.board])
            models = Models(toy.bundle.digest(), analyzer.describe(), toy.threshold)
            opening = Opening(lambda: FaceAnalyzer(toy.bundle), lambda: Gallery.open(gallery_at))
            opened.enter_context(page.of(pipeline, models, opening))
            tracker = Tracker(TrackerOptions(EvidenceOptions(toy.threshold)))

            def run() -> None:
                with Gallery.open(gallery_at) as gallery:
                    read.append(gallery.snapshot)
                    pipeline.run_streams([Stream(source, tracker)])

            running = threading.Thread(target=run)
            running.start()
            try:
                yield Rig(page, camera, gallery_at)
            finally:
                camera.close()
                source.stop()
                running.join(timeout=60)
                assert not running.is_alive()

    return started


@pytest.fixture
def rig(start: Start) -> Iterator[Rig]:
    """A camera on loopback, without a token."""
    with start() as started:
        yield started
