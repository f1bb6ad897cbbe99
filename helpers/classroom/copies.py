"""Learners' copies of the notebooks: stubs in place of the solutions, and no copy is ever overwritten."""

import copy
import hashlib
import json
import re
import shutil
from itertools import count
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary

from helpers.files import InputError, atomic_file

ROOT = Path(__file__).absolute().parents[2]  # also where `helpers` is a link, as on a server for a class

CHECK_TAG = "exercise-check"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PART_OF_WIDGET = re.compile(r"IPY_MODEL_([\w-]+)")
FOLD = "<details><summary>Run the cell, then open this</summary>\n\n{}\n\n</details>"
PAPER_SOLUTION = re.compile(r"<details><summary>Solution</summary>.*?</details>", re.DOTALL)
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION$", re.DOTALL | re.MULTILINE)
STUB = (
    "# YOUR CODE HERE",
    'raise NotImplementedError("Write your own code in place of this line, then run the check.")',
)


def without_solutions(source: str, cell: str) -> str:
    """Replace each solution, marked as nbgrader marks it, by an indented stub. ``cell`` names the cell in errors."""
    stubbed = SOLUTION.sub(lambda solution: "\n".join(solution[1] + line for line in STUB), source)
    if "### BEGIN SOLUTION" in stubbed or "### END SOLUTION" in stubbed:
        raise InputError(f"{cell}: each '### BEGIN SOLUTION' needs its '### END SOLUTION' on a later line")
    return stubbed


def learners_copy(notebook: NotebookNode, name: str) -> NotebookNode:
    """Copy a notebook with stubs for solutions and without the outputs of exercises and checks.

    After a text with ``**Predict**``, the next code cells lose their outputs, and the first paragraph of the next text,
    which has the answer, is folded.
    """
    learners = copy.deepcopy(notebook)
    predicted = False
    for cell in learners.cells:
        if cell.cell_type == "code":
            source = without_solutions(cell.source, f"{name}, cell {cell.id}")
            if predicted or source != cell.source or CHECK_TAG in cell.metadata.get("tags", []):
                cell.update(source=source, outputs=[], execution_count=None)
            continue
        answered, predicted = predicted, "**Predict**" in cell.source
        cell.source = PAPER_SOLUTION.sub(f"The solution is in `notebooks/{name}`.", cell.source)
        if answered:
            paragraphs = cell.source.split("\n\n")
            first = next(i for i, paragraph in enumerate(paragraphs) if not paragraph.startswith("#"))
            paragraphs[first] = FOLD.format(paragraphs[first])
            cell.source = "\n\n".join(paragraphs)
    keep_shown_widgets(learners)
    sources = "\n".join(cell.source for cell in learners.cells)
    learners.metadata["handed_out"] = hashlib.sha256(sources.encode()).hexdigest()
    return learners


def outputs_with(notebook: NotebookNode, kind: str) -> list[dict]:
    """The data of all outputs that have a given MIME type."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.data for output in outputs if kind in output.get("data", {})]


def keep_shown_widgets(notebook: NotebookNode) -> None:
    """Remove the stored state of all widgets that no output shows, directly or as part of another widget."""
    stored = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {})
    states = stored.get("state", {})
    waiting = [data[WIDGET_VIEW]["model_id"] for data in outputs_with(notebook, WIDGET_VIEW)]
    shown = {}
    while waiting:
        model = waiting.pop()
        if model in states and model not in shown:
            shown[model] = states[model]
            waiting += PART_OF_WIDGET.findall(json.dumps(states[model]))
    if shown:
        stored["state"] = shown
    else:
        notebook.metadata.pop("widgets", None)


def lessons(root: Path) -> list[Path]:
    """The notebooks of the course, in order."""
    return sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    with atomic_file(path) as file:
        file.write(f"{nbformat.writes(notebook)}\n".encode())


def write_copy(learners: NotebookNode, target: Path) -> None:
    """Write a learner's copy and mark it as trusted, so that JupyterLab shows its widgets on opening."""
    NotebookNotary().sign(nbformat.reads(nbformat.writes(learners), as_version=4))  # signs what a reader will parse
    write_notebook(learners, target)


def make_copies(root: Path = ROOT) -> None:
    """Make the copies missing in ``my_course``, update the pictures there, and say which lessons have changed."""
    shutil.copytree(root / "notebooks" / "figures", root / "my_course" / "figures", dirs_exist_ok=True)
    for lesson in lessons(root):
        target = root / "my_course" / lesson.name
        fresh = learners_copy(nbformat.read(lesson, as_version=4), lesson.name)
        if not target.exists():
            write_copy(fresh, target)
            print(f"Made my_course/{lesson.name}, your own copy.")
        elif fresh.metadata["handed_out"].encode() not in target.read_bytes():
            print(f"{lesson.name} has changed since your copy was made.")
            print(f"  `make reset NB={lesson.name[:2]}` makes a fresh copy and keeps your work next to it.")


def reset(lesson: str = "", root: Path = ROOT) -> None:
    """Make one copy again, by a notebook's number (``01`` or ``1``), name or path; the learner's work is kept."""
    wanted = Path(lesson).stem
    matches = [path for path in lessons(root) if wanted in (path.stem, path.stem[:2], str(int(path.stem[:2])))]
    if not matches:
        numbers = ", ".join(path.stem[:2] for path in lessons(root))
        raise InputError(f"there is no notebook {lesson!r}; choose one of {numbers}, as in `make reset NB=01`")
    fresh = learners_copy(nbformat.read(matches[0], as_version=4), matches[0].name)
    target = root / "my_course" / matches[0].name
    if target.exists() and target.read_text(encoding="utf-8").strip() != nbformat.writes(fresh).strip():
        names = (target.with_name(f"{target.stem}.my-work-{number}.ipynb") for number in count(1))
        kept = next(path for path in names if not path.exists())
        target.rename(kept)
        print(f"Kept your work as my_course/{kept.name}.")
    write_copy(fresh, target)
    print(f"Made a fresh my_course/{target.name}.")
