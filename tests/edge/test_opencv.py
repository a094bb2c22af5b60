"""Which OpenCV the device side runs on: from 4.5.4, which is Ubuntu's on a Jetson of JetPack 6."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

GUARDED = frozenset({"CAP_PROP_N_THREADS", "utils.logging"})
"""Younger than OpenCV 4.6, and asked for with hasattr."""

IN_4_5_4 = frozenset(
    """
BORDER_CONSTANT CAP_FFMPEG CAP_GSTREAMER CAP_PROP_FOURCC CAP_PROP_FPS CAP_PROP_FRAME_COUNT CAP_PROP_FRAME_HEIGHT
CAP_PROP_FRAME_WIDTH CAP_PROP_OPEN_TIMEOUT_MSEC CAP_PROP_POS_MSEC CAP_PROP_READ_TIMEOUT_MSEC CAP_V4L2 COLOR_BGR2GRAY
COLOR_YUV2BGR_NV12 CV_64F FONT_HERSHEY_SIMPLEX GaussianBlur IMREAD_COLOR IMWRITE_JPEG_QUALITY INTER_AREA INTER_CUBIC
INTER_LINEAR LINE_AA Laplacian VideoCapture VideoWriter VideoWriter.fourcc WINDOW_GUI_NORMAL WINDOW_NORMAL
WND_PROP_VISIBLE __version__ circle copyMakeBorder cvtColor dct destroyAllWindows error getBuildInformation
getTextSize getWindowProperty imdecode imencode imshow invertAffineTransform namedWindow putText rectangle resize
resizeWindow setNumThreads utils waitKey warpAffine
""".split()  # noqa: SIM905 - a list that is pasted and read as words
)
"""Of the names the device side uses, those that OpenCV 4.5.4 has. A new one is looked up there before it is added:
`pip install opencv-python-headless==4.5.4.60 'numpy<2'` on Python 3.10."""


def names_in(source: str) -> set[str]:
    """What is asked of cv2, one or two names deep for its modules."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cv2":
            found.add(node.attr)
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Attribute)
            and isinstance(node.value.value, ast.Name)
            and node.value.value.id == "cv2"
        ):
            found.add(f"{node.value.attr}.{node.attr}")
    return found


def test_the_device_side_asks_nothing_of_opencv_that_an_old_one_lacks(repository: Path) -> None:
    used = set[str]()
    for path in (repository / "edge").rglob("*.py"):
        used |= names_in(path.read_text(encoding="utf-8"))
    assert used - IN_4_5_4 - GUARDED == set()
    assert used >= IN_4_5_4, "no longer used: take them out of the list"


def test_an_opencv_without_what_came_later_opens_files(tmp_path: Path) -> None:
    script = """
import cv2, sys
for place, name in ((cv2, "CAP_PROP_N_THREADS"), (cv2.utils, "logging")):
    if hasattr(place, name):
        delattr(place, name)
from pathlib import Path
import numpy as np
from edge.sources.capture import open_video_file
writer = cv2.VideoWriter(sys.argv[1], cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
for _ in range(3):
    writer.write(np.zeros((48, 64, 3), np.uint8))
writer.release()
print(open_video_file(Path(sys.argv[1]), "film").read()[0].shape)
"""
    film = tmp_path / "film.avi"
    done = subprocess.run([sys.executable, "-c", script, str(film)], capture_output=True, text=True, check=False)
    assert done.stdout == "(48, 64, 3)\n", done.stderr
