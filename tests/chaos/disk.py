"""A disk that can be filled: a small tmpfs if one may be mounted, else a limit on the size of a process's files."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import psutil

SIZE_MIB = 128
_LIMIT_BYTES = 64 * 1024
"""Less than any weights. Lines that a process appends to a larger log are lost too, as on a full disk."""


class SmallDisk:
    """The disk that holds ``folder``; ``how`` says how it is filled."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._ballast = folder / "ballast"
        options = ["-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs"]
        mounted = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
        self._mounted = mounted.returncode == 0
        self.how = f"tmpfs of {SIZE_MIB} MiB" if self._mounted else "RLIMIT_FSIZE of the trainer"

    def fill(self, process: psutil.Process) -> None:
        """Leave no room. Without a tmpfs, ``process`` is limited. A repeated call fills the room that was freed."""
        if not self._mounted:
            _, hard = process.rlimit(resource.RLIMIT_FSIZE)
            process.rlimit(resource.RLIMIT_FSIZE, (_LIMIT_BYTES, hard))
            return
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def free(self, process: psutil.Process) -> None:
        """Make room again."""
        if self._mounted:
            self._ballast.unlink(missing_ok=True)
            return
        try:
            _, hard = process.rlimit(resource.RLIMIT_FSIZE)
            process.rlimit(resource.RLIMIT_FSIZE, (hard, hard))
        except psutil.NoSuchProcess:
            return  # it was restarted, without a limit

    def close(self) -> None:
        """Unmount the disk, which removes its content."""
        if self._mounted:
            subprocess.run(["umount", "-l", str(self._folder)], capture_output=True, check=False)
