from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from edge.errors import InputError
from edge.metrics.pairs import Pair, PairRows, images_of, read_identities, read_pairs

GOOD = "2\t1\nAnn_Lee\t1\t4\nAnn_Lee\t1\tBob\t2\nBob\t2\t10\nBob\t3\tCy\t1\n"


def pairs_file(folder: Path, text: str) -> Path:
    file = folder / "pairs.txt"
    file.write_text(text, encoding="utf-8")
    return file


def test_pairs_and_their_folds(tmp_path: Path) -> None:
    pairs = read_pairs(pairs_file(tmp_path, GOOD))
    assert [(pair.same, pair.fold) for pair in pairs] == [(True, 0), (False, 0), (True, 1), (False, 1)]
    assert pairs[0].second == PurePosixPath("Ann_Lee/Ann_Lee_0004.jpg")
    assert pairs[2].second == PurePosixPath("Bob/Bob_0010.jpg")
    assert pairs[3].second == PurePosixPath("Cy/Cy_0001.jpg")


def test_one_number_is_one_fold_and_blanks_serve_as_tabs(tmp_path: Path) -> None:
    pairs = read_pairs(pairs_file(tmp_path, "1\nAnn 1 2\nAnn 1 Bob 1\n"))
    assert [(pair.same, pair.fold) for pair in pairs] == [(True, 0), (False, 0)]


def test_pairs_become_rows_of_the_embeddings_of_their_pictures() -> None:
    a, b, c = (PurePosixPath(name) for name in ("Ada/Ada_0001.jpg", "Ada/Ada_0002.jpg", "Bo/Bo_0001.jpg"))
    rows = PairRows.of([Pair(c, a, False, 0), Pair(a, b, True, 3)], {b: 0, a: 1, c: 2})
    assert rows.first.tolist() == [2, 1]
    assert rows.second.tolist() == [1, 0]
    assert rows.same.tolist() == [False, True]
    assert rows.folds.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: a pairs file begins with"),
        ("folds\t300\n", ":1: a pairs file begins with"),
        (GOOD.replace("2\t1\n", "3\t1\n"), "6 lines; there are 4"),
        (GOOD.replace("\t4\n", "\tfour\n"), ":2: 'four' is no picture number"),
        (GOOD.replace("Ann_Lee\t1\t4", "Ann_Lee\t1"), ":2: a line has 3 entries"),
        (GOOD.replace("Ann_Lee\t1\t4", "Ann_Lee\t1\tBob\t4"), ":2: a pair of one person belongs here"),
        (GOOD.replace("Bob\t3\tCy\t1", "Bob\t3\t1"), ":5: a pair of two people belongs here"),
        (GOOD.replace("Ann_Lee\t1\t4", "Ann_Lee\t1\t1"), ":2: a picture is paired with itself"),
        (GOOD.replace("Cy", "../Cy"), ":5: '../Cy' is no name"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_pairs(pairs_file(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_pairs(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match="cannot be read"):
        read_pairs(tmp_path / "binary")


def test_pictures_are_found_also_with_another_suffix_and_missing_ones_counted(tmp_path: Path) -> None:
    pairs = read_pairs(pairs_file(tmp_path, GOOD))
    for name in ("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0004.png", "Bob/Bob_0002.jpg", "Bob/Bob_0003.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"2 of 6 pictures of the pairs are missing, first Bob/Bob_0010\.jpg"):
        images_of(pairs, tmp_path)
    for name in ("Bob/Bob_0010.jpg", "Cy/Cy_0001.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = images_of(pairs, tmp_path)
    assert found[PurePosixPath("Ann_Lee/Ann_Lee_0004.jpg")] == tmp_path / "Ann_Lee/Ann_Lee_0004.png"
    assert len(found) == 6
    with pytest.raises(InputError, match="no such folder"):
        images_of(pairs, tmp_path / "none")


def test_identities_are_folders_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.JPG", "a/x.jpeg", "a/notes.txt", "a/.hidden.jpg", ".git/y.jpg", "loose.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    images = read_identities(tmp_path)
    assert [(image.identity, image.path.name) for image in images] == [("a", "x.jpeg"), ("b", "1.JPG"), ("b", "2.png")]
    with pytest.raises(InputError, match="2 identities with pictures, 3 are needed"):
        read_identities(tmp_path, min_identities=3)
    with pytest.raises(InputError, match="no such folder"):
        read_identities(tmp_path / "none")


@pytest.mark.realdata
def test_lfws_own_file(shared_data: Path) -> None:
    folder = shared_data / "data" / "lfw"
    pairs = read_pairs(folder / "pairs.txt")
    assert len(pairs) == 3000
    assert [sum(pair.fold == fold for pair in pairs) for fold in range(5)] == [600] * 5
    assert sum(pair.same for pair in pairs) == 1500
    assert len(images_of(pairs, folder / "images")) == 3811
