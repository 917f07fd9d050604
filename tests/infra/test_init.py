"""What ``rft init`` writes: projects whose own tests pass and whose configurations load; nothing is overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.init.project import TEMPLATES, write_project
from rft.config_sources import load_config
from rft.errors import ConfigError

ROOT = Path(__file__).parents[2]


def run_in(folder: Path, *command: str, code: int = 0) -> str:
    """Run a command in a project's folder, with this checkout's packages."""
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_each_template_is_described_and_its_pages_name_its_files() -> None:
    folders = {path.name for path in (ROOT / "infra/init/templates").iterdir() if path.is_dir()}
    assert folders == set(TEMPLATES)
    for name in folders:
        files = {path.name for path in (ROOT / "infra/init/templates" / name).iterdir() if path.is_file()}
        assert {"README.md", "run.toml", "make_data.py"} < files
        readme = (ROOT / "infra/init/templates" / name / "README.md").read_text()
        assert all(f"`{file}`" in readme for file in files - {"README.md"}), name


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_a_new_projects_own_tests_pass_and_its_configuration_loads(template: str, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    files = write_project(folder, template)
    assert load_config(folder / "run.toml").policy.model == "data/model"
    output = run_in(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "2 passed" in output
    assert {path.name for path in files} == {path.name for path in folder.iterdir()} - {"__pycache__"}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("mine")
    with pytest.raises(ConfigError, match=r"has run.toml already. Nothing was written"):
        write_project(tmp_path, "math")
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]
    assert (tmp_path / "run.toml").read_text() == "mine"
    with pytest.raises(ConfigError, match="is a file"):
        write_project(tmp_path / "run.toml", "math")
    (tmp_path / "with_other_files").mkdir()
    (tmp_path / "with_other_files" / "notes.txt").touch()
    assert write_project(tmp_path / "with_other_files", "math")


def test_an_unknown_template_lists_what_there_is(tmp_path: Path) -> None:
    rft = str(Path(sys.executable).with_name("rft"))
    output = run_in(tmp_path, rft, "init", "project", "--template", "maths", code=2)
    assert "did you mean math?" in output
    assert all(name in output for name in TEMPLATES)
    assert not (tmp_path / "project").exists()
