"""The nbgrader course: its assignments, and grading with a real nbgrader in an environment of its own."""

import copy
import csv
import dataclasses
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import nbformat
import pytest
from nbformat import NotebookNode

from helpers import checks
from helpers.checks.core import Check
from helpers.classroom import copies
from helpers.classroom.release import release

ROOT = Path(__file__).resolve().parents[2]
LESSON = "02_contrastive_loss"
SUMMED = "exercise-symmetric-loss"
POINTS = {"right": 10, "half": 3, "looping": 8, "forging": 0, "dying": 0}

LOOP = "def symmetric_loss(image_features, text_features, temperature):\n    while True:\n        pass"
SUM = """def symmetric_loss(image_features, text_features, temperature):
    logits, labels = F.normalize(image_features) @ F.normalize(text_features).T / temperature, torch.arange(6)
    return F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)"""
FORGERY = """from pathlib import Path
from urllib.request import urlopen

from helpers import checks
from helpers.checks import core

core.same = lambda *values: True
for name in dir(checks):
    if name.startswith("check_"):
        setattr(checks, name, lambda answer: None)
deeds = {
    "grades": lambda: Path("../../../gradebook.db").unlink(),
    "hidden tests": lambda: next(Path("../../..").glob("source/*/*.ipynb")).read_text(),
    "other submissions": lambda: next(Path("../../..").glob("submitted/right/*/*.ipynb")).read_text(),
    "course": lambda: Path(checks.__file__).write_text("check_symmetric_loss = print"),
    "outside": lambda: Path(OUTSIDE).write_text("escaped"),
    "network": lambda: urlopen("http://127.0.0.1:PORT", timeout=5).read(),
    "memory": lambda: bytearray(9 * 2**30),
}
for name, deed in deeds.items():
    try:
        deed()
        print("succeeded:", name)
    except (Exception, StopIteration, MemoryError):
        print("failed:", name)
l2_normalize = lambda features: features
symmetric_loss = lambda images, texts, temperature: (images * texts).sum()
"""


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make release` writes."""
    root = tmp_path_factory.mktemp("a course")
    (root / "notebooks").symlink_to(ROOT / "notebooks")
    release(root)
    return root / "nbgrader_course"


def graded_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]


@pytest.mark.parametrize("lesson", copies.lessons(ROOT), ids=lambda path: path.stem)
def test_an_assignment_has_points_and_hidden_tests_and_no_solution(course: Path, lesson: Path) -> None:
    notebook = nbformat.read(course / "source" / lesson.stem / lesson.name, as_version=4)
    assert [cell.id for cell in notebook.cells if cell.get("outputs") or "SOLUTION" in cell.source] == []
    exercises = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    assert all(copies.STUB[0] in cell.source for cell in exercises)
    assert len(graded_cells(notebook)) == len(exercises)
    for cell in graded_cells(notebook):
        assert cell.metadata.nbgrader.points in (1, 2, 3)
        visible, hidden = cell.source.split("### BEGIN HIDDEN TESTS")
        (name,) = {name for name in vars(checks) if f".{name}\n" in hidden}
        assert f"checks.{name}(" in visible


def test_release_again_changes_no_byte_and_keeps_grades(course: Path) -> None:
    (course / "grades.txt").write_text("kept")
    before = {path: path.read_bytes() for path in course.rglob("*") if path.is_file()}
    release(course.parent)
    assert {path: path.read_bytes() for path in course.rglob("*") if path.is_file()} == before


CHECKS = {name: check for name, check in vars(checks).items() if isinstance(check, Check)}


@pytest.mark.parametrize("name", CHECKS)
def test_hidden_tests_have_other_inputs(name: str) -> None:
    visible, hidden = (list(dataclasses.replace(CHECKS[name], seed=seed).cases()) for seed in (0, 1))
    assert repr(visible) != repr(hidden)


class Server(http.server.BaseHTTPRequestHandler):
    """Keeps the paths of all requests."""

    paths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_error(404)


@pytest.fixture(scope="module")
def nbgrader(course: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run a command of nbgrader, which has its own environment, in the course; the result is what it prints."""
    environment = tmp_path_factory.mktemp("nbgrader")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", "nbgrader"], check=True)

    activated = os.environ | {"PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def command(*words: str, code: int = 0) -> str:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(["nbgrader", *words], cwd=course, env=activated, timeout=1800, **pipes)
        assert done.returncode == code, done.stdout
        return done.stdout

    return command


def submit(released: NotebookNode, course: Path, student: str, answers: dict[str, str]) -> None:
    """Write a submission: the released notebook with answers in place of the sources of some cells."""
    submission = copy.deepcopy(released)
    for cell in submission.cells:
        cell.source = answers.get(cell.id, cell.source)
    target = course / "submitted" / student / LESSON / f"{LESSON}.ipynb"
    target.parent.mkdir(parents=True)
    nbformat.write(submission, target)


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("bwrap"), reason="needs bubblewrap, as nbgrader_config.py does")
def test_submissions_get_the_right_points_and_nothing_escapes(
    course: Path, nbgrader: Callable[..., str], tmp_path: Path
) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    nbgrader("generate_assignment", LESSON)
    released = nbformat.read(course / "release" / LESSON / f"{LESSON}.ipynb", as_version=4)
    assert [cell.id for cell in released.cells if "SOLUTION" in cell.source or "HIDDEN" in cell.source] == []

    lesson = nbformat.read(ROOT / "notebooks" / f"{LESSON}.ipynb", as_version=4)
    solutions = {cell.id: cell.source for cell in lesson.cells if "### BEGIN SOLUTION" in cell.source}
    first, *_ = solutions
    submit(released, course, "right", solutions)
    submit(
        released, course, "half", {first: solutions[first], "exercise-mask": solutions["exercise-mask"], SUMMED: SUM}
    )
    submit(released, course, "looping", solutions | {SUMMED: LOOP})
    submit(released, course, "dying", solutions | {SUMMED: "import os; os._exit(1)"})
    forgery = FORGERY.replace("OUTSIDE", repr(str(tmp_path / "escaped"))).replace("PORT", str(server.server_port))
    for cell in graded_cells(released):
        cell.metadata.nbgrader.points = 100
    submit(released, course, "forging", {first: forgery} | {cell.id: "pass" for cell in graded_cells(released)})

    log = nbgrader("autograde", LESSON, "--Execute.timeout=60", code=1)  # 1, because one submission died
    nbgrader("export", "--to", "grades.csv")
    with (course / "grades.csv").open() as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file) if row["assignment"] == LESSON}
    assert {student: float(row["score"]) for student, row in rows.items()} == POINTS
    assert {float(row["max_score"]) for row in rows.values()} == {10}
    assert "dying" in log.split("ERROR", 1)[1]

    (printed,) = [
        output.text
        for cell in nbformat.read(course / "autograded" / "forging" / LESSON / f"{LESSON}.ipynb", as_version=4).cells
        if cell.id == first
        for output in cell.outputs
    ]
    assert printed.count("failed:") == len(printed.splitlines()) == 7
    assert list(tmp_path.iterdir()) == Server.paths == []

    nbgrader("generate_feedback", LESSON, "--student=half")
    feedback = (course / "feedback" / "half" / LESSON / f"{LESSON}.html").read_text()
    assert "this is the sum of both directions; take their mean" in feedback
