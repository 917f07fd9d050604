"""TensorBoard event files, by torch's writer."""

from __future__ import annotations

from rft.config_sources import to_toml
from rft.telemetry.base import Point, RunFacts

FOLDER = "tensorboard"


class TensorBoardTracker:
    """A new event file that takes the place of earlier ones, unless ``again``: ``purge_step`` has TensorBoard pass over
    their points.
    """

    def __init__(self, run: RunFacts, again: bool = False) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / FOLDER), purge_step=None if again else 0)
        # Indented by four: TensorBoard shows text as Markdown.
        text = "\n".join(f"    {line}" for line in to_toml(run.config).splitlines())
        self._writer.add_text("config", text, 0)

    def log(self, point: Point) -> None:
        for name, value in point.values.items():
            self._writer.add_scalar(name, value, point.step, walltime=point.at_ms / 1000)

    def close(self) -> None:
        self._writer.close()
