"""Shared parts of the widgets. ipywidgets never frees a widget, so each one is passed to ``keep_one_per_cell``."""

import re
from collections.abc import Iterable
from pathlib import Path
from weakref import WeakSet

import traitlets
from IPython import get_ipython
from ipywidgets import Widget

from helpers.losses import check_temperature

runs: dict[str, tuple[str, WeakSet[Widget]]] = {}  # for each cell, its last run and the widgets of that run


class Temperature(traitlets.CFloat):
    """A trait that holds one finite number above 0."""

    def validate(self, widget: Widget, value: object) -> float:
        value = super().validate(widget, value)
        check_temperature(value)
        return value


def keep_one_per_cell(widget: Widget) -> None:
    """Close the widgets of an earlier run of this cell, except parts that are still in use, and remember ``widget``."""
    shell = get_ipython()
    request = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = request.get("metadata", {}).get("cellId")  # sent by JupyterLab, Notebook 7 and VS Code
    if cell is None:
        return
    run = request["header"]["msg_id"]
    old = list(runs.pop(cell)[1]) if cell in runs and runs[cell][0] != run else []
    runs.setdefault(cell, (run, WeakSet()))[1].add(widget)
    in_use = set(with_parts(widget for _, widgets in runs.values() for widget in widgets))
    for part in with_parts(old):
        if part not in in_use:
            part.close()


def with_parts(widgets: Iterable[Widget]) -> list[Widget]:
    """The widgets and all widgets that their traits hold, each once and before its parts."""
    found = list(dict.fromkeys(widgets))
    for widget in found:  # the list grows while it is read
        for value in widget.trait_values(sync=True).values():
            parts = value if isinstance(value, list | tuple) else [value]
            found += [part for part in parts if isinstance(part, Widget) and part not in found]
    return found


def browser_files(name: str) -> tuple[str, str]:
    """Script and style of a widget, with the shared ones before them, without comments and indentation."""
    both = []
    for suffix in (".js", ".css"):
        files = (Path(__file__).with_name(stem + suffix) for stem in ("shared", name))
        text = "".join(file.read_text(encoding="utf-8") for file in files)
        both.append(re.sub(r"^ *(//.*|/\*[^/]*\*/)\n|^ +", "", text, flags=re.MULTILINE))
    return tuple(both)
