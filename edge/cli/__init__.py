"""The command line `edge`."""

from __future__ import annotations

import os

# One thread a pool, cores go to pipeline workers: on a busy two-core machine a BLAS pool of two turns a match of 0.3
# milliseconds into 24. It counts only if set before NumPy is loaded, which happens after this package is.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Pixels of a picture, by its header, before anything is decoded: OpenCV's own limit is four times that, and a PNG of
# 3 MB takes 6 GB of memory then. Cameras make up to 200 million. It counts only if set before OpenCV is loaded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 28))
