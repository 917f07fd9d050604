"""Keeps what libraries log from hiding our own lines."""

from __future__ import annotations

import logging
import sys

from rft.telemetry.notes import OWN_PACKAGES

_NOISY = (
    "kafka",
    "aiokafka",
    "faust",
    "mode",
    "transformers",
    "urllib3",
    "asyncio",
    "filelock",
    "DeepSpeed",
    "httpx",
    "uvicorn",
)
"""Libraries that may log warnings only: their notices of every reconnection would hide our own lines."""


def quiet_libraries() -> None:
    """Let libraries log only what matters to an operator."""
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It warns of every 0.1 s in which its thread did not get the processor.
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)
    # It sets its own level when it is imported, and then warns that there is no accelerator.
    logging.getLogger("DeepSpeed").addFilter(_only_errors)


def log_for_a_command() -> None:
    """Print our own warnings and errors to stderr, and nothing of libraries: they raise what a command cannot solve."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.addFilter(_only_own)
    logging.getLogger().handlers[:] = [handler]
    quiet_libraries()


def _only_own(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in OWN_PACKAGES


def _only_errors(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
