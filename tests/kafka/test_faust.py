"""Faust reads and writes with our broker options, with and without security, also events of eight megabytes."""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path

import pytest
from secure_node import SecureNode

from infra.processes import last_lines, spawn, terminate
from rft.config import Config, LogConfig
from rft.config_sources import unmasked_environment
from rft.log.reader import EventReader
from rft.log.topics import ensure_topics
from rft.log.writer import EventWriter

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("listener", ["SASL_SSL", "MTLS"])
def test_a_faust_worker_copies_events(secure_node: SecureNode, listener: str, tmp_path: Path) -> None:
    log = LogConfig(namespace=f"test-{uuid.uuid4().hex[:8]}")
    config = Config(broker=secure_node.config(listener), log=log)
    ensure_topics(config)
    sent = {f"{n}".encode(): b"x" * size for n, size in enumerate([10, 1000, 8_000_000, 0, 7])}
    settings = tmp_path / "config.json"
    settings.write_text(config.model_dump_json())
    env = os.environ | unmasked_environment(config)
    command = [sys.executable, Path(__file__).with_name("faust_echo.py"), settings, tmp_path]
    worker = spawn(command, tmp_path / "log", env)
    received: dict[bytes | None, bytes | None] = {}
    with EventWriter(config, "writer") as writer, EventReader(config, "reader", ["dlq"]) as reader:
        for key, value in sent.items():
            writer.send_bytes("experiences", value, key=key)
        writer.flush()
        deadline = time.monotonic() + 60
        while len(received) < len(sent) and time.monotonic() < deadline and worker.poll() is None:
            received |= {event.key: event.value for event in reader.poll(0.2)}
    terminate(worker, 15)
    assert received == sent, "\n".join(last_lines(tmp_path / "log"))
