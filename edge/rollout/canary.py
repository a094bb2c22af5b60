"""Which devices are canaries: a share of them, by a hash of their ids, so that nobody keeps a list."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from edge.errors import InputError

ENVIRONMENT = "ARCEDGE_DEVICE_ID"
MACHINE_ID = Path("/etc/machine-id")


def is_canary(device: str, digest: str, percent: float) -> bool:
    """Whether a device is among the first `percent` of all to take the bundle of this digest.

    The same answer every time; a larger share holds all of a smaller one; other bundles come to other devices first.
    """
    drawn = int.from_bytes(hashlib.sha256(f"{digest}:{device}".encode()).digest()[:8], "big")
    return drawn < percent / 100 * 2**64


def device_id(given: str | None = None) -> str:
    """What tells this device from others: as given, else $ARCEDGE_DEVICE_ID, else systemd's machine-id.

    It never leaves the device. Raises InputError where there is none.
    """
    if named := given or os.environ.get(ENVIRONMENT):
        return named
    try:
        text = MACHINE_ID.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        text = ""
    if not text:
        raise InputError(f"this device has no id: {MACHINE_ID} is missing; give --device-id, or set {ENVIRONMENT}")
    return text
