"""Makes Kafka's scripts of which a folder with ``libs/`` holds only the classes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from infra.kafka_node import kafka_home
from rft.config import BrokerConfig

SCRIPTS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
}


def run_script(text: str, folder: Path, servers: str) -> str:
    """Run a shell script that calls Kafka's scripts, and return what it prints."""
    java = shutil.which("java")
    assert java is not None
    options = "-Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
    for name, tool in SCRIPTS.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {java} {options} -cp "{kafka_home(BrokerConfig())}/libs/*" {tool} "$@"\n')
        script.chmod(0o755)
    path = folder / "definitions.sh"
    path.write_text(text)
    done = subprocess.run(
        ["sh", path], env={"PATH": f"{folder}:/usr/bin:/bin", "BOOTSTRAP": servers}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
