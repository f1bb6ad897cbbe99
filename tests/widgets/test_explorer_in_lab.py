"""The temperature explorer in JupyterLab."""

import pytest
from explorer_in_a_notebook import ExplorerInANotebook
from explorer_view import ExplorerView
from notebook_page import NotebookPage
from servers import Jupyter

pytestmark = pytest.mark.browser


class TestExplorerInJupyterLab(ExplorerInANotebook):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, jupyter: Jupyter) -> Jupyter:
        return jupyter

    def test_it_shuts_nobody_out_in_the_dark(self, notebook: NotebookPage) -> None:
        view = ExplorerView(notebook.page)
        for theme, light in (("JupyterLab Dark", "false"), ("JupyterLab Light", "true")):
            notebook.page.evaluate(
                "(theme) => jupyterapp.commands.execute('apputils:change-theme', { theme }).then(() => null)", theme
            )
            notebook.page.locator(f"body[data-jp-theme-light={light}]").wait_for(state="attached")
            if light == "false":
                assert view.faults() == []

    def test_running_the_cell_again_leaves_one_explorer(self, notebook: NotebookPage) -> None:
        comms = "len(__import__('comm').get_comm_manager().comms)"
        before = notebook.ask(comms)
        for _ in range(3):
            notebook.run(0)
        assert notebook.ask(comms) == before
        assert notebook.page.locator(".temperature-explorer").count() == 1
        assert ExplorerView(notebook.page).numbers()["temperature"] == 0.07
