"""A class on a real JupyterHub, with the settings that HUB.md shows.

``LEARNERS=3`` makes the class smaller. ``pytest -m long -s`` prints the figures that HUB.md has in its table.
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
import websocket

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "HUB.md").read_text(encoding="utf-8")
LEARNERS = int(os.environ.get("LEARNERS", "30"))
TOKEN = "for-the-tests"
MOVES = 100
PATIENCE = 600  # seconds
# What the test changes: where the class comes from, and free ports.
SETTINGS = """
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{homes}/{{username}}"
c.JupyterHub.bind_url = "http://127.0.0.1:{ports[0]}"
c.JupyterHub.hub_port = {ports[1]}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{ports[2]}"
c.ConfigurableHTTPProxy.command = ["{proxy}"]
c.Spawner.args.append("--allow-root")  # for tests that run as root
c.JupyterHub.services.append({{"name": "test", "api_token": "{token}"}})
SCOPES = ["admin:users", "admin:servers", "access:servers"]
c.JupyterHub.load_roles.append({{"name": "test", "services": ["test"], "scopes": SCOPES}})
"""

pytestmark = [pytest.mark.long, pytest.mark.browser]


def settings_of_the_page() -> str:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return block


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the course as /srv/course is on the page, its environment with JupyterHub."""
    if sys.platform != "linux" or not shutil.which("npm"):
        pytest.skip("needs Linux and npm")
    course = tmp_path_factory.mktemp("srv") / "course"
    (course / "data").mkdir(parents=True)
    for name in ("helpers", "notebooks"):
        shutil.copytree(PROJECT / name, course / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for path in (PROJECT / "data").iterdir():
        if path.name != "cache":
            (course / "data" / path.name).symlink_to(path.resolve())
    for name in ("Makefile", "pyproject.toml", "requirements.txt"):
        shutil.copy(PROJECT / name, course)
    install(course)
    command = ["-m", "helpers", "train", "--data", "data/scenes", "--out", course.parent / "run", "--epochs", "0.1"]
    subprocess.run([course / ".venv/bin/python", *command], cwd=course, check=True, capture_output=True)
    return course


def install(course: Path) -> None:
    """An environment with the packages of this one, by a path and two links, and JupyterHub with its proxy."""
    new, this = course / ".venv", Path(sys.prefix)
    subprocess.run([sys.executable, "-m", "venv", new], check=True)
    for name in ("share", "etc"):
        (new / name).mkdir(exist_ok=True)
        (new / name / "jupyter").symlink_to(this / name / "jupyter")
    packages = next((new / "lib").glob("python*/site-packages"))
    (packages / "course.pth").write_text(f"{course}\n{next((this / 'lib').glob('python*/site-packages'))}\n")
    (new / "ready").touch()  # for make
    pip = [new / "bin/python", "-m", "pip", "install", "--quiet", "jupyterhub", "jupyterhub-idle-culler"]
    npm = ["npm", "install", "--silent", "--prefix", course.parent / "node", "configurable-http-proxy"]
    for command in (pip, npm):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"JupyterHub could not be installed: {done.stderr[-300:]}")


class Hub:
    """A running hub, asked as its service ``test``."""

    def __init__(self, port: int, homes: Path, log: Path) -> None:
        self.address, self.homes, self.log = f"http://127.0.0.1:{port}", homes, log

    def ask(self, path: str, content: object = None, method: str | None = None) -> dict:
        data = None if content is None else json.dumps(content).encode()
        headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or "{}")

    def server(self, name: str) -> dict:
        """The hub's record of a learner's server; {} if it does not run."""
        return self.ask(f"/hub/api/users/{name}")["servers"].get("", {})


@contextmanager
def run_hub(course: Path, folder: Path, settings: str) -> Iterator[Hub]:
    """JupyterHub with settings for ``/srv/course``, here for a copy of the course."""
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        for free in (first, second, third):
            free.bind(("127.0.0.1", 0))
        ports = [free.getsockname()[1] for free in (first, second, third)]
    proxy = course.parent / "node/node_modules/.bin/configurable-http-proxy"
    own = SETTINGS.format(homes=folder / "homes", ports=ports, proxy=proxy, token=TOKEN)
    (folder / "jupyterhub_config.py").write_text(settings.replace("/srv/course", str(course)) + own)
    unset = {"PYTHONPATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "COURSE_QUICK"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    hub = Hub(ports[0], folder / "homes", folder / "log.txt")
    with hub.log.open("w") as log:
        command = [course / ".venv/bin/python", "-m", "jupyterhub", "-f", "jupyterhub_config.py"]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            for _ in range(PATIENCE):
                try:
                    hub.ask("/hub/api/users")
                    break
                except OSError:
                    assert process.poll() is None, hub.log.read_text()[-3000:]
                    time.sleep(1)
            yield hub
        finally:
            process.send_signal(signal.SIGTERM)  # the hub stops the servers, and these their kernels
            process.wait(PATIENCE)


class Learner:
    """A learner with a server and a kernel for lesson 03."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.hub, self.name = hub, name
        hub.ask(f"/hub/api/users/{name}", method="POST")
        hub.ask(f"/hub/api/users/{name}/server", method="POST")
        end = time.monotonic() + PATIENCE
        while not (server := hub.server(name)).get("ready"):
            assert server, f"the server of {name} ended: {hub.log.read_text()[-3000:]}"
            assert time.monotonic() < end, hub.log.read_text()[-3000:]
            time.sleep(5)  # so that the asking is no work

    def open(self, notebook: str) -> None:
        """Start a kernel, as JupyterLab does when it opens a notebook."""
        session = {"path": notebook, "name": notebook, "type": "notebook", "kernel": {"name": "python3"}}
        kernel = self.hub.ask(f"/user/{self.name}/api/sessions", session)["kernel"]["id"]
        self.channels = f"{self.hub.address}/user/{self.name}/api/kernels/{kernel}/channels".replace("http", "ws", 1)
        kernel, server = self.run("import os; print(os.getpid(), os.getppid())").split()
        self.kernel, self.server = int(kernel), int(server)

    def run(self, code: str) -> str:
        """Everything that a cell prints or raises."""
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": self.name, "username": ""}
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": False}
        message = {"header": {**header, "version": "5.3"}, "parent_header": {}, "metadata": {}, "content": content}
        # A connection of its own: one that nobody reads does not answer the server's pings, and is closed.
        channels = websocket.create_connection(
            self.channels, timeout=PATIENCE, header=[f"Authorization: token {TOKEN}"], suppress_origin=True
        )
        channels.send(json.dumps({**message, "channel": "shell", "buffers": []}))
        printed, over = [], set()
        while over != {"idle", "execute_reply"}:
            received = channels.recv()
            if not isinstance(received, str):  # the state of a widget
                continue
            answer = json.loads(received)
            if answer["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            content = answer["content"]
            if answer["msg_type"] == "stream":
                printed.append(content["text"])
            elif answer["msg_type"] == "error":
                printed.append(f"{content['ename']}: {content['evalue']}")
            elif answer["msg_type"] == "execute_reply":
                over.add("execute_reply")
            elif content.get("execution_state") == "idle":
                over.add("idle")
        channels.close()
        return "".join(printed)

    def read_lesson(self) -> None:
        """Run the cells of one's own copy down to the exercises."""
        copy = nbformat.read(self.hub.homes / self.name / "course/my_course/03_temperature.ipynb", as_version=4)
        for cell in copy.cells:
            if "YOUR CODE HERE" in cell.source:
                break
            if cell.cell_type == "code":
                printed = self.run(cell.source)
                assert "Error" not in printed, f"{self.name}, {cell.id}: {printed}"


def memory(process: int) -> dict[str, float]:
    """Megabytes of a process: all that it sees, its part of what it shares, and what it alone has."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name.rstrip(":"): int(size) / 1024 for name, size, *_ in map(str.split, lines)}
    return {"RSS": sizes["Rss"], "PSS": sizes["Pss"], "private": sizes["Private_Clean"] + sizes["Private_Dirty"]}


def written(course: Path) -> dict[str, int]:
    """Files of the course, and when each was written."""
    files = [path for path in course.rglob("*") if ".venv" not in path.parts and "__pycache__" not in path.parts]
    return {str(path): path.stat().st_mtime_ns for path in files if path.is_file()}


@contextmanager
def slider(hub: Hub, learner: Learner, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The stored explorer of lesson 03, in a browser that logged in; no cell is run there."""
    for folder in ("widgets", "benchmarks"):
        monkeypatch.syspath_prepend(PROJECT / "tests" / folder)
    from explorer import Slider
    from servers import chromium

    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(f"{hub.address}/hub/login?next=/user/{learner.name}/lab/tree/03_temperature.ipynb")
        page.locator("#username_input").fill(learner.name)
        page.locator("#login_submit").click()
        assert "stored-widgets" in page.locator("#jupyter-config-data").inner_text()
        page.locator(".temperature-explorer").first.scroll_into_view_if_needed()
        yield Slider(page)


def test_a_class_reads_lesson_03(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def report(*words: object) -> None:
        with capsys.disabled():
            print(*words, f"(load {os.getloadavg()[0]:.1f})", flush=True)

    files = written(course)
    names = [f"learner{number:02}" for number in range(1, LEARNERS + 1)]
    report(f"\n{LEARNERS} learners,", os.cpu_count(), "cores")
    with run_hub(course, tmp_path, settings_of_the_page()) as hub, ThreadPoolExecutor(LEARNERS) as everybody:
        began = time.monotonic()
        learners = list(everybody.map(lambda name: Learner(hub, name), names))
        report(f"all servers have started after {time.monotonic() - began:.0f} s")
        with slider(hub, learners[0], monkeypatch) as stored:
            moves = {"no kernel at work": stored.latencies(MOVES, random.Random(0))}
            list(everybody.map(lambda learner: learner.open("03_temperature.ipynb"), learners))
            began = time.monotonic()
            reading = [everybody.submit(learner.read_lesson) for learner in learners]
            moves["all run the lesson"] = stored.latencies(MOVES, random.Random(0))
            for done in reading:
                done.result()
            report(f"all have run the lesson after {time.monotonic() - began:.0f} s")
            moves["all kernels idle"] = stored.latencies(MOVES, random.Random(0))
            training = everybody.submit(learners[-1].run, TRAINING)
            time.sleep(10)  # it has begun
            moves["one trains"] = stored.latencies(MOVES, random.Random(0))
            still_training = not training.done()
            report("one training:", training.result())
        own = 0.0
        for kind in ("kernel", "server"):
            sizes = [memory(getattr(learner, kind)) for learner in learners]
            means = {name: round(np.mean([size[name] for size in sizes])) for name in sizes[0]}
            report(f"MB per {kind}:", means, f"largest PSS {max(size['PSS'] for size in sizes):.0f}")
            own += np.median([size["private"] for size in sizes])
        for name, latencies in moves.items():
            report(f"slider, ms, {name}: median {np.median(latencies):.0f}, 95 % {np.percentile(latencies, 95):.0f}")

        greedy = learners[1].run("import torch; everything = torch.zeros(4_000_000_000)")
        report("16 GB:", greedy[:200])
        assert "can't allocate memory" in greedy
        assert "Made a fresh my_course/03_temperature.ipynb" in learners[1].run("!cd .. && make reset NB=3")
        assert [int(learner.run("print(os.getpid())")) for learner in learners] == [one.kernel for one in learners]
    assert own < 1.2 * int(re.search(r"about (\d+) MB per learner", PAGE)[1])
    assert still_training
    assert training.result().endswith("steps in a minute\n")
    assert written(course) == files


TRAINING = """
import tempfile
from helpers.data import DATA
from helpers.training import Recipe, train
with tempfile.TemporaryDirectory() as folder:
    records = train(DATA / "scenes", folder + "/run", Recipe(seconds=60))
print(records[-1]["step"], "steps in a minute")
"""


def test_an_idle_server_is_stopped(course: Path, tmp_path: Path) -> None:
    settings = settings_of_the_page()
    assert settings.count("--timeout=3600") == 1
    with run_hub(course, tmp_path, settings.replace("--timeout=3600", "--timeout=60")) as hub:
        learner = Learner(hub, "learner01")
        learner.open("03_temperature.ipynb")
        end = time.monotonic() + PATIENCE
        while hub.server("learner01") or Path(f"/proc/{learner.kernel}").exists():
            assert time.monotonic() < end
            time.sleep(1)
