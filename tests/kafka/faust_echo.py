"""Copies `experiences` to `dlq` with a Faust worker. test_faust.py runs it: faust_echo.py CONFIG_JSON DATA_DIR"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import faust
from mode import Worker

from consumers.processors.faust_backend.app import broker_options
from rft.config_sources import environment_layer, resolve
from rft.log.topics import topic_name

# Secrets are masked in the file. They come from the environment, as in a role.
layers = [(sys.argv[1], json.loads(Path(sys.argv[1]).read_text())), ("the environment", environment_layer(os.environ))]
config = resolve(layers)
app = faust.App("echo", datadir=sys.argv[2], store="memory://", value_serializer="raw", **broker_options(config))
source = app.topic(topic_name(config, "experiences"), value_type=bytes, value_serializer="raw", key_serializer="raw")
sink = app.topic(topic_name(config, "dlq"), value_type=bytes, value_serializer="raw", key_serializer="raw")


@app.agent(source)
async def echo(stream: faust.types.StreamT) -> None:
    async for event in stream.events():
        await sink.send(key=event.key, value=event.value)


if __name__ == "__main__":
    Worker(app, loglevel="WARN").execute_from_commandline()
