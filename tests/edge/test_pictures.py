from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import InputError
from edge.pictures import find_pictures, read_picture


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)


def test_folders_are_walked_in_sorted_order_and_named_files_keep_theirs(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.png", "a/x.JPG", "z.png", "b/.hidden.png"):
        write(tmp_path / name, PIXELS)
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    found = [str(path.relative_to(tmp_path)) for path in find_pictures([tmp_path / "z.png", tmp_path])]
    assert found == ["z.png", "a/x.JPG", "b/10.png", "b/2.png", "z.png"]


def test_depth_and_colours_become_eight_bits_bgr(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_picture(write(tmp_path / "c.png", PIXELS)), PIXELS)
    grey = read_picture(write(tmp_path / "g.png", PIXELS[..., 0]))
    np.testing.assert_array_equal(grey, np.repeat(PIXELS[..., :1], 3, axis=2))
    deep = read_picture(write(tmp_path / "d.png", PIXELS.astype(np.uint16) * 257))
    np.testing.assert_array_equal(deep, PIXELS)
    clear = read_picture(write(tmp_path / "a.png", np.dstack([PIXELS, PIXELS[..., 0]])))
    np.testing.assert_array_equal(clear, PIXELS)


@pytest.mark.parametrize("data", [b"", b"text", None])
def test_what_is_no_picture_is_said_with_its_path(tmp_path: Path, data: bytes | None) -> None:
    file = tmp_path / "p.png"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(InputError, match=r"p\.png"):
        read_picture(file)


def test_a_cut_off_picture_is_refused_or_read_but_never_crashes(tmp_path: Path) -> None:
    whole = write(tmp_path / "w.png", np.zeros((200, 200, 3), np.uint8) + 77).read_bytes()
    for length in (8, 30, len(whole) // 2):
        (tmp_path / "cut.png").write_bytes(whole[:length])
        try:
            assert read_picture(tmp_path / "cut.png").shape == (200, 200, 3)
        except InputError:
            continue


def test_paths_without_pictures_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture in this folder"):
        find_pictures([tmp_path])
    with pytest.raises(InputError, match="no such file"):
        find_pictures([tmp_path / "none"])


def test_a_picture_is_refused_by_its_header_where_it_would_take_gigabytes(tmp_path: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 32768, 8193, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path = tmp_path / "bomb.png"
    path.write_bytes(data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    # In a process of its own: OpenCV reads its limit when it is loaded, as the command line sets it before.
    code = "import sys; from pathlib import Path; import edge.cli; from edge.pictures import read_picture\n"
    code += "read_picture(Path(sys.argv[1]))"
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    told = ended.stderr.strip().splitlines()[-1]
    assert told.endswith(
        f"{path}: has more pixels than are decoded; scale it down, or raise $OPENCV_IO_MAX_IMAGE_PIXELS"
    )
