"""The kernel in which nbgrader runs a submission: it writes only into its own folder and reaches no network.

It can read the course, but not nbgrader's folder with the hidden tests, the grades and the other submissions.
"""

import os
import resource
import sys
from pathlib import Path

from helpers.files import DATA

MINUTES = 30  # for all cells together
MEMORY = 8 * 2**30  # bytes
SCRATCH = "/dev/shm"  # in memory, and gone with the kernel


def sandboxed(arguments: list[str], folder: Path) -> list[str]:
    """The command of a kernel with Jupyter's ``arguments`` (-f, a file, ...) in ``autograded/STUDENT/ASSIGNMENT``."""
    cache = DATA / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    writable = [str(folder), str(Path(arguments[1]).parent)]
    return [
        *("timeout", "--signal=KILL", f"{MINUTES}m", "bwrap", "--unshare-pid", "--unshare-net", "--die-with-parent"),
        *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
        *("--tmpfs", str(cache), "--tmpfs", str(folder.parents[2])),  # empty, and apart from the real folders
        *(word for path in writable for word in ("--bind", path, path)),
        *("--unsetenv", "JPY_PARENT_PID", "--setenv", "HOME", SCRATCH, "--setenv", "TMPDIR", SCRATCH),
        *("--chdir", str(folder), sys.executable, "-m", "ipykernel_launcher", *arguments),
    ]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    command = sandboxed(sys.argv[1:], Path.cwd())
    os.execvp(command[0], command)
