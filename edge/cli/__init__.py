"""The command line `edge`."""

from __future__ import annotations

import os

# One thread a pool, cores go to pipeline workers: on a busy two-core machine a BLAS pool of two turns a match of 0.3
# milliseconds into 24. It counts only if set before NumPy is loaded, which happens after this package is.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
