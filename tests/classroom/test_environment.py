"""The three lists of packages agree, and `make env` sets up once, again when it must, and never by halves."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
CONDA_NAMES = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}
CONDA_ONLY = {"python", "pip"}


def declared(root: Path = ROOT) -> dict[str, Requirement]:
    """What pyproject.toml asks for, the test extra included, by name."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["test"]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def pinned(root: Path = ROOT) -> list[Requirement]:
    """The lines of requirements.txt; a package may be pinned more than once, for different Pythons."""
    lines = (root / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def conda(root: Path = ROOT) -> tuple[list[str], list[Requirement]]:
    """The channels of environment.yml, and what it asks for, in its pip section too."""
    entries = re.findall(r"^ *- (.+?):?$", (root / "environment.yml").read_text(), re.MULTILINE)
    dependencies = entries.index(next(entry for entry in entries if entry.startswith("python>=")))
    asked = [entry for entry in entries[dependencies:] if entry != "--editable ."]
    assert len(asked) == len(entries[dependencies:]) - 1, "environment.yml must install the folder with pip, once"
    return entries[:dependencies], [Requirement(entry) for entry in asked]


def test_each_dependency_has_one_lower_bound() -> None:
    for name, requirement in declared().items():
        assert [specifier.operator for specifier in requirement.specifier] == [">="], name


def test_requirements_pin_each_dependency_at_or_above_its_bound() -> None:
    pins: dict[str, list[Version]] = {}
    for requirement in pinned():
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        pins.setdefault(canonicalize_name(requirement.name), []).append(Version(specifier.version))
    for name, requirement in declared().items():
        assert name in pins, f"{name} is not in requirements.txt; run make lock"
        outside = [str(version) for version in pins[name] if version not in requirement.specifier]
        assert not outside, f"{name} is pinned to {outside}, and pyproject.toml asks for {requirement.specifier}"


def test_requirements_are_plain_lines() -> None:
    plain = re.compile(r"[a-z0-9-]+==[a-z0-9.]+( ; [a-z_]+ .+| ; \(.+)?")
    for line in (ROOT / "requirements.txt").read_text().splitlines()[1:]:
        assert plain.fullmatch(line), f"not a plain pin: {line}"
        assert not re.search(r"https?:|--|\bfile:|@", line), f"an address or an option: {line}"
        assert not re.match(r"nvidia|cuda|triton", line), f"a CUDA library, which torch brings itself: {line}"


def test_conda_asks_for_the_same() -> None:
    channels, requirements = conda()
    assert channels == ["conda-forge", "nodefaults"]
    asked = {requirement.name: str(requirement.specifier) for requirement in requirements}
    expected = {CONDA_NAMES.get(name, name): str(requirement.specifier) for name, requirement in declared().items()}
    assert {name: bound for name, bound in asked.items() if name not in CONDA_ONLY} == expected
    assert asked["python"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]


def test_citation_and_licence_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
    assert (ROOT / "LICENSE").read_text().startswith(project["license"])


def test_no_file_names_a_registry_or_a_place_on_one_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("only a git clone knows which files are part of the course; `git clone` it to run this test")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    hosts = [(("pypi", "org"), ("pythonhosted", "org"), ("anaconda", "org"), ("npmjs", "org"), ("deb.debian", "org"))]
    hosts = [r"\.".join(map(re.escape, host)) for host in hosts[0]] + [r"download\." + "pytorch"]
    places = r"(?<![\w.~+:/-])/" + f"(?:{'|'.join(('work', 'root', 'tmp', 'home', 'Users'))})/"
    unwanted = re.compile("|".join([*hosts, places]))
    found = []
    for path in (ROOT / name for name in names if name):
        if path.is_file() and path.suffix not in {".png", ".jpg", ".npz", ".pt"}:
            match = unwanted.search(path.read_text(encoding="utf-8"))
            found += [f"{path.relative_to(ROOT)}: {match[0]}"] if match else []
    assert not found, f"registries or machine paths are named: {found}"


@pytest.fixture(scope="module")
def make() -> str:
    found = shutil.which("make")
    if found is None:
        advice = "install make to run the tests of the Makefile"
        pytest.fail(advice) if os.environ.get("CI") == "true" else pytest.skip(advice)
    return found


class Machine:
    """A copy of the Makefile in a folder of its own, with a uv that installs nothing and writes down what was asked."""

    def __init__(self, make: str, folder: Path) -> None:
        self.make = make
        self.tools = folder / "tools"
        self.course = folder / "a course"
        self.asked = folder / "asked.txt"
        self.tools.mkdir()
        self.course.mkdir()
        for name in ("Makefile", "requirements.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, self.course)
        self.tool("uv", f'echo "$@" >> "{self.asked}"; [ ! -e "{folder}/no-network" ]')
        self.network_fails = folder / "no-network"
        without_pip = 'if [ "$1" = -m ]; then set -- "$@" --without-pip; fi'
        names_itself = 'case "$2" in *_base_executable*) echo "$0"; exit;; esac'
        self.python = self.tool("python3", f'{names_itself}; {without_pip}; exec "{sys.executable}" "$@"')

    def tool(self, name: str, script: str) -> Path:
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run make from another folder; what uv was asked before is forgotten."""
        self.asked.write_text("")
        given = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "TORCH_BACKEND")}
        environment = given | {"PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}", "MAKEFLAGS": ""}
        command = [self.make, "-C", str(self.course), *arguments]
        return subprocess.run(command, env=environment, cwd=self.tools, capture_output=True, text=True, check=False)

    def installed(self) -> bool:
        return "-r requirements.txt" in self.asked.read_text()

    def stands_since(self) -> int:
        return (self.course / ".venv" / "pyvenv.cfg").stat().st_mtime_ns


@pytest.fixture
def machine(make: str, tmp_path: Path) -> Machine:
    return Machine(make, tmp_path)


@pytest.fixture
def ready(machine: Machine) -> Machine:
    first = machine.run("env")
    assert first.returncode == 0, first.stderr
    return machine


def test_help_names_every_command(make: str) -> None:
    commands = re.search(r"^\.PHONY: (.+) anew$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    shown = subprocess.run([make, "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^make (\S+) +\S", shown, re.MULTILINE) == commands


def test_first_call_sets_up_and_second_does_nothing(machine: Machine) -> None:
    assert machine.run("env").returncode == 0
    installs, course = machine.asked.read_text().splitlines()[-2:]
    assert "--torch-backend" not in installs
    assert "--no-deps --editable ." in course
    since = machine.stands_since()
    assert "is ready" in machine.run("env").stdout
    assert machine.asked.read_text() == ""
    assert machine.stands_since() == since


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_newer_pins_are_installed_into_what_stands(ready: Machine, name: str) -> None:
    since = ready.stands_since()
    later = (ready.course / ".venv" / "ready").stat().st_mtime + 10
    os.utime(ready.course / name, (later, later))
    assert ready.run("env").returncode == 0
    assert ready.installed()
    assert ready.stands_since() == since


def test_setup_that_failed_half_way_is_made_anew(machine: Machine) -> None:
    machine.network_fails.touch()
    assert machine.run("env").returncode != 0
    left_behind = machine.course / ".venv" / "half-installed"
    left_behind.touch()
    machine.network_fails.unlink()
    assert machine.run("env").returncode == 0
    assert machine.installed()
    assert not left_behind.exists()


def test_moved_folder_is_set_up_anew(ready: Machine) -> None:
    ready.course = ready.course.rename(ready.course.with_name("moved"))
    assert ready.run("env").returncode == 0
    assert ready.installed()


def test_small_torch_is_kept_once_chosen(ready: Machine) -> None:
    assert ready.run("env", "TORCH_BACKEND=cpu").returncode == 0
    assert "--torch-backend cpu" in ready.asked.read_text()
    assert ready.run("env").returncode == 0
    assert ready.asked.read_text() == ""
    later = (ready.course / ".venv" / "ready").stat().st_mtime + 10
    os.utime(ready.course / "requirements.txt", (later, later))
    assert ready.run("env").returncode == 0
    assert "--torch-backend cpu" in ready.asked.read_text()


def test_same_python_by_another_name_changes_nothing_and_another_python_does(ready: Machine) -> None:
    assert ready.run("env", f"PYTHON={sys.executable}").returncode == 0
    assert ready.asked.read_text() == ""
    other = ready.tool("python4", f'case "$2" in *base_prefix*) echo another;; *) exec "{ready.python}" "$@";; esac')
    assert ready.run("env", f"PYTHON={other}").returncode == 0
    assert ready.installed()


OLD_PYTHON = f"""exec "{sys.executable}" -c 'import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])' "$2\""""


@pytest.mark.parametrize(("script", "said"), [("exit 127", "does not start here"), (OLD_PYTHON, "is older than")])
def test_unusable_python_is_refused_in_words_and_harms_nothing(ready: Machine, script: str, said: str) -> None:
    unusable = ready.tool("python-unusable", script)
    refused = ready.run("env", f"PYTHON={unusable}")
    assert refused.returncode == 2
    assert f"{unusable} {said}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert ready.asked.read_text() == ""
    assert ready.run("env").returncode == 0
    assert ready.asked.read_text() == ""


def test_pip_brings_uv_where_it_is_missing(machine: Machine) -> None:
    (machine.tools / "uv").write_text("#!/bin/sh\nexit 127\n")
    planned = machine.run("--dry-run", "env").stdout
    assert "-m pip install" in planned
    assert planned.index("-m venv .venv") < planned.index("-m pip install") < planned.index("-r requirements.txt")


def test_clean_spares_what_a_learner_made_or_fetched(ready: Machine) -> None:
    spared = ["my_course/01_dataset.ipynb", "runs/mine/last.pt", "data/features.npz", "data/coco/images/1.jpg"]
    removed = ["data/scenes/images/1.png", "helpers/__pycache__/a.pyc", ".pytest_cache/README.md", ".venv/pyvenv.cfg"]
    for name in [*spared, *removed, "notebooks/a.ipynb", "tests/a.py"]:
        (ready.course / name).parent.mkdir(parents=True, exist_ok=True)
        (ready.course / name).touch()
    assert ready.run("clean").returncode == 0
    assert [name for name in spared if not (ready.course / name).exists()] == []
    assert [name for name in removed if (ready.course / name).exists()] == []
