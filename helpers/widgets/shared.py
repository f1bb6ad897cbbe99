"""What the course's widgets share: a cell that is run again leaves no widget of its earlier run behind.

Python never frees a widget by itself: ipywidgets' table, the kernel's table of comms and IPython's ``Out`` all keep it,
with its listeners, and the page keeps its twin. So whoever makes a widget hands it to :func:`one_a_cell`.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from weakref import WeakSet

import traitlets
from IPython import get_ipython
from ipywidgets import Widget

from helpers.losses import check_temperature

# For each cell, the run of it that last made widgets, and those widgets. It is the kernel's, and gone with it.
runs: dict[str, tuple[str, WeakSet[Widget]]] = {}


class Temperature(traitlets.CFloat):
    """A widget's temperature: anything but one finite number above 0 is refused in words, and the old one stays."""

    def validate(self, widget: Widget, value: object) -> float:
        value = super().validate(widget, value)
        try:
            check_temperature(value)
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None
        return value


def one_a_cell(*widgets: Widget) -> None:
    """Close what an earlier run of the cell now running handed in here, and remember ``widgets`` for the next run.

    A widget closes with its layout, its style and its children, save those that a remembered widget holds as well.
    Widgets of other cells, and of the same run, stay. A closed widget that a variable still holds keeps its values:
    they can be read and set, but no page shows them. Where the kernel is not told which cell runs (in a script, under
    nbclient or nbval) nothing is closed.
    """
    shell = get_ipython()
    request = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = request.get("metadata", {}).get("cellId")  # JupyterLab, Notebook 7 and VS Code name the cell there
    if cell is None:
        return
    run = request["header"]["msg_id"]
    old = list(runs.pop(cell)[1]) if cell in runs and runs[cell][0] != run else []
    runs.setdefault(cell, (run, WeakSet()))[1].update(widgets)
    still_held = set(with_parts(widget for _, made in runs.values() for widget in made))
    for widget in with_parts(old):
        if widget not in still_held:
            widget.close()


def with_parts(widgets: Iterable[Widget]) -> list[Widget]:
    """The widgets and all that they hold in their traits, each once and before its parts."""
    found = dict.fromkeys(widgets)
    waiting = list(found)
    while waiting:
        for value in waiting.pop().trait_values(sync=True).values():
            parts = value if isinstance(value, list | tuple) else [value]
            new = [part for part in parts if isinstance(part, Widget) and part not in found]
            found.update(dict.fromkeys(new))
            waiting.extend(new)
    return list(found)


def shipped(*names: str) -> str:
    """Files of the browser's half as one, without comments and indentation: a notebook stores it with each widget."""
    text = "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names)
    text = re.sub(r"^ *(//.*|/\*[^/]*\*/)\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^ +", "", text, flags=re.MULTILINE)
