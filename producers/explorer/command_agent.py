"""Runs a program as the agent of a rollout, in a folder, an environment and a process group of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from producers.explorer import command_guard
from producers.explorer.command_output import OutputTail, last_lines
from producers.gateway.open_session import OpenSession
from rft.config import RolloutConfig
from rft.errors import ConfigError, RolloutError
from rft.workers.output_pipe import CHUNK, OutputPipe
from rft.workflows.rollout import Outcome
from schemas.events import Task

POLL_S = 0.25
GRACE_S = 3.0
"""Time between SIGTERM and SIGKILL."""
END_S = 5.0
"""How long the guard may take after SIGKILL, and the last output after the program's end."""
PASSED_ON = (
    *("HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE"),
    *("SSL_CERT_DIR", "VIRTUAL_ENV"),
)
"""What programs see of the explorer's environment, beside PATH. No secret, and no proxy: a proxy would be asked for the
gateway's loopback address."""
MAX_VARIABLE_BYTES = 100_000
"""Linux allows 128 KiB for one variable."""
TASK_FILE = "task.json"


class CommandAgent:
    """Is an agent that ``rollout.command`` names."""

    def __init__(self, config: RolloutConfig) -> None:
        """Raises ConfigError if the program does not exist or a variable is not set."""
        self._environment = _environment(config.command_env)
        self._command = _absolute(config.command, self._environment["PATH"])
        self._output_bytes = config.command_output_kib * 1024

    async def run(self, task: Task, session: OpenSession) -> Outcome:
        """Run the program to its end. The outcome's metadata holds the end of its output.

        Raises RolloutError if it ends with another code than 0. Canceling ends its process group.
        """
        output = OutputTail(max(self._output_bytes, CHUNK))
        with _work_folder() as folder:
            variables = {**self._environment, **_variables(task, session, folder)}
            code = await self._end(folder, variables, output)
        text = output.text()
        if code:
            raise RolloutError(f"the program of rollout.command ended with {code}: {last_lines(text) or 'no output'}")
        return Outcome(metadata={"output": _last_bytes(text, self._output_bytes)} if self._output_bytes else {})

    async def _end(self, folder: Path, variables: Mapping[str, str], output: OutputTail) -> int:
        guard = [sys.executable, "-I", "-S", command_guard.__file__, str(GRACE_S)]
        pipe = OutputPipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *guard,
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=pipe.write_fd,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(variables),
                cwd=folder,
                start_new_session=True,
            )
        except BaseException:
            pipe.close()
            raise
        finally:
            pipe.started()
        reading = asyncio.create_task(_read(pipe, output))
        try:
            return await _exit_code(process)
        finally:
            await asyncio.shield(_finish(process, pipe, reading))


async def _exit_code(process: asyncio.subprocess.Process) -> int:
    """Return the exit code as soon as the process has ended. ``process.wait()`` also waits for the end of its pipe."""
    waiting = asyncio.create_task(process.wait())
    try:
        while process.returncode is None:
            await asyncio.wait([waiting], timeout=POLL_S)
        return process.returncode
    finally:
        waiting.cancel()


async def _read(pipe: OutputPipe, output: OutputTail) -> None:
    async for data in pipe.read():
        output.add(data)


async def _finish(process: asyncio.subprocess.Process, pipe: OutputPipe, reading: asyncio.Task[None]) -> None:
    """End the program if it still runs, and read its last output. It may print until it has ended."""
    assert process.stdin
    process.stdin.close()
    try:
        async with asyncio.timeout(GRACE_S + END_S):
            await _exit_code(process)
    except TimeoutError:
        process.kill()
        await _exit_code(process)
    # A process that has left the group may hold the output open.
    await asyncio.wait([reading], timeout=END_S)
    reading.cancel()
    pipe.close()


def _environment(added: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of all programs."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # "python" is the explorer's own Python, also if its virtual environment is not activated.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    for name, value in added.items():
        if value.startswith("$") and value[1:].isidentifier():
            if value[1:] not in os.environ:
                raise ConfigError(f"rollout.command_env: {name} is to be ${value[1:]}, which is not set: export it")
            value = os.environ[value[1:]]
        environment[name] = value
    return environment


def _absolute(command: Sequence[str], path: str) -> list[str]:
    """Return a command that works in any folder. Raises ConfigError if its program does not exist."""
    words = [str(Path(word).absolute()) if word and Path(word).is_file() else word for word in command]
    if shutil.which(words[0], path=path) is None:
        raise ConfigError(f"rollout.command: there is no program {command[0]!r} in {Path.cwd()} or in PATH")
    return words


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rft-agent-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _variables(task: Task, session: OpenSession, folder: Path) -> dict[str, str]:
    """Return what a program needs to know of its task and its session, and write the task's file."""
    text = json.dumps(asdict(task))
    file = folder / TASK_FILE
    file.write_text(text, encoding="utf-8")
    variables = {
        "OPENAI_BASE_URL": session.base_url,
        "OPENAI_API_KEY": session.api_key,
        "ANTHROPIC_BASE_URL": session.anthropic_base_url,
        "ANTHROPIC_API_KEY": session.api_key,
        "RFT_SESSION": session.name,
        "RFT_TASK_FILE": str(file),
    }
    return {**variables, "RFT_TASK": text} if len(text.encode()) <= MAX_VARIABLE_BYTES else variables


def _last_bytes(text: str, limit: int) -> str:
    return text.encode()[-limit:].decode("utf-8", "ignore")
