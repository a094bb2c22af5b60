from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.contract import ModelContract
from edge.errors import ContractError, InputError

EMBEDDER: dict[str, Any] = {
    "role": "embedder",
    "size": [112, 112],
    "color": "rgb",
    "mean": [127.5, 127.5, 127.5],
    "std": [128, 128, 128],
    "embedding_size": 512,
    "template": "arcface-112",
}


def test_a_contract_survives_its_dictionary_and_keeps_its_digest() -> None:
    contract = ModelContract.from_dict(EMBEDDER)
    again = ModelContract.from_dict(contract.to_dict())
    assert again.digest() == contract.digest()
    assert again.size == (112, 112)


@pytest.mark.parametrize(
    ("entry", "value"), [("color", "bgr"), ("mean", [0, 0, 0]), ("embedding_size", 128), ("layout", "nchw")]
)
def test_whatever_changes_how_a_model_is_fed_changes_the_digest(entry: str, value: object) -> None:
    assert ModelContract.from_dict({**EMBEDDER, entry: value}).digest() != ModelContract.from_dict(EMBEDDER).digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "oracle"}, "role is 'oracle'"),
        ({"role": None}, "role is None"),
        ({"color": "hsv"}, "one of bgr, rgb"),
        ({"dtype": "int4"}, "dtype"),
        ({"size": [0, 112]}, "size is"),
        ({"size": "112"}, "size"),
        ({"std": [1, 0, 1]}, "std above 0"),
        ({"mean": [1, 2]}, "three values"),
        ({"mean": "abc"}, "three values"),
        ({"mean": [0, float("nan"), 0]}, "three values"),
        ({"stride": 0}, "stride"),
        ({"embedding_size": 0}, "embedding_size"),
        ({"template": "mine"}, "known: arcface-112"),
        ({"colour": "rgb"}, "unknown entry 'colour'"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        ModelContract.from_dict({**EMBEDDER, **change})


def test_a_role_is_needed() -> None:
    with pytest.raises(ContractError, match="role is missing"):
        ModelContract.from_dict({})


def test_a_toml_file_of_a_third_party_model_means_float32_nchw(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        'role = "embedder"\nsize = [112, 112]\ncolor = "rgb"\nmean = [1.0, 2.0, 3.0]\nstd = [4.0, 5.0, 6.0]\n'
        'embedding_size = 128\ntemplate = "arcface-112"\n'
    )
    contract = ModelContract.from_toml(file)
    assert (contract.layout, contract.dtype, contract.mean) == ("nchw", "float32", (1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, InputError, "cannot be read"),
        ("role = ", InputError, "not a TOML file"),
        ('role = "embedder"', ContractError, "size and embedding_size"),
    ],
)
def test_a_bad_contract_file_is_said_with_its_path(
    tmp_path: Path, text: str | None, error: type[Exception], message: str
) -> None:
    file = tmp_path / "c.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(error, match=rf"c\.toml: .*{message}"):
        ModelContract.from_toml(file)
