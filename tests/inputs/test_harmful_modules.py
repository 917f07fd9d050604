"""A user's module may hang, end its process, crash or print: the checks name it and go on or end."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.preflight.contract import Finding
from infra.preflight.process import find
from rft.config import Config
from rft.plugins import FOLDERS_VARIABLE


def findings(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch, limit_s: float = 120.0) -> list[Finding]:
    (folder / "mine.py").write_text(code + "\ndef score(response, answer): return 1.0\n")
    monkeypatch.setenv(FOLDERS_VARIABLE, str(folder))
    config = Config.model_validate(
        {"processor": {"rewards": [{"function": "mine:score"}]}, "run": {"folder": folder / "runs"}}
    )
    return list(find(config, ["processor"], limit_s=limit_s))


@pytest.mark.parametrize(
    "code",
    [
        "import time\nwhile True: time.sleep(1)",
        "while True: pass",
        "import threading\nthreading.Event().wait()",
        "import subprocess\nsubprocess.run(['sleep', '1000'])",
    ],
)
def test_a_module_that_hangs_is_named_with_its_line(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, last = findings(tmp_path, code, monkeypatch, limit_s=10)
    assert last.level == "fail"
    assert last.what.startswith("the check of the rewards has not ended after 10 s: it stands at ")
    assert last.what.endswith("mine.py:2" if "\n" in code and "while" not in code else last.what[-9:])
    assert str(tmp_path / "mine.py") in last.what


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os\nos._exit(0)", "exit code 0"),
        ("import os\nos._exit(3)", "exit code 3"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "signal SIGKILL"),
        ("import os\nos.abort()", "signal SIGABRT"),
    ],
)
def test_a_module_that_ends_its_process_is_named(
    code: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, last = findings(tmp_path, code, monkeypatch)
    assert (last.level, last.exit_code) == ("fail", 2)
    assert last.what.startswith(f"the check of the rewards ended its process ({how})")


@pytest.mark.parametrize(
    "code",
    [
        "print('{\"done\": true}' * 100_000)",
        'import os\nos.write(1, b\'{"level": "fail"}\\n\' * 1000)',
        "import sys\nsys.stdout.close()",
        "import os\nos.close(1)\nos.close(2)",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()",
        "import atexit, time\natexit.register(time.sleep, 1000)",
        "import os\nos.chdir('/')",
    ],
)
def test_a_module_that_prints_closes_or_lingers_does_no_harm(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = findings(tmp_path, code, monkeypatch)
    assert [finding.text for finding in found if finding.level != "ok"] == []
    assert found[-1].what == "rewards mine:score"
