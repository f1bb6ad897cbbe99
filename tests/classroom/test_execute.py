"""Executing a notebook stores the same bytes each time, and nothing of this machine."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from helpers.classroom import copies, execute
from helpers.classroom.__main__ import main

CELLS = {
    "where": "import os, sys\nprint(os.getcwd(), sys.executable, sep='\\n')",
    "twice": "print('a', flush=True)\nprint('b', flush=True)",
    "sliders": """import ipywidgets as widgets
hidden = widgets.IntSlider(description="hidden")
near, far = widgets.FloatSlider(description="near"), widgets.FloatSlider(description="far")
link = widgets.jslink((near, "value"), (far, "value"))
widgets.VBox([near, far])""",
}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A notebook that was executed twice, and its text after the first time."""
    path = tmp_path_factory.mktemp("a folder") / "01_sliders.ipynb"
    notebook = new_notebook(cells=[new_code_cell(source, id=name) for name, source in CELLS.items()])
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "My own Python"}, "kept": True}
    nbformat.write(notebook, path)
    execute.execute(path)
    first = path.read_text(encoding="utf-8")
    execute.execute(path)
    return path, first


@pytest.fixture
def notebook(executed: tuple[Path, str]) -> nbformat.NotebookNode:
    return nbformat.read(executed[0], as_version=4)


def test_outputs_come_from_this_python_in_the_folder_of_the_notebook(
    executed: tuple[Path, str], notebook: nbformat.NotebookNode
) -> None:
    where, twice, _ = notebook.cells
    assert where.outputs[0].text == f"{executed[0].parent}\n{sys.executable}\n"
    assert [output.text for output in twice.outputs] == ["a\nb\n"], "one output, even if it was flushed twice"
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3]
    assert [cell.id for cell in notebook.cells] == list(CELLS)


def test_no_timing_and_no_version_is_stored(notebook: nbformat.NotebookNode) -> None:
    assert all("execution" not in cell.metadata for cell in notebook.cells)
    assert notebook.metadata.kernelspec == {"name": "python3", "display_name": "Python 3", "language": "python"}
    assert notebook.metadata.language_info == {"name": "python", "file_extension": ".py"}
    assert notebook.metadata.kept


def test_executing_again_changes_no_byte(executed: tuple[Path, str]) -> None:
    path, first = executed
    assert path.read_text(encoding="utf-8") == first
    assert list(path.parent.iterdir()) == [path]


def test_only_shown_widgets_are_stored_with_their_parts_and_links(notebook: nbformat.NotebookNode) -> None:
    states = notebook.metadata.widgets[execute.WIDGET_STATE]["state"]
    descriptions = {state["state"].get("description", "") for state in states.values()}
    assert descriptions - {""} == {"far", "near"}
    assert [state["model_name"] for state in states.values()].count("LinkModel") == 1
    assert notebook.cells[2].outputs[0].data[execute.WIDGET_VIEW]["model_id"] in states
    assert set(execute.WIDGET_REFERENCE.findall(json.dumps(states))) <= set(states), "a part of a widget is missing"


def test_copy_drops_the_widgets_of_a_check(notebook: nbformat.NotebookNode) -> None:
    notebook.cells[2].metadata["tags"] = [copies.CHECK_TAG]
    assert "widgets" not in copies.learners_copy(notebook, "01").metadata


def test_notebook_that_fails_is_named_and_not_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "01_broken.ipynb"
    cells = [new_code_cell("print(1)", outputs=[new_output("stream", text="old\n")]), new_code_cell("1 / 0")]
    nbformat.write(new_notebook(cells=cells), path)
    before = path.read_bytes()
    assert main(["execute", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path} was not changed" in error
    assert "ZeroDivisionError" in error
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
