"""A function of one's own is found by its name, or the message says which part of the name is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from rft.errors import ConfigError
from rft.plugins import is_plugin, load


def test_a_function_is_loaded_by_module_and_name() -> None:
    assert load("rft.plugins:load") is load


def test_a_file_in_the_working_directory_needs_no_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_the_config.py").write_text("def double(x): return 2 * x\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    assert load("beside_the_config:double")(4) == 8


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("exact", "write package.module:function"),
        ("a b:c", "write package.module:function"),
        ("jsonl:data/train.jsonl", "write package.module:function"),
        ("no_such_package.rewards:mine", "No module named 'no_such_package'"),
        ("rft.plugins:no_such_function", "has no 'no_such_function'"),
        ("rft.plugins:__name__", "is a str, not a function"),
    ],
)
def test_a_wrong_name_is_a_configuration_error_that_says_what_is_wrong(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(name)


def test_code_that_fails_while_imported_is_named_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "explodes_on_import.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="importing 'explodes_on_import' failed: ZeroDivisionError"):
        load("explodes_on_import:anything")


def test_names_of_sources_are_not_taken_for_functions() -> None:
    assert is_plugin("my.tasks:words")
    assert not is_plugin("jsonl:train.jsonl")
    assert not is_plugin("single_turn")
