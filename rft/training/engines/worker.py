"""Runs one rank of a trainer in a process of its own: it follows rank 0's messages until its standard input closes.

Started by :mod:`rft.training.engines.ranks`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from rft.config import Config


def main() -> None:
    """Read the job from standard input and follow rank 0."""
    # Ctrl-C in a terminal reaches all of its processes. The trainer decides when its ranks end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_trainer, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format=f"%(levelname)s rank {job['rank']}: %(message)s")
    config = Config.model_validate(job["config"])
    # Importing these takes seconds, in which the trainer may end. So the thread above is started first.
    from rft.training.engines.channel import decode_batch
    from rft.training.engines.shard import Shard

    shard = Shard(Path(job["folder"]), config, job["rank"], job["ranks"], Path(job["store"]))
    while True:
        message, tensors = shard.channel.receive()
        match message["do"]:
            case "step":
                shard.step(message["number"], decode_batch(message["batch"], tensors), version=message["version"])
            case "gather":
                for _ in shard.gathered(adapters=message["adapters"]):
                    pass
            case "optimizer":
                shard.optimizer_tensors()
            case "restore":
                shard.restore_optimizer(tensors)
            case "reference":
                shard.set_reference(Path(message["folder"]))


def _end_with_trainer() -> None:
    # Nothing more is written to the pipe. Reading returns when the trainer has closed it or is dead.
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
