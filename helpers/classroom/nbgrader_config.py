"""nbgrader's settings for this course; `make release` copies this file next to the assignments.

Each submission runs in a sandbox: it writes only into its own folder, reaches no network, and reads the course, but
not this folder with the hidden tests, the grades and the other submissions.
"""

import atexit
import json
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

PYTHON, CACHE = "the Python of the course", "its cache of images"  # filled in by `make release`

if not shutil.which("bwrap"):
    sys.exit("Install bubblewrap first (apt-get install bubblewrap). It keeps submissions away from your files.")
jupyter = Path(tempfile.mkdtemp(prefix="nbgrader-"))
atexit.register(shutil.rmtree, jupyter, ignore_errors=True)
os.makedirs(CACHE, exist_ok=True)
os.environ["JUPYTER_PATH"] = str(jupyter)
os.environ["COURSE_QUICK"] = "1"  # lessons that train do so for a few seconds only

limits = f"timeout --signal=KILL 30m prlimit --data={8 * 2**30} bwrap --unshare-pid --unshare-net --die-with-parent"
empty = shlex.join(["--tmpfs", CACHE, "--tmpfs", str(Path(__file__).resolve().parent)])
writable = '--bind "$PWD" "$PWD" --bind "${2%/*}" "${2%/*}" --chdir "$PWD"'  # $2 is the file of the connection
variables = "--unsetenv JPY_PARENT_PID --setenv HOME /dev/shm --setenv TMPDIR /dev/shm"
command = f"{limits} --ro-bind / / --dev /dev --proc /proc {empty} {writable} {variables} {shlex.quote(PYTHON)}"
kernel = f'exec {command} -m ipykernel_launcher "$@"'
spec = {"argv": ["sh", "-c", kernel, "kernel", "-f", "{connection_file}"], "display_name": "Python 3"}
(jupyter / "kernels" / "python3").mkdir(parents=True)
(jupyter / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec | {"interrupt_mode": "message"}))

c = get_config()  # noqa: F821, nbgrader defines it
c.KernelManager.connection_file = str(jupyter / "kernel.json")
c.KernelManager.transport = "ipc"  # by files, since the sandbox has no network
c.ClearSolutions.enabled = False  # the assignments have stubs already
c.Execute.timeout = 300  # seconds per cell
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = "."  # a warning on stderr costs no points
