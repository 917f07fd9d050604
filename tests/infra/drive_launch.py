"""Runs the launcher with small programs as roles.

python drive_launch.py CONFIG '{"trainer": "<python code>", …}'
"""

import json
import os
import sys
from pathlib import Path

from infra.launcher.folder import role_environment
from infra.launcher.launch import launch
from infra.launcher.role_processes import Command
from rft.config import Config
from rft.config_sources import load_config
from rft.errors import RftError

PROGRAMS = json.loads(sys.argv[2])


def commands(config: Config, config_file: Path) -> dict[str, Command]:
    return {
        name: Command((sys.executable, "-c", code, str(config_file)), role_environment(config, os.environ, name))
        for name, code in PROGRAMS.items()
    }


try:
    code = launch(load_config(Path(sys.argv[1])), plain=True, fresh="--fresh" in sys.argv, make_commands=commands)
except RftError as error:
    sys.exit(f"rft: {error}")
sys.exit(code)
