"""The assignments of an nbgrader course: the learners' copies, with points and hidden tests."""

import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from helpers.classroom.copies import CHECK_TAG, ROOT, STUB, keep_shown_widgets, learners_copy, lessons, write_notebook
from helpers.files import DATA

CALL = re.compile(r"checks\.(check_\w+)\((.+)\)")
# The checks are loaded again, since a submission may have changed them, and get other random inputs.
HIDDEN_TEST = """
### BEGIN HIDDEN TESTS
import dataclasses, importlib, sys

for module in [name for name in sys.modules if name.startswith("helpers.checks")]:
    del sys.modules[module]
genuine_check = importlib.import_module("helpers.checks").{}
if hasattr(genuine_check, "seed"):
    genuine_check = dataclasses.replace(genuine_check, seed=1)
genuine_check({})
### END HIDDEN TESTS"""


def assignment(notebook: NotebookNode, name: str) -> NotebookNode:
    """Mark the cells of a learner's copy for nbgrader: each exercise, and its check with one point per star."""
    copy = learners_copy(notebook, name)
    points = 1
    for cell in copy.cells:
        if cell.cell_type == "markdown":
            points = cell.source.count("★") or points
            continue
        cell.update(outputs=[], execution_count=None)
        is_check = CHECK_TAG in cell.metadata.get("tags", [])
        if is_check or STUB[0] in cell.source:
            marks = {"schema_version": 3, "grade_id": cell.id, "grade": is_check, "solution": not is_check}
            cell.metadata["nbgrader"] = marks | {"locked": is_check, "task": False}
        if is_check:
            cell.metadata["nbgrader"]["points"] = points
            cell.source += HIDDEN_TEST.format(*CALL.search(cell.source).groups())
    keep_shown_widgets(copy)
    return copy


def release(root: Path = ROOT) -> None:
    """Write the assignments and settings of ``nbgrader_course``; existing submissions and grades stay."""
    course = root / "nbgrader_course"
    for lesson in lessons(root):
        source = assignment(nbformat.read(lesson, as_version=4), lesson.name)
        folder = course / "source" / lesson.stem
        write_notebook(source, folder / lesson.name)
        shutil.copytree(root / "notebooks" / "figures", folder / "figures", dirs_exist_ok=True)
    settings = Path(__file__).with_name("nbgrader_config.py").read_text()
    for name, value in {"the Python of the course": sys.executable, "its cache of images": str(DATA / "cache")}.items():
        settings = settings.replace(f'"{name}"', repr(value))
    (course / "nbgrader_config.py").write_text(settings)
    print("Wrote nbgrader_course. TEACHING.md says how to hand out and grade its assignments.")
