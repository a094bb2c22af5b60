"""A user's mistake in any measuring command: one line that begins with its name, exit code 2, no traceback."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from benchmarks.command import command
from edge.errors import GateError, InputError

CHILDREN = {"benchmarks/resources.py", "benchmarks/gpu/roofline.py"}
"""Started by us alone, or for a look at a file."""


def test_every_measuring_command_ends_as_edge_does(repository: Path) -> None:
    bare, found = [], 0
    for path in sorted((repository / "benchmarks").rglob("*.py")):
        name = path.relative_to(repository).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body):
            continue
        mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
        marks = [ast.unparse(mark) for main in mains for mark in main.decorator_list]
        if name not in CHILDREN and not any(mark.startswith("command(") for mark in marks):
            bare.append(name)
        found += 1
    assert found > 20
    assert not bare, "a user's mistake is a traceback there: mark main with benchmarks.command.command"


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("camera", "--bundle nowhere --out o.json"),
        ("enrolment", "--bundle nowhere --identities people"),
        ("indexing", "--bundle nowhere --pictures people"),
        ("tracks", "--bundle nowhere --data nowhere --out o.json"),
        ("detection", "nowhere.onnx --data nowhere"),
        ("int8.__main__", "--weights nowhere --calibration nowhere --crops nowhere.zip --out o.json"),
    ],
)
def test_what_is_not_there_is_one_line(
    module: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [module, *words.split()])
    assert importlib.import_module(f"benchmarks.{module}").main() == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{module.partition('.')[0]}: ")
    assert "nowhere" in said
    assert len(said.strip().splitlines()) == 1


def test_exit_codes_are_those_of_the_error_and_bugs_keep_their_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.json"

    @command("measure")
    def main(arguments: list[str]) -> int | None:
        if arguments[0] == "gate":
            raise GateError("too little")
        if arguments[0] == "input":
            raise InputError("wrong")
        if arguments[0] == "ours":
            (tmp_path / "elsewhere.json").read_text()
        if arguments[0] == "stop":
            raise KeyboardInterrupt
        if arguments[0] == "read":
            Path(arguments[-1].removeprefix("--data=")).joinpath("a.json").read_text()
        return None

    assert [main([deed, str(mine)]) for deed in ("nothing", "input", "gate", "stop")] == [0, 2, 3, 130]
    assert capsys.readouterr().err == "measure: wrong\nmeasure: too little\nmeasure: stopped\n"
    for given in (str(mine), f"--data={mine}"):
        assert main(["read", given]) == 2
        told = f"measure: {mine / 'a.json'}: cannot be used (No such file or directory)\n"
        assert capsys.readouterr().err == told
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        main(["ours", str(mine)])
