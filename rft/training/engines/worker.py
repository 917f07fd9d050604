"""A rank of a trainer, in a process of its own: does with its share what rank 0 says, until its standard input closes.

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
    """Read the job from standard input, take part, end with it."""
    # A terminal's Ctrl-C goes to all of its processes: the trainer decides when its ranks end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_trainer, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format=f"%(levelname)s rank {job['rank']}: %(message)s")
    config = Config.model_validate(job["config"])
    # Imported late: these take seconds, within which the trainer may have gone.
    from rft.training.engines.channel import read_batch
    from rft.training.engines.shard import Shard

    shard = Shard(Path(job["folder"]), config, job["rank"], job["ranks"], Path(job["store"]))
    while True:
        words, tensors = shard.channel.hear()
        match words["do"]:
            case "step":
                shard.step(words["number"], read_batch(words["batch"], tensors), version=words["version"])
            case "gather":
                for _ in shard.gathered(adapters=words["adapters"]):
                    pass
            case "optimizer":
                shard.optimizer_tensors()
            case "restore":
                shard.restore_optimizer(tensors)
            case "reference":
                shard.set_reference(Path(words["folder"]))


def _end_with_trainer() -> None:
    # Nothing more comes: this returns when the trainer has closed the pipe or is dead.
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
