"""The temperature explorer in Notebook 7."""

import pytest
from explorer_in_a_notebook import ExplorerInANotebook
from servers import Jupyter

pytestmark = pytest.mark.browser


class TestExplorerInNotebook7(ExplorerInANotebook):
    # Notebook 7.6 says this of its own shortcuts whenever it opens, with nothing of ours in it.
    faults_of_the_application = ("Cannot read properties of undefined (reading 'schema')",)

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, notebook7: Jupyter) -> Jupyter:
        return notebook7
