"""The whole table: an input, what its user is told, and by which command."""

from __future__ import annotations

from tests.inputs import model_rows, settings_rows, task_rows
from tests.inputs.rows import Row

ROWS: list[Row] = [*settings_rows.ROWS, *model_rows.ROWS, *task_rows.ROWS]
