"""Prometheus metrics of a run, in a registry of their own. Names and labels are a promise: see docs/live.md.

Everything is read when somebody asks: a frame costs nothing for it. No label holds a person's name, and the values of
each are as many as there are sources, stages, sinks and states.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from edge import __version__
from edge.live.watched import Watched

CONTENT_TYPE = CONTENT_TYPE_LATEST

STAGE_BOUNDS_MS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)
"""Upper bounds of the latency histogram's buckets; counts are exact to 2 % of a bound."""


class Metrics:
    """What `/metrics` gives."""

    def __init__(self, watched: Watched) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_OfRun(watched))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class _OfRun(Collector):
    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def describe(self) -> Iterable[Metric]:
        return ()  # asked at registration, when no run is there yet

    def collect(self) -> Iterator[Metric]:
        yield from self._identity()
        yield from self._health()
        yield from self._frames()
        yield from self._faces()
        yield self._stages()
        yield from self._gallery()
        yield from self._sinks()

    def _identity(self) -> Iterator[Metric]:
        models = self._watched.models
        labels = {
            "version": __version__,
            "digest": models.digest,
            **{name: models.described.get(name, "") for name in ("detector", "landmarker", "embedder", "engine")},
        }
        info = GaugeMetricFamily("arcedge_bundle_info", "The bundle in use, always 1.", labels=[*labels])
        info.add_metric([*labels.values()], 1)
        yield info
        threshold = "Cosine similarity from which a face has a name."
        yield GaugeMetricFamily("arcedge_threshold_cosine", threshold, value=models.threshold)

    def _health(self) -> Iterator[Metric]:
        watched = self._watched
        healthy = "1 while every live source gives results, else 0; what /healthz says."
        yield GaugeMetricFamily("arcedge_healthy", healthy, value=not watched.troubles())
        up = GaugeMetricFamily("arcedge_source_up", "1 while a source gives results, else 0.", labels=["source"])
        age = GaugeMetricFamily(
            "arcedge_source_last_result_age_seconds", "Since a source's last result.", labels=["source"]
        )
        for source in watched.sources:
            up.add_metric([source.name], watched.state_of(source) == "running")
            age.add_metric([source.name], watched.board.age(source.name))
        yield from (up, age)

    def _frames(self) -> Iterator[Metric]:
        captured = CounterMetricFamily("arcedge_frames_captured", "Frames a source gave.", labels=["source"])
        done = CounterMetricFamily("arcedge_frames", "Frames decided on.", labels=["source"])
        dropped = CounterMetricFamily(
            "arcedge_frames_dropped",
            "Frames left out: a newer one came, too late, not decodable, or the engine failed.",
            labels=["source", "reason"],
        )
        again = CounterMetricFamily("arcedge_reconnects", "Times a lost stream came back.", labels=["source"])
        queue = GaugeMetricFamily("arcedge_frames_under_way", "Frames taken and not finished.", labels=["source"])
        under_way = self._watched.under_way()
        for source in self._watched.sources:
            name, counts = source.name, source.counts()
            figures = self._watched.summary().of(name)
            captured.add_metric([name], counts.frames)
            done.add_metric([name], figures.frames)
            reasons = {
                "newer": counts.dropped,
                "late": figures.late,
                "corrupt": counts.corrupt,
                "engine": figures.failed,
            }
            for reason, count in reasons.items():
                dropped.add_metric([name, reason], count)
            again.add_metric([name], counts.reconnects)
            queue.add_metric([name], under_way.get(name, 0))
        yield from (captured, done, dropped, again, queue)

    def _faces(self) -> Iterator[Metric]:
        faces = CounterMetricFamily("arcedge_faces", "Faces found.", labels=["source"])
        decided = CounterMetricFamily(
            "arcedge_decisions", "Faces by what was decided: known, unknown, pending.", labels=["source", "state"]
        )
        in_view = GaugeMetricFamily("arcedge_faces_in_view", "Faces of the newest frame.", labels=["source"])
        for source in self._watched.sources:
            decisions = self._watched.board.decisions(source.name)
            for state, count in decisions.items():
                decided.add_metric([source.name, state], count)
            faces.add_metric([source.name], sum(decisions.values()))
            newest = self._watched.board.sources[source.name].newest
            in_view.add_metric([source.name], 0 if newest is None else len(newest.decisions))
        yield from (faces, decided, in_view)

    def _stages(self) -> Metric:
        histogram = HistogramMetricFamily(
            "arcedge_stage_duration_seconds", "What a stage took, of each frame that had it.", labels=["stage"]
        )
        for stage, running in [*self._watched.summary().stages.items()]:
            latencies = running.copy()
            buckets = [(f"{bound / 1000:g}", float(latencies.within(bound))) for bound in STAGE_BOUNDS_MS]
            histogram.add_metric([stage], [*buckets, ("+Inf", float(latencies.count))], latencies.total / 1000)
        return histogram

    def _gallery(self) -> Iterator[Metric]:
        gallery = self._watched.gallery
        people = "People in the gallery."
        yield GaugeMetricFamily("arcedge_gallery_identities", people, value=gallery.identities)
        yield GaugeMetricFamily("arcedge_gallery_vectors", "Embeddings in the gallery.", value=gallery.vectors)
        readable = "1 while the gallery can be read, else 0."
        yield GaugeMetricFamily("arcedge_gallery_readable", readable, value=gallery.readable)

    def _sinks(self) -> Iterator[Metric]:
        results = CounterMetricFamily(
            "arcedge_sink_results",
            "Results and events by what came of them: lost, delivered, dropped (no room), refused (by the receiver).",
            labels=["sink", "outcome"],
        )
        waiting = GaugeMetricFamily("arcedge_sink_waiting", "Events kept for later.", labels=["sink"])
        for name, counts in self._watched.sinks().items():
            for outcome in ("lost", "delivered", "dropped", "refused"):
                results.add_metric([name, outcome], getattr(counts, outcome))
            waiting.add_metric([name], counts.waiting)
        yield from (results, waiting)
