"""What the browser tests share: a Chromium, a page that must stay without errors, and a JupyterLab of their own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

PROJECT = Path(__file__).resolve().parents[2]
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Jupyter:
    """A running JupyterLab. Files written into ``root`` can be opened by their names."""

    root: Path
    address: str
    token: str

    def url(self, notebook: str) -> str:
        """Where a notebook opens, in a workspace of its own, so that no test finds the tabs of another."""
        return f"{self.address}/lab/workspaces/{Path(notebook).stem}/tree/{notebook}?token={self.token}"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        advice = "install Chromium, for example `apt-get install chromium`, to run the browser tests"
        if os.environ.get("CI") == "true":
            pytest.fail(f"no browser found: {advice}")
        pytest.skip(advice)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page with nothing stored. The test fails when anything was wrong in its console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    errors: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(f"{message.text} ({message.location['url']})")

    page.on("console", listen)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors, "the page had errors:\n" + "\n".join(errors)


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """JupyterLab over copies of the notebooks, trusted, with settings of its own and nobody else's."""
    home = tmp_path_factory.mktemp("jupyter")
    root = home / "notebooks"
    root.mkdir()
    for notebook in (PROJECT / "notebooks").glob("*.ipynb"):
        shutil.copy(notebook, root)
    # Only the user's own folders move: kernels and lab extensions are still found beside this Python.
    own = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **own, "IPYTHONDIR": str(home / "ipython"), "PYTHONPATH": path}
    no_announcements = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (home / "config" / "labconfig").mkdir(parents=True)
    (home / "config" / "labconfig" / "page_config.json").write_text(json.dumps(no_announcements))
    copies = sorted(map(str, root.glob("*.ipynb")))
    if copies:
        subprocess.run([sys.executable, "-m", "jupyter", "trust", *copies], env=environment, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab = Jupyter(root, f"http://127.0.0.1:{port}", "for-the-tests")
    with (home / "log.txt").open("w+") as log:
        server = subprocess.Popen(lab_command(lab, port), env=environment, stdout=log, stderr=log)
        try:
            wait_until_it_answers(lab, server, home / "log.txt")
            yield lab
        finally:
            server.send_signal(signal.SIGTERM)  # the server ends its kernels before it goes
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def lab_command(lab: Jupyter, port: int) -> list[str]:
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": lab.root,
        "IdentityProvider.token": lab.token,
        "LabApp.expose_app_in_browser": True,  # a test may call a command: window.jupyterapp.commands.execute(...)
    }
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser"]
    return command + [f"--{name}={value}" for name, value in options.items()]


def wait_until_it_answers(lab: Jupyter, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{lab.address}/api/status?token={lab.token}", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
