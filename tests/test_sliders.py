"""Every slider of the lessons is moved over its whole range, both ends included, in the kernel that made it."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

LESSONS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))

SWEEP = """
import gc
import ipywidgets

def positions(control):
    if isinstance(control, (ipywidgets.SelectionSlider, ipywidgets.Dropdown, ipywidgets.ToggleButtons)):
        return [value for _, value in control._options_full]
    if isinstance(control, (ipywidgets.IntSlider, ipywidgets.FloatSlider)):
        return [type(control.value)(control.min + (control.max - control.min) * k / 8) for k in range(9)]
    return []

everything = [thing for thing in gc.get_objects() if isinstance(thing, ipywidgets.Widget)]
boxes = [box for box in everything if isinstance(box, ipywidgets.VBox)]
for box in boxes:
    pictures = [part for part in box.children if isinstance(part, ipywidgets.Image)]
    for control in box.children:
        for picture in pictures:
            shown = set()
            for value in positions(control):
                control.value = value
                shown.add(picture.value)
            if len(positions(control)) > 1:
                assert len(shown) > 1, f"{control.description} moves, and its picture stays"
                print("moved", control.description)
"""


@pytest.mark.long
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_slider_moves_its_picture_over_its_whole_range(lesson: Path) -> None:
    notebook = nbformat.read(lesson, as_version=4)
    sliders = sum("live_figure(" in cell.source for cell in notebook.cells if cell.cell_type == "code")
    notebook.cells.append(nbformat.v4.new_code_cell(SWEEP))
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    moved = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    assert moved.count("moved") >= sliders
