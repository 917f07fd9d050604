"""An agent as a program of its own. The task's metadata ("mood") says how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any


def ask(text: str) -> str:
    body: dict[str, Any] = {"model": "m", "max_tokens": 6, "messages": [{"role": "user", "content": text}]}
    request = urllib.request.Request(
        f"{os.environ['OPENAI_BASE_URL']}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
    )
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


task = json.loads(Path(os.environ["RFT_TASK_FILE"]).read_text())
assert json.loads(os.environ["RFT_TASK"]) == task
mood = json.loads(task["metadata"]).get("mood")
print("\x1b[31manswer\x1b[0m", len(ask(task["prompt"])))
Path("scratch").write_text("x")
print("folder", Path.cwd(), sorted(path.name for path in Path.cwd().iterdir()))
print("sees", os.environ.get("RFT_TEST_SECRET"), os.environ.get("PASSED"), flush=True)
marks = Path(os.environ.get("MARKS", "."))
if mood == "fail":
    print("Traceback: it was the tool", file=sys.stderr)
    sys.exit(7)
if mood == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (marks / f"{os.getpid()}").write_text(str(child.pid))
    time.sleep(600)
if mood == "die" and not (marks / "died").exists():
    (marks / "died").write_text("")
    os.kill(os.getpid(), signal.SIGKILL)
