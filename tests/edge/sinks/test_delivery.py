"""What the delivery itself decides, whatever the way to the receiver is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from servers import until

from edge.sinks import delivery
from edge.sinks.delivery import Delivery, DeliveryError, RefusedError
from edge.sinks.spool import Spool, Spooled
from edge.sources.backoff import Backoff

QUICK = Backoff(0.02, 2.0, 0.1)


class Receiver:
    """Refuses what holds event `bad`, and is away at first for as many calls as it asks for time."""

    address = "receiver"
    batch = 8

    def __init__(self, bad: int = -1, away: Sequence[float] = ()) -> None:
        self._bad, self._away = bad, list(away)
        self.sent: list[int] = []

    def send(self, events: Sequence[Spooled]) -> None:
        if self._away:
            raise DeliveryError("away", retry_after=self._away.pop())
        self.sent.append(len(events))
        if any(event.entries["number"] == self._bad for event in events):
            raise RefusedError("no")

    def idle(self) -> None:
        return

    def close(self, seconds: float) -> None:
        return


def deliver(folder: Path, receiver: Receiver, events: int) -> Delivery:
    """Once all have arrived or were set aside."""
    spool = Spool(folder / "s.db")
    spool.put([{"source": "door", "number": number} for number in range(events)])
    made = Delivery("test", spool, receiver, QUICK)
    until(lambda: spool.waiting == 0)
    made.close(60.0)
    spool.close()
    return made


def test_batches_are_small_only_until_the_refused_event_is_found(tmp_path: Path) -> None:
    receiver = Receiver(bad=3)
    made = deliver(tmp_path, receiver, events=30)
    assert (made.delivered, made.refused) == (29, 1)
    assert receiver.sent == [8, 4, 2, 4, 2, 1, 2, 1, 1, 2, 4, 8, 8, 3]


def test_who_asks_for_too_much_time_is_asked_again_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "LONGEST_ASKED", 0.05)
    assert deliver(tmp_path, Receiver(away=[86_400.0]), events=1).delivered == 1
