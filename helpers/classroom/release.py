"""The assignments of an nbgrader course: the learners' copies, with points and hidden tests.

A hidden test loads the checks again, since a submission may have changed them, and uses other random inputs.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from helpers import checks
from helpers.checks.core import Check
from helpers.classroom.copies import CHECK_TAG, ROOT, STUB, learners_copy, lessons
from helpers.classroom.execute import keep_shown_widgets, write_notebook

CALL = re.compile(r"checks\.(check_\w+)\((.+)\)")
HIDDEN_TEST = """
### BEGIN HIDDEN TESTS
import dataclasses, importlib, sys

for module in [name for name in sys.modules if name.startswith("helpers.checks")]:
    del sys.modules[module]
genuine_check = importlib.import_module("helpers.checks").{name}
{check}({answer})
### END HIDDEN TESTS"""


def hidden_test(source: str) -> str:
    """The hidden test for the source of a check cell."""
    name, answer = CALL.search(source).groups()
    with_seed = isinstance(getattr(checks, name), Check)
    check = "dataclasses.replace(genuine_check, seed=1)" if with_seed else "genuine_check"
    return HIDDEN_TEST.format(name=name, check=check, answer=answer)


def assignment(notebook: NotebookNode, name: str) -> NotebookNode:
    """Mark the cells of a learner's copy for nbgrader: each exercise, and its check with one point per star."""
    copy = learners_copy(notebook, name)
    points = 1
    for cell in copy.cells:
        is_check = CHECK_TAG in cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            points = cell.source.count("★") or points
            continue
        cell.update(outputs=[], execution_count=None)
        if is_check or STUB[0] in cell.source:
            marks = {"schema_version": 3, "grade_id": cell.id, "grade": is_check, "solution": not is_check}
            cell.metadata["nbgrader"] = marks | {"locked": is_check, "task": False}
        if is_check:
            cell.metadata["nbgrader"]["points"] = points
            cell.source += hidden_test(cell.source)
    keep_shown_widgets(copy)
    return copy


def release(root: Path = ROOT) -> None:
    """Write ``nbgrader_course``; submissions and grades that are there stay."""
    course = root / "nbgrader_course"
    for lesson in lessons(root):
        source = assignment(nbformat.read(lesson, as_version=4), lesson.name)
        folder = course / "source" / lesson.stem
        write_notebook(source, folder / lesson.name)
        (folder / "figures").mkdir(exist_ok=True)
        for figure in re.findall(r"\((figures/[\w.]+)\)", nbformat.writes(source)):
            shutil.copy(root / "notebooks" / figure, folder / figure)
    shutil.copy(Path(__file__).with_name("nbgrader_config.py"), course)
    kernel = {"argv": [sys.executable, "-m", "helpers.classroom.sandbox", "-f", "{connection_file}"]}
    kernel |= {"display_name": "Python 3", "language": "python", "interrupt_mode": "message"}
    (course / "kernels" / "python3").mkdir(parents=True, exist_ok=True)
    (course / "kernels" / "python3" / "kernel.json").write_text(json.dumps(kernel))
    print(f"Wrote {course.name}. Next, in this folder: nbgrader generate_assignment {lessons(root)[0].stem}")
