"""The course on a learner's machine: ``python -m helpers.classroom COMMAND``."""

import argparse
import os
import sys
from pathlib import Path
from subprocess import run

from helpers.classroom.copies import ROOT, lessons, make_copies, reset
from helpers.classroom.release import release
from helpers.files import DATA, InputError, locked


def generate_pairs() -> None:
    """Generate the scenes and the emoji that are missing in ``data``."""
    for name in ("scenes", "emoji"):
        if not (DATA / name / "annotations").is_dir():
            print(f"Generating data/{name} ...", flush=True)
            command = [sys.executable, "-m", "helpers", name, "--out", f"data/{name}"]
            if run(command, cwd=ROOT, check=False).returncode:
                raise InputError(f"data/{name} could not be generated; the lines above say why")


def lab(port: str = "") -> None:
    """Make what is missing, then run JupyterLab on the learner's copies until Ctrl-C, by default at a free port."""
    from jupyterlab.labapp import LabApp

    if port and not port.isdigit():
        raise InputError(f"PORT must be a number, such as 8890, not {port!r}")
    with locked(ROOT / "my_course", wait=True):
        generate_pairs()
        make_copies()
    os.environ["JUPYTER_CONFIG_PATH"] = str(Path(__file__).parent)  # for labconfig/page_config.json
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # these two lines: no kernel of another Python
    for name in ("JUPYTER_PATH", "PYTHONPATH"):  # nor another project's modules
        os.environ.pop(name, None)
    arguments = [
        f"--ServerApp.root_dir={ROOT / 'my_course'}",
        f"--LabApp.default_url=/lab/tree/{lessons(ROOT)[0].name}",
        f"--LabServerApp.extra_labextensions_path={ROOT / 'helpers' / 'widgets' / 'labextensions'}",
        "--Application.log_level=ERROR",
        "--KernelManager.transport_encryption=auto",  # so that other users cannot read the traffic
        "--allow-root",
        "-y",  # Ctrl-C asks no question
        *([f"--port={port}"] if port else []),
    ]
    print("Starting JupyterLab. Ctrl-C in this terminal ends it.", flush=True)
    LabApp.launch_instance(arguments)


COMMANDS = {  # `make help` says what they are for
    "exercises": make_copies,
    "reset": reset,
    "lab": lab,
    "pairs": generate_pairs,
    "release": release,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0, or 2 after an error that the user can fix."""
    parser = argparse.ArgumentParser(prog="python -m helpers.classroom", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("arguments", nargs="*", help="reset: a lesson's number; lab: a port")
    options = parser.parse_args(arguments)
    if not os.access(Path.home(), os.W_OK):  # then Jupyter writes its own files into the course
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
            os.environ.setdefault(name, str(ROOT / "my_course" / ".jupyter" / name.lower()))
    try:
        COMMANDS[options.command](*options.arguments)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
