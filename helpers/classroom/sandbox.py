"""The kernel in which nbgrader runs submissions: it writes only into its own folder and reaches no network.

It reads the course, but not the folder of nbgrader with the hidden tests, the grades and the other submissions. It needs
Linux and bubblewrap. A submission may take ``MINUTES`` in all; nbgrader limits each cell.
"""

import os
import sys
from pathlib import Path

from helpers.files import DATA

MINUTES = 30
SCRATCH = "/dev/shm"  # in memory, and gone with the kernel


def sandboxed(arguments: list[str], folder: Path) -> list[str]:
    """The command of a kernel. ``folder`` is nbgrader's ``autograded/STUDENT/ASSIGNMENT``."""
    cache = DATA / "cache"  # each kernel decodes images for itself
    cache.mkdir(parents=True, exist_ok=True)
    connection = Path(arguments[1]).parent
    return [
        *("timeout", "--signal=KILL", f"{MINUTES}m", "bwrap", "--unshare-pid", "--unshare-net", "--die-with-parent"),
        *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", str(cache)),
        *("--tmpfs", str(folder.parents[2]), "--bind", str(folder), str(folder)),
        *("--bind", str(connection), str(connection)),
        *("--unsetenv", "JPY_PARENT_PID", "--setenv", "HOME", SCRATCH, "--setenv", "TMPDIR", SCRATCH, "--chdir", str(folder)),
        *(sys.executable, "-m", "ipykernel_launcher", *arguments),
    ]


if __name__ == "__main__":
    command = sandboxed(sys.argv[1:], Path.cwd())
    os.execvp(command[0], command)
