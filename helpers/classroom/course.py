"""The course on a learner's machine: their own copies of the notebooks, JupyterLab, and notebooks executed in place.

::

    python -m helpers.classroom.course exercises               make the learner's copies in my_course/
    python -m helpers.classroom.course reset 01                bring one back, and keep what was written in it
    python -m helpers.classroom.course lab [--port N]          make what is missing, then start JupyterLab in my_course/
    python -m helpers.classroom.course pairs                   draw the scenes and the emoji, where they are missing
    python -m helpers.classroom.course execute FILE ...        execute notebooks and store their outputs (for authors)
"""

import base64
import copy
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary
from PIL import Image

from helpers.cli import CommandLine
from helpers.files import InputError

ROOT = Path(__file__).resolve().parents[2]

CHECK_TAG = "exercise-check"
SOLUTION_MARKER = re.compile(r"(\s*)#+\s*(BEGIN|END)\s+SOLUTION\b", re.IGNORECASE)
STUB = (
    "# YOUR CODE HERE",
    'raise NotImplementedError("Write your own code in place of this line, then run the check.")',
)

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_REFERENCE = re.compile(r'(?:IPY_MODEL_|"model_id": ")([\w-]+)')
CELL_SECONDS = 900


def without_solutions(source: str, where: str) -> str:
    """The code of a cell with a stub in place of each solution, at the indentation of its first marker.

    A solution stands between nbgrader's markers, ``### BEGIN SOLUTION`` and ``### END SOLUTION``.

    Raises:
        InputError: naming ``where``, if a marker has no partner.
    """
    kept: list[str] = []
    inside = False
    for line in source.splitlines():
        marker = SOLUTION_MARKER.match(line)
        if marker:
            begins = marker[2].upper() == "BEGIN"
            if begins == inside:
                missing = "END" if begins else "BEGIN"
                raise InputError(f"{where}: '{line.strip()}' without a '### {missing} SOLUTION' before it")
            inside = begins
            if begins:
                kept += [marker[1] + stub for stub in STUB]
        elif not inside:
            kept.append(line)
    if inside:
        raise InputError(f"{where}: '### BEGIN SOLUTION' without a '### END SOLUTION' after it")
    return "\n".join(kept)


def learners_copy(notebook: NotebookNode, name: str) -> NotebookNode:
    """The notebook as a learner gets it: stubs for solutions, and nothing shown under these and under their checks.

    All other outputs stay, with the widgets in them, so that the lesson reads on without running a cell.

    Raises:
        InputError: naming notebook and cell, if a solution's marker has no partner.
    """
    learners = copy.deepcopy(notebook)
    for cell in learners.cells:
        if cell.cell_type != "code":
            continue
        source = without_solutions(cell.source, f"{name}, cell {cell.id}")
        if source != cell.source or CHECK_TAG in cell.metadata.get("tags", []):
            cell.update(source=source, outputs=[], execution_count=None)
    keep_shown_widgets(learners)
    return learners


def write_whole(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all: beside its place first, then renamed."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
    os.replace(partial, path)


def lessons(root: Path) -> list[Path]:
    """The notebooks of the course, in order. Raises InputError if there is none."""
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    if not paths:
        raise InputError(f"there is no notebook in {root / 'notebooks'}; is the download of the course complete?")
    return paths


def put_copy(learners: NotebookNode, target: Path) -> None:
    """Sign a learner's copy, so that JupyterLab shows its widgets on opening, and write it."""
    NotebookNotary().sign(nbformat.reads(nbformat.writes(learners), as_version=4))
    target.parent.mkdir(exist_ok=True)
    write_whole(learners, target)


def make_copies(root: Path = ROOT) -> list[Path]:
    """Make the copies that are missing, say so, and return them. A copy that exists is never touched.

    Raises:
        InputError: if ``my_course`` cannot be a folder, or a lesson cannot be copied.
    """
    copies = root / "my_course"
    if copies.exists() and not copies.is_dir():
        raise InputError(f"{copies} is a file, and the copies of the notebooks go into a folder of that name; move it")
    missing = [lesson for lesson in lessons(root) if not (copies / lesson.name).exists()]
    for lesson in missing:
        put_copy(learners_copy(nbformat.read(lesson, as_version=4), lesson.name), copies / lesson.name)
        print(f"Made my_course/{lesson.name}, your own copy.")
    if not missing:
        print("Your copies are all in my_course/; none was touched.")
    return [copies / lesson.name for lesson in missing]


def reset(number: str, root: Path = ROOT) -> Path | None:
    """Bring back one copy as the course has it; return where what stood there was kept, if anything stood there.

    Args:
        number: the notebook, as ``01``, ``1`` or ``01_dataset``.
        root: the folder of the course.

    Raises:
        InputError: if no notebook of the course is meant by ``number``.
    """
    wanted = number.strip().removesuffix(".ipynb")
    by_name = {lesson.stem: lesson for lesson in lessons(root)}
    chosen = [name for name in by_name if wanted == name or wanted.zfill(2) == name.split("_")[0]]
    if len(chosen) != 1:
        what = f"there is no notebook {wanted!r}" if wanted else "no notebook is named"
        raise InputError(f"{what}; choose one, as in `make reset NB=01`, of: {', '.join(by_name)}")
    name = chosen[0]
    fresh = learners_copy(nbformat.read(by_name[name], as_version=4), f"{name}.ipynb")
    target = root / "my_course" / f"{name}.ipynb"
    kept = None
    if target.exists() and target.read_text(encoding="utf-8").strip() != nbformat.writes(fresh).strip():
        kept = next(path for n in count(1) if not (path := target.with_name(f"{name}.my-work-{n}.ipynb")).exists())
        target.rename(kept)
        print(f"Kept your work as my_course/{kept.name}.")
    put_copy(fresh, target)
    print(f"Made my_course/{target.name} anew.")
    return kept


def keep_shown_widgets(notebook: NotebookNode) -> None:
    """Drop the stored state of every widget that no output shows, be it directly or as a part of another.

    A kernel reports each widget it ever made; a link between two widgets is shown nowhere and stays if both ends do.
    """
    stored = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {})
    states = stored.get("state", {})
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    waiting = [output.data[WIDGET_VIEW]["model_id"] for output in outputs if WIDGET_VIEW in output.get("data", {})]
    parts = {model: WIDGET_REFERENCE.findall(json.dumps(state)) for model, state in states.items()}
    shown: dict[str, dict] = {}
    while waiting:
        model = waiting.pop(0)
        if model in states and model not in shown:
            shown[model] = states[model]
            waiting += parts[model]
    for model, state in states.items():
        if state["model_name"].endswith("LinkModel") and all(part in shown or part == model for part in parts[model]):
            shown[model] = state
    if shown:
        stored["state"] = shown
    else:
        notebook.metadata.pop("widgets", None)


def with_stable_widget_ids(notebook: NotebookNode, name: str) -> NotebookNode:
    """The notebook with its widgets numbered, in place of random ids, so that executing it again changes nothing."""
    text = nbformat.writes(notebook)
    for number, model in enumerate(notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})):
        text = text.replace(model, hashlib.sha256(f"{name} {number}".encode()).hexdigest()[:32])
    return nbformat.reads(text, as_version=4)


def shrink_pictures(notebook: NotebookNode) -> None:
    """Store the figures with 256 colours each, which the eye hardly tells apart and which take a third of the room."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    for data in (output.data for output in outputs if "image/png" in output.get("data", {})):
        small = io.BytesIO()
        with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
            few_colours = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1)
        few_colours.save(small, format="PNG", optimize=True)
        data["image/png"] = base64.b64encode(small.getvalue()).decode()


def execute(path: Path) -> None:
    """Run a notebook from top to bottom and store its outputs in it, without timings and anything of this machine.

    Raises:
        InputError: if it cannot be read, or a cell fails or takes too long; the notebook is then as it was.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, DeadKernelError

    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, nbformat.reader.NotJSONError) as error:
        raise InputError(f"{path} cannot be read as a notebook: {error}") from None
    folder = str(path.resolve().parent)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": folder}},
    )
    try:
        client.execute()
    except (CellControlSignal, DeadKernelError) as error:
        raise InputError(f"{path} is as it was, since a cell failed:\n{error}") from None
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["language_info"] = {"name": "python", "file_extension": ".py"}
    keep_shown_widgets(notebook)
    shrink_pictures(notebook)
    write_whole(with_stable_widget_ids(notebook, path.stem), path)


def execute_all(paths: Sequence[Path]) -> None:
    """Run notebooks one after another, saying which. Raises InputError at the first that fails."""
    for path in paths:
        print(f"Executing {path} ...", flush=True)
        execute(path)


def draw_pairs(root: Path) -> None:
    """Draw the scenes and the emoji where they are missing. Each appears whole or not at all, so one file tells.

    Scenes without minimal pairs were drawn by an earlier version of the course, and are drawn anew.

    Raises:
        InputError: if they cannot be drawn.
    """
    for name, last in (("scenes", "captions_minimal.json"), ("emoji", "captions_test.json")):
        folder = root / "data" / name
        if (folder / "annotations" / last).exists():
            continue
        print(f"Drawing the {name} into data/{name} ...", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        drawn = subprocess.run([sys.executable, "-m", "helpers", name, "--out", f"data/{name}"], cwd=root, check=False)
        if drawn.returncode:
            raise InputError(f"the {name} could not be drawn; the lines above say why")


def has_display() -> bool:
    """Whether a browser can open a window here. macOS and Windows always have a display."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))


def lab_arguments(folder: Path, first: str, port: int | None, display: bool, root_user: bool) -> list[str]:
    """What JupyterLab is started with: in ``folder``, with the notebook ``first`` open, saying little, asking nothing.

    A port of None leaves it to JupyterLab, which takes the next free one; one that is named is used or refused.
    """
    arguments = [
        f"--ServerApp.root_dir={folder}",
        f"--LabApp.default_url=/lab/tree/{first}",
        "--ServerApp.answer_yes=True",
        "--Application.log_level=ERROR",
        "--KernelManager.transport_encryption=auto",
    ]
    if port is not None:
        arguments += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if not display:
        arguments.append("--ServerApp.open_browser=False")
    if root_user:
        arguments.append("--ServerApp.allow_root=True")
    return arguments


def refuse_taken_port(port: int) -> None:
    """Raise InputError if ``port`` is no port, or something else listens there already."""
    if not 1 <= port <= 65535:
        raise InputError(f"{port} is no port; name one from 1024 to 65535, or none")
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(f"port {port} cannot be used ({error.strerror}); name another, or none") from None


def lab(port: int | None = None, root: Path = ROOT) -> None:
    """Make what is missing, then start JupyterLab on the learner's copies and stay until Ctrl-C.

    Raises:
        InputError: if the port is taken, or the pairs or the copies cannot be made.
    """
    from jupyterlab.labapp import LabApp

    if port is not None:
        refuse_taken_port(port)
    draw_pairs(root)
    make_copies(root)
    print("Starting JupyterLab. Ctrl-C, here, ends it.", flush=True)
    is_root_user = hasattr(os, "geteuid") and os.geteuid() == 0
    arguments = lab_arguments(root / "my_course", lessons(root)[0].name, port, has_display(), is_root_user)
    # helpers/labconfig turns JupyterLab's announcements off, for this start alone.
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(
        filter(None, [str(root / "helpers" / "classroom"), os.environ.get("JUPYTER_CONFIG_PATH")])
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what JupyterLab expects where there is no terminal
    LabApp.launch_instance(arguments)
    print("JupyterLab has ended. Your work is in my_course/.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code: 0, or 2 and a sentence where something given cannot be used."""
    parser = CommandLine(prog="helpers.course", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    making = commands.add_parser("exercises", help="make your own copies of the notebooks in my_course/")
    making.set_defaults(run=lambda _: make_copies())
    resetting = commands.add_parser("reset", help="bring one copy back; what you wrote is kept beside it")
    resetting.add_argument("notebook", help="its number, as 01")
    resetting.set_defaults(run=lambda chosen: reset(chosen.notebook))
    starting = commands.add_parser("lab", help="start JupyterLab on your copies")
    starting.add_argument("--port", type=int, help="the port it listens on (default: 8888, or the next free one)")
    starting.set_defaults(run=lambda chosen: lab(chosen.port))
    drawing = commands.add_parser("pairs", help="draw the scenes and the emoji, where they are missing")
    drawing.set_defaults(run=lambda _: draw_pairs(ROOT))
    executing = commands.add_parser("execute", help="execute notebooks in place and store their outputs")
    executing.add_argument("notebooks", type=Path, nargs="+")
    executing.set_defaults(run=lambda chosen: execute_all(chosen.notebooks))
    chosen = parser.parse_args(arguments)
    return parser.run(lambda: chosen.run(chosen))


if __name__ == "__main__":
    sys.exit(main())
