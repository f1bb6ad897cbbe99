"""Execute notebooks in place, so that the stored outputs do not depend on when and where this is done.

``python tests/notebooks/execute.py NOTEBOOK ...`` does it for some, and ``make notebooks`` for all.
"""

import base64
import hashlib
import io
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbformat import NotebookNode
from PIL import Image

from helpers.classroom.copies import WIDGET_STATE, keep_shown_widgets, outputs_with, write_notebook
from helpers.files import InputError

CELL_SECONDS = 900


def with_stable_widget_ids(notebook: NotebookNode, name: str) -> NotebookNode:
    """Replace the random ids of widgets by hashes of their numbers, so that executing again changes nothing."""
    text = nbformat.writes(notebook)
    states = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for number, model in enumerate(states):
        text = text.replace(model, hashlib.sha256(f"{name} {number}".encode()).hexdigest()[:32])
    return nbformat.reads(text, as_version=4)


def shrink_pictures(notebook: NotebookNode) -> None:
    """Reduce each figure to 256 colours, which looks almost the same and takes a third of the space."""
    for data in outputs_with(notebook, "image/png"):
        with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
            few_colours = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1)
        small = io.BytesIO()
        few_colours.save(small, format="PNG", optimize=True)
        data["image/png"] = base64.b64encode(small.getvalue()).decode()


def execute(path: Path) -> None:
    """Run a notebook from top to bottom and store its outputs in it. If a cell fails, the file is not changed."""
    print(f"Executing {path} ...", flush=True)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    try:
        client.execute()
    except (CellControlSignal, DeadKernelError) as error:
        raise InputError(f"{path} was not changed, because a cell failed:\n{error}") from None
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["language_info"] = {"name": "python", "file_extension": ".py"}
    keep_shown_widgets(notebook)
    shrink_pictures(notebook)
    write_notebook(with_stable_widget_ids(notebook, path.stem), path)


if __name__ == "__main__":
    try:
        for notebook in sys.argv[1:]:
            execute(Path(notebook))
    except InputError as error:
        sys.exit(str(error))
