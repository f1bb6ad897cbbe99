"""A cell that is run again closes the widgets of its earlier run, with all their parts."""

from types import SimpleNamespace

import ipywidgets
import pytest
from ipywidgets.widgets.widget import _instances
from matplotlib.figure import Figure

from helpers.widgets import figures, shared
from helpers.widgets.shared import keep_one_per_cell


def test_a_cell_keeps_the_widgets_of_its_last_run(monkeypatch: pytest.MonkeyPatch) -> None:
    request = {}
    monkeypatch.setattr(shared, "get_ipython", lambda: SimpleNamespace(get_parent=lambda: request))
    monkeypatch.setattr(shared, "runs", {})

    def run(cell: str | None, message: str) -> ipywidgets.VBox:
        request.update(metadata={"cellId": cell}, header={"msg_id": message})
        box = ipywidgets.VBox([ipywidgets.IntSlider(), common])
        keep_one_per_cell(box)
        return box

    common = ipywidgets.Label("in both cells")
    first, second = run("first", "1"), run("second", "2")
    count = len(_instances)
    again = run("first", "3")
    assert len(_instances) == count
    assert first.comm is None
    assert first.children[0].comm is None
    assert again.comm is not None
    assert second.comm is not None
    assert common.comm is not None  # the second cell holds it too
    run("first", "3")  # two widgets in one run: both stay
    assert again.comm is not None
    run(None, "4"), run(None, "5")  # a script: nothing is closed
    assert second.comm is not None


def test_a_live_figure_follows_its_controls() -> None:
    figure = Figure(figsize=(2, 1))
    axis = figure.subplots()
    slider = ipywidgets.IntSlider(3, 0, 9, description="Angle")
    box = figures.live_figure(figure, lambda angle: axis.set_title(f"cosine {angle / 9:.2f}"), angle=slider)
    picture = box.children[-1]
    before = picture.value
    slider.value = 9
    assert picture.value != before
    assert picture.tooltip == "Angle 9; cosine 1.00"
