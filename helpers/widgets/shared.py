"""Shared parts of the widgets."""

import re
from pathlib import Path

import traitlets
from ipywidgets import Widget

from helpers.losses import check_temperature


class Temperature(traitlets.CFloat):
    """A trait that holds one finite number above 0."""

    def validate(self, widget: Widget, value: object) -> float:
        value = super().validate(widget, value)
        try:
            check_temperature(value)
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None
        return value


def browser_files(name: str) -> tuple[str, str]:
    """Script and style of a widget, with the shared ones before them, without comments and indentation."""
    both = []
    for suffix in (".js", ".css"):
        files = (Path(__file__).with_name(stem + suffix) for stem in ("shared", name))
        text = "".join(file.read_text(encoding="utf-8") for file in files)
        text = re.sub(r"^ *(//.*|/\*[^/]*\*/)\n", "", text, flags=re.MULTILINE)
        both.append(re.sub(r"^ +", "", text, flags=re.MULTILINE))
    return tuple(both)
