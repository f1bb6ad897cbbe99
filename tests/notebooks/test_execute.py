"""Executing a notebook stores the same bytes each time, and nothing of this machine."""

import json
import sys
from pathlib import Path

import execute
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from helpers.classroom import copies
from helpers.files import InputError

CELLS = {
    "where": "import os, sys\nprint(os.getcwd(), sys.executable, sep='\\n', flush=True)\nprint('one output')",
    "sliders": """import ipywidgets as widgets
hidden = widgets.IntSlider(description="hidden")
widgets.VBox([widgets.FloatSlider(description="near"), widgets.FloatSlider(description="far")])""",
}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook that was executed."""
    path = tmp_path_factory.mktemp("a folder") / "01_sliders.ipynb"
    notebook = new_notebook(cells=[new_code_cell(source, id=name) for name, source in CELLS.items()])
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "My own Python"}, "kept": True}
    nbformat.write(notebook, path)
    execute.execute(path)
    return path


@pytest.fixture
def notebook(executed: Path) -> nbformat.NotebookNode:
    return nbformat.read(executed, as_version=4)


def test_outputs_come_from_this_python_in_the_folder_of_the_notebook(
    executed: Path, notebook: nbformat.NotebookNode
) -> None:
    (output,) = notebook.cells[0].outputs
    assert output.text == f"{executed.parent}\n{sys.executable}\none output\n"
    assert [cell.execution_count for cell in notebook.cells] == [1, 2]
    assert [cell.id for cell in notebook.cells] == list(CELLS)


def test_no_timing_and_no_version_is_stored(notebook: nbformat.NotebookNode) -> None:
    assert all("execution" not in cell.metadata for cell in notebook.cells)
    assert notebook.metadata.kernelspec == {"name": "python3", "display_name": "Python 3", "language": "python"}
    assert notebook.metadata.language_info == {"name": "python", "file_extension": ".py"}
    assert notebook.metadata.kept


def test_executing_again_changes_no_byte(executed: Path) -> None:
    first = executed.read_bytes()
    execute.execute(executed)
    assert executed.read_bytes() == first


def test_only_shown_widgets_are_stored_with_their_parts(notebook: nbformat.NotebookNode) -> None:
    states = notebook.metadata.widgets[copies.WIDGET_STATE]["state"]
    descriptions = {state["state"].get("description", "") for state in states.values()}
    assert descriptions - {""} == {"far", "near"}
    assert notebook.cells[1].outputs[0].data[copies.WIDGET_VIEW]["model_id"] in states
    assert set(copies.PART_OF_WIDGET.findall(json.dumps(states))) <= set(states)


def test_copy_drops_the_widgets_of_a_check(notebook: nbformat.NotebookNode) -> None:
    notebook.cells[1].metadata["tags"] = [copies.CHECK_TAG]
    assert "widgets" not in copies.learners_copy(notebook, "01").metadata


def test_failing_notebook_is_named_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "01_broken.ipynb"
    cells = [new_code_cell("print(1)", outputs=[new_output("stream", text="old\n")]), new_code_cell("1 / 0")]
    nbformat.write(new_notebook(cells=cells), path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="(?s)was not changed.*ZeroDivisionError") as caught:
        execute.execute(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
