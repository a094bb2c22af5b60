from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from training.data import Dataset, Photo, read_dataset
from training.duplicates import Groups, read_groups
from training.splits import crossing_groups, group_split, published_split, read_split, write_tables


def _made_up(sizes: list[list[int]]) -> tuple[Dataset, Groups]:
    """sizes[i][j]: photos of group j of identity i."""
    groups = [
        tuple(f"p{i}/{j:02}_{k:02}" for k in range(size))
        for i, person in enumerate(sizes)
        for j, size in enumerate(person)
    ]
    photos = sorted(path for group in groups for path in group)
    return Dataset(Path("set"), tuple(Photo(path, path) for path in photos)), tuple(sorted(groups))


@given(
    sizes=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=30), min_size=2, max_size=5),
    seed=st.integers(0, 2**31),
    fractions=st.sampled_from([(0.6, 0.15, 0.25), (0.9, 0.05, 0.05), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0)]),
)
def test_no_group_crosses_nothing_is_lost_and_everybody_is_learned(
    sizes: list[list[int]], seed: int, fractions: tuple[float, float, float]
) -> None:
    dataset, groups = _made_up(sizes)
    split = group_split(dataset, groups, seed, fractions)
    assert crossing_groups(split, groups) == ()
    assert sorted(split.train + split.valid + split.test) == [photo.path for photo in dataset.photos]
    for i, person in enumerate(sizes):
        count = {
            part: len({path.split("_")[0] for path in getattr(split, part) if path.startswith(f"p{i}/")})
            for part in ("train", "valid", "test")
        }
        assert count["train"] >= 1
        if len(person) >= 3 and fractions[1] and fractions[2]:
            assert min(count.values()) >= 1
        for part, fraction in zip(("train", "valid", "test"), fractions, strict=True):
            assert abs(count[part] - fraction * len(person)) <= 2
        if fractions[2] == 0:
            assert count["test"] == 0


def test_the_seed_decides() -> None:
    dataset, groups = _made_up([[1] * 20, [2] * 15])
    assert group_split(dataset, groups, 1) == group_split(dataset, groups, 1)
    assert group_split(dataset, groups, 1).test != group_split(dataset, groups, 2).test


def test_fractions_that_are_none_are_refused() -> None:
    dataset, groups = _made_up([[1], [1]])
    for fractions in [(0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (1.5, -0.5, 0.0)]:
        with pytest.raises(InputError, match="fractions"):
            group_split(dataset, groups, 0, fractions)


def _write_tables(folder: Path, **parts: str) -> None:
    folder.mkdir(exist_ok=True)
    for part, rows in parts.items():
        (folder / f"{part}.csv").write_text(",Image,Label\n" + rows)


def test_published_tables(tmp_path: Path) -> None:
    dataset, _ = _made_up([[1, 1, 1], [1, 1]])
    folder = tmp_path / "tables"
    _write_tables(folder, train="3,00_00,p0\n0,00_00,p1\n8,gone,p1\n", valid="1,01_00,p0\n", test="2,01_00,p1\n")
    split = published_split(folder, dataset)
    assert (split.train, split.valid, split.test) == (("p0/00_00", "p1/00_00"), ("p0/01_00",), ("p1/01_00",))
    assert split.warnings[0] == "tables/train.csv: p1/gone is not in the data set"
    assert split.warnings[1].startswith("1 photos of the data set are in no part")
    _write_tables(folder, valid="1,00_00,p0\n")
    with pytest.raises(InputError, match="p0/00_00 in two parts"):
        published_split(folder, dataset)
    (folder / "valid.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="columns Image and Label"):
        published_split(folder, dataset)
    (folder / "valid.csv").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        published_split(folder, dataset)


def test_a_split_written_down_comes_back_also_from_a_card(tmp_path: Path) -> None:
    dataset, groups = _made_up([[2, 1, 3, 1], [1, 1, 1]])
    split = group_split(dataset, groups, 7)
    plain, card = tmp_path / "split.json", tmp_path / "card.json"
    plain.write_text(json.dumps(split.to_dict()))
    card.write_text(json.dumps({"split": split.to_dict(), "metrics": {}}))
    assert read_split(plain, dataset) == split
    write_tables(split, tmp_path / "tables")
    again = published_split(tmp_path / "tables", dataset)
    assert (again.train, again.valid, again.test, again.warnings) == (split.train, split.valid, split.test, ())
    assert read_split(card, dataset) == split


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "not a JSON file"),
        ("[]", "not a split"),
        ('{"train": ["p0/00_00"], "valid": []}', "not a split"),
        ('{"train": ["p0/00_00", "p1/zz"], "valid": [], "test": []}', "p1/zz the first"),
        ('{"train": ["p0/00_00"], "valid": [], "test": []}', "no training photo of p1"),
        ('{"train": ["p0/00_00", "p1/00_00"], "valid": ["p0/00_00"], "test": []}', "in two parts"),
    ],
)
def test_split_files_that_do_not_fit_are_refused(tmp_path: Path, content: str, match: str) -> None:
    dataset, _ = _made_up([[1], [1]])
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(InputError, match=match):
        read_split(tmp_path / "split.json", dataset)


@pytest.mark.realdata
def test_the_published_avengers_split_leaks_and_ours_does_not(shared_data: Path) -> None:
    folder = shared_data / "data/avengers"
    dataset = read_dataset(folder / "cropped_images")
    groups = read_groups(folder / "near_duplicate_groups.json", dataset)
    published = published_split(folder / "seed_split", dataset)
    assert (len(published.train), len(published.valid), len(published.test)) in {(245, 14, 14), (246, 14, 13)}
    assert len(crossing_groups(published, groups)) > 5
    ours = group_split(dataset, groups, 0)
    assert crossing_groups(ours, groups) == ()
    assert {path.split("/")[0] for path in ours.test} == set(dataset.identities)
