"""Learners' copies: made once, without solutions, and reset without losing work."""

from pathlib import Path
from subprocess import CompletedProcess

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.classroom import __main__ as classroom
from helpers.classroom import copies
from helpers.files import InputError

SOLUTION = '''def double(number: int) -> int:
    """Twice the number."""
    ### BEGIN SOLUTION
    twice = number + number

    return twice
    ### END SOLUTION'''


def lesson(exercise: str = SOLUTION) -> NotebookNode:
    """An executed notebook with one exercise, its check, and a cell before them, under a heading."""
    sources = {"example": "print(2)", "exercise-double": exercise, "check-double": "assert double(2) == 4"}
    outputs = [new_output("stream", text="printed\n")]
    cells = [new_code_cell(source, id=name, execution_count=1, outputs=outputs) for name, source in sources.items()]
    cells[2].metadata.tags = [copies.CHECK_TAG]
    return new_notebook(cells=[new_markdown_cell("# A lesson", id="title"), *cells])


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course of two notebooks, in a folder with a space in its name."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    root = tmp_path / "a course"
    (root / "notebooks" / "figures").mkdir(parents=True)
    for name in ("01_dataset", "02_contrastive_loss"):
        nbformat.write(lesson(), root / "notebooks" / f"{name}.ipynb")
    return root


@pytest.fixture
def copy(root: Path) -> Path:
    """The learner's copy of notebook 01."""
    copies.make_copies(root)
    return root / "my_course" / "01_dataset.ipynb"


def test_stub_replaces_solution_and_raises() -> None:
    source = copies.without_solutions(SOLUTION, "a cell")
    assert "twice" not in source
    assert '"""Twice the number."""' in source
    namespace: dict = {}
    exec(source, namespace)
    with pytest.raises(NotImplementedError, match="your own code"):
        namespace["double"](2)


def test_cell_may_have_several_solutions() -> None:
    first = "### BEGIN SOLUTION\na = 1\n### END SOLUTION"
    source = f"{first}\nkept = 2\nif kept:\n\t### BEGIN SOLUTION\n\tb = 3\n\t### END SOLUTION"
    stub = [*copies.STUB, "kept = 2", "if kept:", *(f"\t{line}" for line in copies.STUB)]
    assert copies.without_solutions(source, "a cell").splitlines() == stub


@pytest.mark.parametrize(
    "source", ["### BEGIN SOLUTION\na = 1", "a = 1\n### END SOLUTION", "### END SOLUTION\n### BEGIN SOLUTION"]
)
def test_unmatched_marker_is_reported_with_notebook_and_cell(root: Path, source: str) -> None:
    nbformat.write(lesson(source), root / "notebooks" / "02_contrastive_loss.ipynb")
    with pytest.raises(InputError, match="02_contrastive_loss.ipynb, cell exercise-double"):
        copies.make_copies(root)
    assert not (root / "my_course" / "02_contrastive_loss.ipynb").exists()


def test_copy_keeps_all_outputs_except_those_of_exercises_and_checks() -> None:
    original = lesson()
    title, example, *exercise_and_check = copies.learners_copy(original, "01").cells
    assert [title, example] == original.cells[:2]
    assert [(cell.outputs, cell.execution_count) for cell in exercise_and_check] == [([], None)] * 2
    assert original.cells[2].outputs, "the original must not change"


def test_answer_to_a_prediction_is_folded_below_headings() -> None:
    run = [new_code_cell("print(2)", outputs=[new_output("stream", text="2\n")]) for _ in range(3)]
    result = new_markdown_cell("## Result\n\nIt is 2.\n\nWhy?")
    cells = [new_markdown_cell("**Predict**: 2 or 3?"), *run[:2], result, new_markdown_cell("# A lesson"), run[2]]
    copy = copies.learners_copy(new_notebook(cells=cells), "01").cells
    assert [bool(cell.get("outputs")) for cell in copy] == [False, False, False, False, False, True]
    assert copy[3].source == f"## Result\n\n{copies.FOLD.format('It is 2.')}\n\nWhy?"
    assert copy[4].source == "# A lesson"


def test_solution_on_paper_is_not_in_the_copy() -> None:
    fold = "<details><summary>{}</summary>\n\n{}\n\n</details>"
    text = new_markdown_cell(
        f"Prove it.\n\n{fold.format('Hint 1', 'Add.')}\n{fold.format('Solution', '1 + 1')}\n\nNext"
    )
    (copy,) = copies.learners_copy(new_notebook(cells=[text]), "01_dataset.ipynb").cells
    hint = fold.format("Hint 1", "Add.")
    assert copy.source == f"Prove it.\n\n{hint}\nThe solution is in `notebooks/01_dataset.ipynb`.\n\nNext"


def test_copies_are_trusted_and_never_overwritten(root: Path) -> None:
    copies.make_copies(root)
    first, second = sorted((root / "my_course").glob("*.ipynb"))
    first.write_text("a learner's own work")
    second.unlink()
    copies.make_copies(root)
    assert first.read_text() == "a learner's own work"
    assert NotebookNotary().check_signature(nbformat.read(second, as_version=4))


def test_an_update_of_the_course_is_reported_and_changes_no_copy(
    root: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = lesson()
    changed.cells[1].source = "print(3)"
    changed.cells.append(new_markdown_cell("## A new part\n\n### Exercise 3", id="new"))
    nbformat.write(changed, root / "notebooks" / "01_dataset.ipynb")
    work = nbformat.read(copy, as_version=4)
    work.cells[2].source = "a learner's own work"
    nbformat.write(work, copy)
    before = copy.read_bytes()
    capsys.readouterr()
    copies.make_copies(root)
    assert copy.read_bytes() == before
    first, second = capsys.readouterr().out.splitlines()
    assert first == "01_dataset.ipynb has changed since your copy was made."
    assert "`make reset NB=01`" in second
    copies.reset("01", root)
    capsys.readouterr()
    copies.make_copies(root)
    assert capsys.readouterr().out == ""


def test_copies_of_the_course_are_the_same_bytes_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notebooks").symlink_to(copies.ROOT / "notebooks")
        copies.make_copies(tmp_path / name)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("my_course/*.ipynb")}
        for name in ("one", "two")
    )
    assert len(one) == len(copies.lessons(copies.ROOT))
    assert one == two


def test_running_all_cells_of_a_copy_stops_at_the_first_stub_with_a_sentence() -> None:
    original = copies.lessons(copies.ROOT)[0]
    copy = copies.learners_copy(nbformat.read(original, as_version=4), original.name)
    with pytest.raises(CellExecutionError) as stopped:
        NotebookClient(copy, timeout=300, resources={"metadata": {"path": str(original.parent)}}).execute()
    assert stopped.value.evalue == "Write your own code in place of this line, then run the check."
    first = next(i for i, cell in enumerate(copy.cells) if copies.STUB[0] in cell.source)
    executed = [i for i, cell in enumerate(copy.cells) if cell.get("execution_count")]
    assert executed[-1] == first


@pytest.mark.parametrize("number", ["01", "1", "01_dataset", "notebooks/01_dataset.ipynb"])
def test_reset_makes_a_fresh_copy_and_keeps_changed_work(root: Path, copy: Path, number: str) -> None:
    fresh = copy.read_text()
    copies.reset(number, root)  # there is no work to keep yet
    for work in ("first", "second"):
        copy.write_text(work)
        copies.reset(number, root)
        assert copy.read_text() == fresh
    kept = {path.name: path.read_text() for path in copy.parent.glob("*.my-work-*")}
    assert kept == {"01_dataset.my-work-1.ipynb": "first", "01_dataset.my-work-2.ipynb": "second"}


@pytest.mark.parametrize("number", ["", "0", "03", "*"])
def test_reset_of_an_unknown_notebook_changes_nothing(root: Path, copy: Path, number: str) -> None:
    copy.write_text("work")
    with pytest.raises(InputError, match="choose one of 01, 02"):
        copies.reset(number, root)
    assert copy.read_text() == "work"


def test_lab_makes_what_is_missing_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generated, started = [], []

    def generate(command: list[str], **_: object) -> CompletedProcess[str]:
        generated.append(command[1:])
        (root / command[-1] / "annotations").mkdir(parents=True)
        return CompletedProcess(command, 0)

    monkeypatch.setattr(classroom, "run", generate)
    monkeypatch.setattr(classroom, "DATA", root / "data")
    monkeypatch.setattr(classroom, "ROOT", root)
    monkeypatch.setattr(classroom, "make_copies", lambda: copies.make_copies(root))
    monkeypatch.setattr("jupyterlab.labapp.LabApp.launch_instance", started.append)
    for name in ("CONFIG_PATH", "PREFER_ENV_PATH", "PATH"):
        monkeypatch.setenv(f"JUPYTER_{name}", "")  # restored after the test
    for _ in range(2):
        assert classroom.main(["lab", "8890"]) == 0
    assert generated == [["-m", "helpers", name, "--out", f"data/{name}"] for name in ("scenes", "emoji")]
    assert (root / "my_course" / "01_dataset.ipynb").is_file()
    expected = {f"--ServerApp.root_dir={root / 'my_course'}", "--LabApp.default_url=/lab/tree/01_dataset.ipynb"}
    assert expected | {"--port=8890"} <= set(started[1])


@pytest.mark.parametrize("arguments", [[], ["cook"], ["lab", "many"], ["reset"], ["reset", "99"]])
def test_bad_input_gives_exit_code_2_and_no_traceback(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = classroom.main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("python -m helpers.classroom")
