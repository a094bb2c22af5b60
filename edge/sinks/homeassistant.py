"""Topics of MQTT, and what Home Assistant is told of them, so that sources appear there by themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge import __version__
from edge.errors import InputError


def level_of(name: str) -> str:
    """A name as one level of a topic or subject: letters, digits, - and _."""
    return re.sub(r"[^\w-]+", "_", name, flags=re.ASCII).strip("_") or "_"


@dataclass(frozen=True, slots=True)
class Topics:
    """All topics of one box. Raises InputError where two of its sources would have the same."""

    prefix: str
    device: str
    sources: Sequence[str]

    def __post_init__(self) -> None:
        levels = [level_of(source) for source in self.sources]
        for level, source in zip(levels, self.sources, strict=True):
            if levels.count(level) > 1:
                raise InputError(f"--source {source}: would share the topic {level!r}; name it: --source NAME={source}")

    @property
    def availability(self) -> str:
        """Retained: `online` or `offline`."""
        return f"{self.prefix}/{level_of(self.device)}/availability"

    def state(self, source: str) -> str:
        """Retained: who is there."""
        return f"{self.prefix}/{level_of(self.device)}/{level_of(source)}/state"

    def event(self, source: str) -> str:
        """Not retained: what happened."""
        return f"{self.prefix}/{level_of(self.device)}/{level_of(source)}/event"


def discovery(topics: Topics, prefix: str) -> dict[str, bytes]:
    """Topics and retained payloads that make entities of each source: occupancy, the people's names, unknown people.

    The format is that of https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery.
    """
    told: dict[str, bytes] = {}
    for source in topics.sources:
        name = f"arcedge_{level_of(topics.device)}_{level_of(source)}"
        for entity in _entities(source):
            kind, key = entity.pop("kind"), entity.pop("key")
            config = {
                **entity,
                "unique_id": f"{name}_{key}",
                "state_topic": topics.state(source),
                "availability_topic": topics.availability,
                "device": {
                    "identifiers": [f"arcedge_{level_of(topics.device)}"],
                    "name": topics.device,
                    "manufacturer": "arcedge",
                    "sw_version": __version__,
                },
            }
            told[f"{prefix}/{kind}/{name}_{key}/config"] = json.dumps(config, ensure_ascii=False).encode()
    return told


def _entities(source: str) -> list[dict[str, Any]]:
    return [
        {
            "kind": "binary_sensor",
            "key": "occupancy",
            "name": f"{source} occupancy",
            "device_class": "occupancy",
            "value_template": "{{ 'ON' if value_json.count > 0 else 'OFF' }}",
        },
        {
            "kind": "sensor",
            "key": "people",
            "name": f"{source} people",
            "icon": "mdi:account-group",
            # A state in Home Assistant holds 255 characters at most.
            "value_template": "{{ (value_json.people | join(', ') or 'nobody')[:255] }}",
        },
        {
            "kind": "sensor",
            "key": "unknown",
            "name": f"{source} unknown people",
            "icon": "mdi:account-question",
            "state_class": "measurement",
            "value_template": "{{ value_json.unknown }}",
        },
    ]
