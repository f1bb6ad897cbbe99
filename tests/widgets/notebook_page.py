"""A notebook open in JupyterLab or Notebook 7: its cells run by the keyboard, its kernel asked without a cell."""

import ast
import json
import re
import time
from collections.abc import Sequence

from playwright.sync_api import Page, expect
from servers import Jupyter

PATIENCE = 60  # seconds
NOTEBOOK = "window.jupyterapp.shell.currentWidget"
KERNEL = f"{NOTEBOOK}?.sessionContext.session?.kernel"


class NotebookPage:
    """Writes a notebook of the given cells, opens it and waits for its kernel. No cell is run yet."""

    def __init__(self, page: Page, jupyter: Jupyter, name: str, cells: Sequence[str]) -> None:
        self.page = page
        blank = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        cells = [{**blank, "id": f"cell-{i}", "source": source} for i, source in enumerate(cells)]
        document = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
        (jupyter.root / name).write_text(json.dumps(document))
        page.goto(jupyter.url(name))
        page.locator(".jp-CodeCell").nth(len(cells) - 1).wait_for(timeout=60_000)
        # A cell run before the kernel has answered is dropped without a word.
        page.wait_for_function(f"{KERNEL}?.connectionStatus === 'connected'", timeout=60_000)
        page.evaluate(f"{KERNEL}.info.then(() => null)")

    def run(self, index: int) -> str:
        """Run one cell to its end, as a learner does; returns the text it put out."""
        cell = self.page.locator(".jp-CodeCell").nth(index)
        prompt = cell.locator(".jp-InputPrompt")
        before = prompt.inner_text()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        expect(prompt).not_to_have_text(before)
        expect(prompt).to_have_text(re.compile(r"\d"), timeout=120_000)
        return " ".join(cell.locator(".jp-OutputArea-output").all_inner_texts())

    def ask(self, expression: str, before: str = "") -> object:
        """The value of an expression in the kernel, a Python literal, after some statements; no cell is made."""
        answer = self.page.evaluate(
            f"""async ([code, expression]) => {{
                const request = {{ code, user_expressions: {{ expression }}, store_history: false }};
                const {{ content }} = await {KERNEL}.requestExecute(request).done;
                const answer = content.status === "ok" ? content.user_expressions.expression : content;
                return answer.status === "ok" ? answer.data["text/plain"] : answer;
            }}""",
            [before, expression],
        )
        if not isinstance(answer, str):
            raise RuntimeError(f"the kernel answered to {expression!r}: {answer.get('ename')}: {answer.get('evalue')}")
        return ast.literal_eval(answer)

    def ask_until(self, expression: str, expected: object) -> None:
        """Wait until the answer is as expected: what the hand did reaches the kernel a little later."""
        end = time.monotonic() + PATIENCE
        while (answer := self.ask(expression)) != expected:
            assert time.monotonic() < end, f"{expression} is {answer!r}, not {expected!r}"

    def active_cell(self) -> int:
        """Which cell the application has in hand."""
        return self.page.evaluate(f"{NOTEBOOK}.content.activeCellIndex")
