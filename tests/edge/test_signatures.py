from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from edge.signatures import (
    NOT_RECORDED,
    PictureSignature,
    calibration_pictures,
    from_entry,
    sign_picture,
    to_entry,
)

_hex = st.characters(codec="ascii", categories=(), include_characters="0123456789abcdef")
SIGNATURES = st.builds(
    PictureSignature, st.text(_hex, min_size=64, max_size=64), st.text(_hex, min_size=16, max_size=16)
)


def test_a_picture_encoded_again_is_near_and_another_is_not(tmp_path: Path) -> None:
    astronaut = pytest.importorskip("skimage.data").astronaut
    image = cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    cv2.imwrite(str(tmp_path / "b.jpg"), cv2.resize(image, (300, 300), interpolation=cv2.INTER_AREA))
    cv2.imwrite(str(tmp_path / "c.png"), image[:256, 200:])
    first, again, part = (sign_picture(tmp_path / name) for name in ("a.png", "b.jpg", "c.png"))
    assert first.sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert first.near(again)
    assert first.sha256 != again.sha256
    assert not first.near(part)


def test_a_file_that_is_no_picture_has_no_signature(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="not a picture"):
        sign_picture(tmp_path / "a.png")


@given(st.lists(SIGNATURES, max_size=6))
def test_an_entry_gives_back_every_picture_once_in_order_of_digest(signatures: list[PictureSignature]) -> None:
    entry = to_entry([*signatures, *signatures])
    assert list(from_entry(entry)) == sorted(set(signatures))
    if signatures:
        assert entry["files"] == sorted(entry["files"])
    else:
        assert entry == {"files": NOT_RECORDED, "phash": NOT_RECORDED}


def test_roles_without_a_record_are_left_out() -> None:
    one = PictureSignature("ab" * 32, "cd" * 8)
    provenance = {"calibration": {"embedder": {"count": 3, **to_entry([one])}, "detector": {"count": 3}}}
    assert calibration_pictures(provenance) == {"embedder": (one,)}
    assert calibration_pictures({}) == {}


@pytest.mark.parametrize(
    "entry",
    [
        {"files": ["ab" * 32], "phash": []},
        {"files": ["ab" * 31], "phash": ["cd" * 8]},
        {"files": ["ab" * 32], "phash": ["CD" * 8]},
        {"files": 3, "phash": 4},
    ],
)
def test_a_damaged_entry_is_refused(entry: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"belong together|no signature"):
        from_entry(entry)
