"""What the tests and the benchmarks start: a Chromium, and a JupyterLab or Notebook 7 of their own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

PROJECT = Path(__file__).resolve().parents[2]
NO_CHROMIUM = "no browser found: install Chromium, for example `apt-get install chromium`"
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Application = Literal["jupyterlab", "notebook"]


@dataclass
class Jupyter:
    """A running server. Files written into ``root`` can be opened by their names."""

    application: Application
    root: Path
    address: str
    token: str

    def url(self, notebook: str) -> str:
        """Where a notebook opens; in JupyterLab in a workspace of its own, so that no test finds another's tabs."""
        place = {"jupyterlab": f"lab/workspaces/{Path(notebook).stem}/tree", "notebook": "notebooks"}
        return f"{self.address}/{place[self.application]}/{notebook}?token={self.token}"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium.

    Raises:
        FileNotFoundError: where there is none, with advice.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        raise FileNotFoundError(NO_CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@contextmanager
def serve(application: Application, home: Path, notebooks: Iterable[Path] = ()) -> Iterator[Jupyter]:
    """JupyterLab or Notebook 7 over trusted copies of notebooks, with settings of its own and nobody else's.

    Raises:
        RuntimeError: when it does not start, with the end of its log.
    """
    root = home / "notebooks"
    root.mkdir()
    copies = [shutil.copy(notebook, root) for notebook in notebooks]
    # Only the user's own folders move: kernels and lab extensions are still found beside this Python.
    own = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **own, "IPYTHONDIR": str(home / "ipython"), "PYTHONPATH": path}
    no_announcements = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (home / "config" / "labconfig").mkdir(parents=True)
    (home / "config" / "labconfig" / "page_config.json").write_text(json.dumps(no_announcements))
    if copies:
        subprocess.run([sys.executable, "-m", "jupyter", "trust", *sorted(copies)], env=environment, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jupyter = Jupyter(application, root, f"http://127.0.0.1:{port}", "for-the-tests")
    with (home / "log.txt").open("w+") as log:
        server = subprocess.Popen(command(jupyter, port), env=environment, stdout=log, stderr=log)
        try:
            wait_until_it_answers(jupyter, server, home / "log.txt")
            yield jupyter
        finally:
            server.send_signal(signal.SIGTERM)  # the server ends its kernels before it goes
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def command(jupyter: Jupyter, port: int) -> list[str]:
    settings = {"jupyterlab": "LabApp", "notebook": "JupyterNotebookApp"}[jupyter.application]
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": jupyter.root,
        "IdentityProvider.token": jupyter.token,
        "LabServerApp.extra_labextensions_path": PROJECT / "helpers" / "widgets" / "labextensions",
        f"{settings}.expose_app_in_browser": True,  # a test may reach into it: window.jupyterapp
    }
    start = [sys.executable, "-m", jupyter.application, "--allow-root", "--no-browser"]
    return start + [f"--{name}={value}" for name, value in options.items()]


def wait_until_it_answers(jupyter: Jupyter, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{jupyter.address}/api/status?token={jupyter.token}", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{jupyter.application} did not start:\n{log.read_text()[-3000:]}")
