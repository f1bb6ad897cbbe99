"""Every control of the lessons' figures is moved over its whole range: nothing fails, and the figure follows."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"

# Runs after the last cell of a lesson.
SWEEP = """
import gc
import ipywidgets

def positions(control):
    if isinstance(control, (ipywidgets.SelectionSlider, ipywidgets.Dropdown, ipywidgets.ToggleButtons)):
        return [value for _, value in control._options_full]
    assert isinstance(control, ipywidgets.IntSlider), f"unknown control {control}"
    return list(range(control.min, control.max + 1, control.step))

def sweep(box):
    *controls, picture = box.children
    for control in controls:
        start, seen = control.value, set()
        for value in positions(control):
            control.value = value
            seen.add(picture.value)
        assert len(seen) > 1, f"{control.description} does not change the figure"
        control.value = start
        print("moved", control.description)

for thing in [thing for thing in gc.get_objects() if isinstance(thing, ipywidgets.Widget)]:
    if thing.model_id not in SHOWN:
        continue
    if isinstance(thing, ipywidgets.VBox):
        sweep(thing)
"""

LESSONS = ("02_contrastive_loss", "04_multi_scale", "06_experiments")


@pytest.mark.long
@pytest.mark.parametrize("lesson", LESSONS)
def test_every_figure_follows_its_controls(lesson: str) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3")
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        views = [
            output["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
            for cell in notebook.cells
            for output in cell.get("outputs", [])
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
        ]
        code = f"SHOWN = {set(views)}\n" + SWEEP
        notebook.cells.append(nbformat.v4.new_code_cell(code))
        last = client.execute_cell(notebook.cells[-1], len(notebook.cells) - 1)
    assert "moved" in "".join(output.get("text", "") for output in last.outputs)
