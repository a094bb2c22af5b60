"""What the stages took lately, from the run's histograms: the camera does nothing for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.statistics import Latencies

SECONDS = 15.0
"""How far back "lately" goes."""

STEP = 1.0
"""Seconds between two of the copies that are kept."""

Copies = dict[str, Latencies]


@dataclass(slots=True)
class RecentLatencies:
    """Call `of` now and then while somebody looks; after a pause it begins with the whole run."""

    _kept: deque[tuple[float, Copies]] = field(default_factory=deque)

    def of(self, stages: Mapping[str, Latencies], now: float) -> Copies:
        """Each stage's measurements of the last seconds; of a stage that had none, those of the whole run."""
        copies = {stage: latencies.copy() for stage, latencies in [*stages.items()]}
        while self._kept and now - self._kept[0][0] > SECONDS:
            self._kept.popleft()
        earlier = self._kept[0][1] if self._kept else {}
        if not self._kept or now - self._kept[-1][0] >= STEP:
            self._kept.append((now, copies))
        return {stage: _lately(latencies, earlier.get(stage)) for stage, latencies in copies.items()}


def _lately(whole: Latencies, earlier: Latencies | None) -> Latencies:
    if earlier is None:
        return whole
    since = whole.since(earlier)
    return since if since.count else whole
