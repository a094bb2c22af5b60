"""SHA-256 without OpenSSL: the same digests, and a process that opens a bundle does not load it."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.digests import _OWN, sha256

OWN = any(importlib.util.find_spec(name) for name in ("_sha2", "_sha256"))


@given(st.binary(max_size=300))
def test_digests_are_those_of_hashlib(data: bytes) -> None:
    assert _OWN(data).hexdigest() == sha256(data).hexdigest() == hashlib.sha256(data).hexdigest()


@pytest.mark.skipif(not OWN, reason="this Python has no SHA-256 of its own")
def test_openssl_is_not_loaded_to_open_a_bundle(own_bundle: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from edge.analyze import FaceAnalyzer; from edge.bundle import Bundle\n"
        "FaceAnalyzer(Bundle.open(Path(sys.argv[1]))).close(); print('_hashlib' in sys.modules)"
    )
    words = [sys.executable, "-c", script, str(own_bundle)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
