"""Cells run again in a real kernel: each leaves the widgets of its last run, whole, and nothing of those before."""

import ast
from collections.abc import Callable, Iterator

import ipywidgets
import pytest
from jupyter_client.manager import start_new_kernel
from matplotlib.figure import Figure

from helpers.widgets import figures as plots
from helpers.widgets.shared import with_parts

MAKERS = """
import comm, gc, ipywidgets
import ipywidgets.widgets.widget as table
import torch
from matplotlib.figure import Figure
from helpers.widgets import figures as plots
from helpers.widgets.shared import one_a_cell, runs
from helpers.widgets.explorer import TemperatureExplorer
from helpers.widgets.live import LiveTraining

def explorer():
    return TemperatureExplorer(torch.eye(4), torch.eye(4))

def live_figure():
    figure = Figure(figsize=(1, 1))
    return plots.live_figure(figure, lambda shade: figure.set_facecolor(str(shade / 9)),
                             shade=ipywidgets.IntSlider(3, 0, 9, description="Shade"))

def live_training():
    return LiveTraining(lambda temperature: {"loss": 1.0}, steps=10**9)

def box(*children):
    made = ipywidgets.VBox([ipywidgets.IntSlider(), *children])
    one_a_cell(made)
    return made

def count():
    comms = set(comm.get_comm_manager().comms)
    assert comms == set(table._instances), "a comm without its widget, or a widget without its comm"
    return len(comms)

def drawing(control):
    return len(control._trait_notifiers.get("value", {}).get("change", []))
"""

Run = Callable[..., object]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Run]:
    """Runs code as the cell of that id, and gives the value of an expression afterwards."""
    manager, client = start_new_kernel(kernel_name="python3")

    def run(code: str, cell: str | None = None, value: str = "None") -> object:
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {"value": value}}
        request = client.session.msg("execute_request", {**content, "allow_stdin": False, "stop_on_error": True})
        if cell is not None:
            request["metadata"]["cellId"] = cell  # as JupyterLab and Notebook 7 send it
        client.shell_channel.send(request)
        reply = client.get_shell_msg(timeout=120)
        while reply["parent_header"].get("msg_id") != request["header"]["msg_id"]:
            reply = client.get_shell_msg(timeout=120)
        answer = reply["content"]
        assert answer["status"] == "ok", answer.get("evalue")
        answer = answer["user_expressions"]["value"]
        assert answer["status"] == "ok", answer.get("evalue")
        return ast.literal_eval(answer["data"]["text/plain"])

    try:
        run(MAKERS)
        yield run
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture
def run(kernel: Run) -> Run:
    """The kernel with no widget in it."""
    kernel("ipywidgets.Widget.close_all(); runs.clear()")
    return kernel


@pytest.mark.parametrize("maker", ["explorer()", "live_figure()", "live_training()", "box()"])
def test_a_cell_run_fifty_times_leaves_the_comms_of_one_run(run: Run, maker: str) -> None:
    once = run(maker, "cell", "count()")
    assert once > 1  # the widget, and its layout at least
    for _ in range(49):
        last = run(maker, "cell", "count()")
    assert last == once


def test_every_cell_keeps_its_own(run: Run) -> None:
    first = run("a = box()", "first", "count()")
    both = run("b = box()", "second", "count()")
    assert both == 2 * first
    assert run("b = box()", "second", "count()") == both
    assert run("", None, "a.comm is not None and b.comm is not None") is True


def test_a_cell_that_makes_two_keeps_two(run: Run) -> None:
    one = run("box()", "other", "count()")
    for _ in range(3):
        assert run("for _ in range(2): box()", "cell", "count()") == 3 * one


def test_without_a_cell_id_nothing_is_closed(run: Run) -> None:
    counts = [run("box()", None, "count()") for _ in range(3)]
    assert counts == [counts[0], 2 * counts[0], 3 * counts[0]]


def test_a_control_of_another_cell_stays_and_draws_once(run: Run) -> None:
    control = "slider = ipywidgets.IntSlider(3, 0, 9, description='Shade')"
    figure = "figure = Figure(figsize=(1, 1)); picture = plots.live_figure(figure, lambda shade: None, shade=slider)"
    run(control, "control")
    once = run(figure, "figure", "count()")
    for _ in range(3):
        assert run(figure, "figure", "(slider.comm is not None, drawing(slider))") == (True, 1)
    assert run("", None, "count()") == once


def test_a_part_that_two_cells_hold_closes_with_neither(run: Run) -> None:
    run("shared = ipywidgets.Label('both')", "label")
    run("a = box(shared)", "first")
    run("b = box(shared)", "second")
    run("a = box()", "first")
    assert run("", None, "shared.comm is not None and shared.layout.comm is not None") is True
    run("b = box()", "second")
    assert run("", None, "shared.comm is None") is True


def test_a_closed_widget_in_a_variable_can_be_read_and_set(run: Run) -> None:
    run("kept = explorer()", "cell")
    run("explorer()", "cell")
    assert run("kept.temperature = 0.2", "elsewhere", "(kept.comm, kept.numbers()['temperature'])") == (None, 0.2)
    run("kept.close()", "elsewhere")
    run("explorer()", "cell")


def test_a_run_again_ends_the_training_of_the_run_before(run: Run) -> None:
    run("training = live_training(); task = training.start()", "cell")
    assert run("", None, "training.running") is True
    run("old = task; training = live_training()", "cell")
    run("await old", "elsewhere")
    assert run("", None, "len(training.curves['temperature'])") == 0


def test_parts_are_found_once_and_after_what_holds_them() -> None:
    slider = ipywidgets.IntSlider()
    inner = ipywidgets.VBox([slider])
    outer = ipywidgets.VBox([inner, slider])
    found = with_parts([outer])
    assert found[0] is outer
    assert sorted(map(id, found)) == sorted(
        map(id, [outer, inner, slider, outer.layout, inner.layout, slider.layout, slider.style])
    )


def test_a_live_figure_says_what_it_shows_and_lets_go_when_closed() -> None:
    figure = Figure(figsize=(2, 1))
    axis = figure.subplots()
    slider = ipywidgets.IntSlider(3, 0, 9, description="Angle")
    box = plots.live_figure(figure, lambda angle: axis.set_title(f"cosine {angle / 9:.2f}"), angle=slider)
    picture = box.children[-1]
    assert (picture.width, picture.height) == ("160", "80")
    before = picture.value
    slider.value = 9
    assert picture.value != before
    assert picture.tooltip == "Angle 9; cosine 1.00"
    assert box.figure is figure
    box.close()
    slider.value = 0
    assert picture.tooltip == "Angle 9; cosine 1.00"
    assert not hasattr(box, "figure")
