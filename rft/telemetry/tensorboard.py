"""A tracker that writes TensorBoard's event files with torch's writer."""

from __future__ import annotations

from rft.config_toml import to_toml
from rft.telemetry.base import Point, RunInfo

FOLDER = "tensorboard"


class TensorBoardTracker:
    """Writes a new event file. It replaces earlier ones unless ``reopened``: ``purge_step`` makes TensorBoard ignore
    their points.
    """

    def __init__(self, run: RunInfo, reopened: bool = False) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / FOLDER), purge_step=None if reopened else 0)
        # Indented by four: TensorBoard shows text as Markdown.
        text = "\n".join(f"    {line}" for line in to_toml(run.config).splitlines())
        self._writer.add_text("config", text, 0)

    def log(self, point: Point) -> None:
        for name, value in point.values.items():
            self._writer.add_scalar(name, value, point.step, walltime=point.at_ms / 1000)

    def close(self) -> None:
        self._writer.close()
