from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.analyze import FaceAnalyzer
from edge.embedding_files import embed_pictures
from edge.errors import InputError
from edge.verification import verify


def test_every_picture_keeps_a_row_in_its_order(toy: Any, tmp_path: Path) -> None:
    first = toy.write_scene(tmp_path / "a.png", 200, 200, [(1, 40, 48)])
    empty = toy.write_scene(tmp_path / "b.png", 200, 200, [])
    broken = tmp_path / "c.png"
    broken.write_bytes(b"broken")
    group = toy.write_scene(tmp_path / "d.png", 400, 300, [(1, 16, 16), (2, 168, 120), (3, 320, 200)])
    pictures, said = [first, empty, broken, group], []
    with FaceAnalyzer(toy.bundle) as analyzer:
        main = embed_pictures(analyzer, pictures, unreadable=said.append)
        every = embed_pictures(analyzer, pictures, all_faces=True, unreadable=said.append)
    assert main.path.tolist() == [str(path) for path in pictures]
    assert main.found.tolist() == [True, False, False, True]
    assert not main.embedding[1].any()
    assert not main.box[2].any()
    np.testing.assert_allclose(main.box[0], [40, 48, 104, 112], atol=9)
    np.testing.assert_allclose(main.box[3], [168, 120, 232, 184], atol=9)
    assert every.path.tolist() == [str(path) for path in (first, empty, broken, group, group, group)]
    assert every.found.tolist() == [True, False, False, True, True, True]
    np.testing.assert_allclose(np.linalg.norm(every.embedding[every.found], axis=1), 1, atol=1e-5)
    similar = sorted(every.embedding[3:] @ main.embedding[0])
    assert similar[-1] > 0.9 > 0.7 > similar[-2]
    assert len(said) == 2
    assert "c.png" in said[0]

    every.save(tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert set(file) == {"path", "box", "landmarks", "score", "embedding", "found"}
        for name in file:
            np.testing.assert_array_equal(file[name], getattr(every, name))
            assert len(file[name]) == 6
        assert file["landmarks"].shape == (6, 5, 2)
    assert not list(tmp_path.glob(".out*"))
    with pytest.raises(
        InputError,
        match=r"cannot be written \((Is a directory|Not a directory|No such file or directory|File exists)\)$",
    ):
        every.save(tmp_path / "none" / "out.npz")


def test_verification_tells_one_person_from_two(toy: Any, tmp_path: Path) -> None:
    a = toy.write_scene(tmp_path / "a.png", 200, 200, [(1, 40, 48)])
    b = toy.write_scene(tmp_path / "b.png", 260, 200, [(1, 104, 24)])
    c = toy.write_scene(tmp_path / "c.png", 200, 200, [(2, 40, 48)])
    with FaceAnalyzer(toy.bundle) as analyzer:
        assert verify(analyzer, a, b, 0.8).same
        assert not verify(analyzer, a, c, 0.8).same
        assert verify(analyzer, a, a, 1.0 - 1e-5).similarity == pytest.approx(1, abs=1e-5)
        with pytest.raises(InputError, match=r"e\.png: no face found"):
            verify(analyzer, a, toy.write_scene(tmp_path / "e.png", 200, 200, []), 0.8)
