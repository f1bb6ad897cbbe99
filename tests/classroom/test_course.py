"""The learner's copies, resetting them, executing notebooks in place, and how JupyterLab is started."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.classroom import course
from helpers.files import InputError

SOLUTION = '''def double(number: int) -> int:
    """Twice the number."""
    ### BEGIN SOLUTION
    twice = number + number

    return twice
    ### END SOLUTION'''


def code(name: str, source: str, *tags: str, shown: str | None = None) -> NotebookNode:
    outputs = [] if shown is None else [new_output("stream", text=shown)]
    return new_code_cell(source, id=name, metadata={"tags": list(tags)} if tags else {}, outputs=outputs)


def lesson(*cells: NotebookNode) -> NotebookNode:
    """A notebook with the given cells, executed in order as far as the counts tell."""
    notebook = new_notebook(cells=[new_markdown_cell("# Doubling", id="title"), *cells])
    for count, cell in enumerate(cells, start=1):
        cell.execution_count = count
    return notebook


def doubling() -> NotebookNode:
    return lesson(
        code("shown", "print(2)", shown="2\n"),
        code("exercise-double", SOLUTION, shown="the solution's\n"),
        code("check-double", "assert double(2) == 4", "exercise-check", shown="right\n"),
        code("after", "print(3)", shown="3\n"),
    )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course of two notebooks in a folder with a space in its name, and a Jupyter that knows nobody."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    root = tmp_path / "a course"
    (root / "notebooks").mkdir(parents=True)
    for name in ("01_dataset", "02_contrastive_loss"):
        nbformat.write(doubling(), root / "notebooks" / f"{name}.ipynb")
    return root


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def test_stub_stands_in_place_of_the_solution() -> None:
    source = course.without_solutions(SOLUTION, "here")
    assert "twice" not in source
    assert "SOLUTION" not in source
    assert '"""Twice the number."""' in source
    namespace: dict = {}
    exec(source, namespace)
    with pytest.raises(NotImplementedError, match="your own code"):
        namespace["double"](2)


def test_every_solution_of_a_cell_is_replaced_and_what_is_between_stays() -> None:
    source = (
        "### BEGIN SOLUTION\na = 1\n### END SOLUTION\nkept = 2\nif kept:\n\t# begin solution\n\tb = 3\n\t# end solution"
    )
    stubbed = course.without_solutions(source, "here")
    assert stubbed.count("raise NotImplementedError") == 2
    assert "kept = 2" in stubbed
    assert "a = 1" not in stubbed
    assert "b = 3" not in stubbed
    compile(stubbed, "stubbed", "exec")


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("### BEGIN SOLUTION\na = 1", "END SOLUTION"),
        ("a = 1\n### END SOLUTION", "BEGIN SOLUTION"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "END SOLUTION"),
        ("### BEGIN SOLUTION\n### END SOLUTION\n### END SOLUTION", "BEGIN SOLUTION"),
    ],
)
def test_marker_without_partner_names_notebook_and_cell(root: Path, source: str, missing: str) -> None:
    nbformat.write(lesson(code("exercise-odd", source)), root / "notebooks" / "02_contrastive_loss.ipynb")
    with pytest.raises(InputError, match=rf"02_contrastive_loss.ipynb, cell exercise-odd: .* without a .*{missing}"):
        course.make_copies(root)
    assert not (root / "my_course" / "02_contrastive_loss.ipynb").exists()


def test_copy_shows_the_lesson_and_neither_solution_nor_check() -> None:
    original = doubling()
    copy = {cell.id: cell for cell in course.learners_copy(original, "01").cells}
    assert copy["shown"] == original.cells[1]
    assert copy["after"] == original.cells[4]
    for name in ("exercise-double", "check-double"):
        assert copy[name].outputs == []
        assert copy[name].execution_count is None
    assert copy["check-double"].source == "assert double(2) == 4"
    assert original == doubling(), "the original was changed"


def test_copies_are_made_trusted_and_never_overwritten(root: Path) -> None:
    made = course.make_copies(root)
    assert [path.name for path in made] == ["01_dataset.ipynb", "02_contrastive_loss.ipynb"]
    assert all(NotebookNotary().check_signature(read(path)) for path in made)
    made[0].write_text("a learner's own", encoding="utf-8")
    made[1].unlink()
    assert course.make_copies(root) == [made[1]]
    assert made[0].read_text(encoding="utf-8") == "a learner's own"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert course.make_copies(root) == []
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_copies_need_a_folder_and_notebooks(root: Path) -> None:
    (root / "my_course").write_text("in the way")
    with pytest.raises(InputError, match="is a file"):
        course.make_copies(root)
    with pytest.raises(InputError, match="no notebook in"):
        course.make_copies(root / "elsewhere")
    assert (root / "my_course").read_text() == "in the way"


@pytest.mark.parametrize("number", ["01", "1", "01_dataset", "01_dataset.ipynb"])
def test_reset_brings_a_copy_back_and_keeps_the_work(root: Path, number: str) -> None:
    copy, other = course.make_copies(root)
    fresh, untouched = copy.read_text(), other.read_text()
    for work in ("first", "second"):
        copy.write_text(work)
        kept = course.reset(number, root)
        assert kept.parent == copy.parent
        assert kept.read_text() == work
        assert copy.read_text() == fresh
    assert sorted(path.name for path in copy.parent.iterdir()) == [
        "01_dataset.ipynb",
        "01_dataset.my-work-1.ipynb",
        "01_dataset.my-work-2.ipynb",
        "02_contrastive_loss.ipynb",
    ]
    assert other.read_text() == untouched


def test_reset_keeps_nothing_where_nothing_was_written(root: Path) -> None:
    copy, _ = course.make_copies(root)
    assert course.reset("01", root) is None
    copy.unlink()
    assert course.reset("01", root) is None
    assert copy.exists()
    assert len(list(copy.parent.iterdir())) == 2


@pytest.mark.parametrize("number", ["", "0", "03", "dataset", "../01_dataset", "*"])
def test_reset_of_an_unknown_notebook_is_refused_and_moves_nothing(root: Path, number: str) -> None:
    copy, _ = course.make_copies(root)
    copy.write_text("work")
    with pytest.raises(InputError, match="choose one, .*01_dataset, 02_contrastive_loss"):
        course.reset(number, root)
    assert copy.read_text() == "work"


def test_reset_moves_nothing_when_the_fresh_copy_cannot_be_made(root: Path) -> None:
    copy, _ = course.make_copies(root)
    copy.write_text("work")
    nbformat.write(lesson(code("odd", "### BEGIN SOLUTION")), root / "notebooks" / "01_dataset.ipynb")
    with pytest.raises(InputError, match="cell odd"):
        course.reset("01", root)
    assert copy.read_text() == "work"


WIDGETS = """import ipywidgets as widgets
unseen = widgets.IntSlider(description="unseen")
near, far = widgets.FloatSlider(description="near"), widgets.FloatSlider(description="far")
link = widgets.jslink((near, "value"), (far, "value"))
widgets.VBox([near, far])"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A notebook executed twice, with how it was after the first time."""
    path = tmp_path_factory.mktemp("a folder") / "01_sliders.ipynb"
    notebook = lesson(
        code("where", "import os, sys\nprint(os.getcwd(), sys.executable, sep='\\n')"),
        code("twice", "print('a', flush=True)\nprint('b', flush=True)"),
        code("sliders", WIDGETS),
    )
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "My own Python"}, "kept": True}
    nbformat.write(notebook, path)
    course.execute(path)
    first = path.read_text(encoding="utf-8")
    course.execute(path)
    return path, first


def test_executing_stores_outputs_of_this_python_in_the_notebooks_folder(executed: tuple[Path, str]) -> None:
    notebook = read(executed[0])
    assert notebook.cells[1].outputs[0].text == f"{executed[0].parent}\n{sys.executable}\n"
    assert [output.text for output in notebook.cells[2].outputs] == ["a\nb\n"], "one stream, however it was flushed"
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2, 3]
    assert [cell.id for cell in notebook.cells] == ["title", "where", "twice", "sliders"]


def test_executing_leaves_no_timing_and_no_version_behind(executed: tuple[Path, str]) -> None:
    notebook = read(executed[0])
    assert all("execution" not in cell.metadata for cell in notebook.cells)
    assert notebook.metadata.kernelspec == {"name": "python3", "display_name": "Python 3", "language": "python"}
    assert notebook.metadata.language_info == {"name": "python", "file_extension": ".py"}
    assert notebook.metadata.kept


def test_executing_again_changes_not_a_byte(executed: tuple[Path, str]) -> None:
    path, first = executed
    assert path.read_text(encoding="utf-8") == first
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_only_widgets_that_are_shown_are_stored_with_their_links(executed: tuple[Path, str]) -> None:
    notebook = read(executed[0])
    states = notebook.metadata.widgets[course.WIDGET_STATE]["state"]
    described = sorted(state["state"].get("description", "") for state in states.values())
    assert [name for name in described if name] == ["far", "near"]
    kinds = [state["model_name"] for state in states.values()]
    assert kinds.count("LinkModel") == 1
    assert notebook.cells[3].outputs[0].data[course.WIDGET_VIEW]["model_id"] in states
    text = json.dumps(states)
    assert set(course.WIDGET_REFERENCE.findall(text)) <= set(states), "a stored widget misses a part"


def test_copy_drops_the_widgets_of_a_check(executed: tuple[Path, str]) -> None:
    notebook = read(executed[0])
    notebook.cells[3].metadata["tags"] = [course.CHECK_TAG]
    assert "widgets" not in course.learners_copy(notebook, "01").metadata


def test_failing_notebook_is_named_and_left_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "01_broken.ipynb"
    nbformat.write(lesson(code("fine", "print(1)", shown="old\n"), code("broken", "1 / 0")), path)
    before = path.read_bytes()
    assert course.main(["execute", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"{path} is as it was" in said
    assert "ZeroDivisionError" in said
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_is_no_notebook_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "01_text.ipynb"
    text.write_text("no JSON")
    for path in (text, tmp_path / "missing.ipynb"):
        assert course.main(["execute", str(path)]) == 2
        assert f"{path} cannot be read as a notebook" in capsys.readouterr().err


def test_lab_opens_the_first_notebook_of_the_copies() -> None:
    arguments = course.lab_arguments(Path("my_course"), "01_dataset.ipynb", None, display=True, root_user=False)
    assert "--ServerApp.root_dir=my_course" in arguments
    assert "--LabApp.default_url=/lab/tree/01_dataset.ipynb" in arguments
    left_to_jupyterlab = (".port", "browser", "allow_root")
    assert not [argument for argument in arguments if any(option in argument for option in left_to_jupyterlab)]


def test_lab_takes_the_port_that_is_named_and_no_other() -> None:
    arguments = course.lab_arguments(Path("."), "01.ipynb", 8890, display=True, root_user=False)
    assert {"--ServerApp.port=8890", "--ServerApp.port_retries=0"} <= set(arguments)


def test_lab_opens_no_browser_without_a_display_and_lets_root_in() -> None:
    arguments = course.lab_arguments(Path("."), "01.ipynb", None, display=False, root_user=True)
    assert {"--ServerApp.open_browser=False", "--ServerApp.allow_root=True"} <= set(arguments)


@pytest.mark.parametrize(
    ("platform", "variables", "answer"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("darwin", {}, True),
        ("win32", {}, True),
    ],
)
def test_display(monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], answer: bool) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert course.has_display() is answer


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What JupyterLab was started with, by a JupyterLab that ends at once."""
    calls: list[list[str]] = []
    monkeypatch.setattr("jupyterlab.labapp.LabApp.launch_instance", calls.append)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "mine")
    return calls


def test_second_start_draws_and_copies_nothing(
    root: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(command: list[str], cwd: Path, check: bool) -> subprocess.CompletedProcess[str]:
        drawn.append(command[1:])
        annotations = cwd / command[-1] / "annotations"
        annotations.mkdir(parents=True)
        for split in ("minimal", "test"):
            (annotations / f"captions_{split}.json").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", draw)
    course.lab(root=root)
    assert drawn == [["-m", f"helpers.{name}", "--out", f"data/{name}"] for name in ("scenes", "emoji")]
    assert os.environ["JUPYTER_CONFIG_PATH"] == f"{root / 'helpers'}{os.pathsep}mine"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    course.lab(root=root)
    assert len(drawn) == 2
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert len(started) == 2
    assert started[0] == started[1]
    assert f"--ServerApp.root_dir={root / 'my_course'}" in started[0]


def test_scenes_of_an_earlier_version_are_drawn_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = root / "data/scenes/annotations/captions_test.json"
    for path in (old, root / "data/emoji/annotations/captions_test.json", root / "data/mine/annotations/captions.json"):
        path.parent.mkdir(parents=True)
        path.touch()
    drawn = []

    def draw(command: list[str], cwd: Path, check: bool) -> subprocess.CompletedProcess[str]:
        drawn.append((command[-1], old.exists()))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", draw)
    course.draw_pairs(root)
    assert drawn == [("data/scenes", False)]
    assert (root / "data/mine/annotations/captions.json").exists()


def test_scenes_that_cannot_be_drawn_stop_the_start(
    root: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(InputError, match="scenes could not be drawn"):
        course.lab(root=root)
    assert started == []


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_impossible_port_is_refused(root: Path, started: list[list[str]], port: int) -> None:
    with pytest.raises(InputError, match=f"{port} is no port"):
        course.lab(port, root)
    assert started == []


def test_taken_port_is_refused_before_anything_is_made(root: Path, started: list[list[str]]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} cannot be used"):
            course.lab(port, root)
    assert started == []
    assert not (root / "my_course").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["cook"], ["lab", "--port", "many"], ["reset"], ["reset", "99"], ["execute"]]
)
def test_command_line_answers_bad_input_with_one_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = course.main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("helpers.course")


def test_announcements_are_off_for_this_start() -> None:
    page = json.loads((course.ROOT / "helpers/labconfig/page_config.json").read_text())
    assert page["disabledExtensions"] == {"@jupyterlab/apputils-extension:announcements": True}
