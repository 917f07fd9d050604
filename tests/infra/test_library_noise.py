"""What libraries log does not reach the terminal of a command, and our own warnings do."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import logging
from infra.library_noise import log_for_a_command
log_for_a_command()
for name in ("kafka.conn", "transformers.modeling_utils", "DeepSpeed", "faust.worker"):
    logging.getLogger(name).error("closing socket of %s", name)
deepspeed = logging.getLogger("DeepSpeed")
deepspeed.setLevel(logging.INFO)  # as it does when it is imported
deepspeed.addHandler(logging.StreamHandler())
deepspeed.warning("Setting accelerator to CPU")
logging.getLogger("rft").info("progress")
logging.getLogger("rft.log.retention").warning("going on without what is missing")
"""


def test_a_command_prints_our_own_warnings_only() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, env=os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "going on without what is missing\n")
