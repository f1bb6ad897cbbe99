"""The three lists of packages agree, and no file names a package registry or a path of one machine."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = {
    canonicalize_name(requirement.name): requirement.specifier
    for requirement in map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"])
}
HOSTS = r"pypi[.]org|pythonhosted[.]org|anaconda[.]org|npmjs[.]org|deb[.]debian[.]org|download[.]pytorch"
CONDA_NAMES = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}


def test_each_dependency_has_one_lower_bound() -> None:
    for name, bound in DECLARED.items():
        assert [part.operator for part in bound] == [">="], name


def test_pins_satisfy_the_bounds() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    plain = re.compile(r"(?!nvidia|cuda|triton)[a-z0-9-]+==[a-z0-9.]+( ; .+)?")  # torch brings its CUDA libraries
    assert [line for line in lines if not plain.fullmatch(line)] == []
    pins: dict[str, list[str]] = {}  # a package may have several pins, for different versions of Python
    for pin in map(Requirement, lines):
        pins.setdefault(pin.name, []).append(str(pin.specifier).removeprefix("=="))
    for name, bound in DECLARED.items():
        assert name in pins, f"{name} is not in requirements.txt; run `make lock`"
        assert all(bound.contains(version) for version in pins[name]), f"{name} is pinned to {pins[name]}, not {bound}"


def test_conda_has_the_same_bounds() -> None:
    entries = re.findall(r"^ *- ([\w-]+)>=(\S+)$", (ROOT / "environment.yml").read_text(), re.MULTILINE)
    expected = {CONDA_NAMES.get(name, name): str(bound).removeprefix(">=") for name, bound in DECLARED.items()}
    assert dict(entries) == expected | {"python": PROJECT["requires-python"].removeprefix(">=")}


def test_citation_has_the_version_and_licence_of_the_package() -> None:
    citation = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {PROJECT['version']}" in citation
    assert f"license: {PROJECT['license']}" in citation


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git clone, which knows the files of the course")
def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    unwanted = re.compile(HOSTS + r"|(?<![\w.~+:/-])/(?:work|root|tmp|home|Users)/")
    texts = [ROOT / name for name in names if name and Path(name).suffix not in {".png", ".jpg", ".npz", ".pt"}]
    matches = {path.name: unwanted.search(path.read_text(encoding="utf-8")) for path in texts if path.is_file()}
    assert {name: match[0] for name, match in matches.items() if match} == {}


COLAB = """import sys, types
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
if sys.argv[2]:
    turn_on = lambda: print("widgets are on")
    sys.modules["google"] = types.ModuleType("google")
    sys.modules["google.colab"] = types.ModuleType("google.colab")
    sys.modules["google.colab"].output = types.SimpleNamespace(enable_custom_widget_manager=turn_on)
shell.run_cell(sys.argv[1]).raise_error()
shell.run_cell("from helpers.data import DATA; print('pairs in', DATA)").raise_error()
"""


def run_colab_cell(folder: Path, colab: str) -> str:
    """Run the set-up cell of the README in ``folder``, without installing packages; the result is what it prints."""
    (cell,) = re.findall(
        r"^```python\n(import sys\n.+?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    programs = folder / "bin"
    programs.mkdir()
    for name, line in {"python": f'exec "{sys.executable}" "$@"', "pip": 'echo "pip $@"'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "IPYTHONDIR": str(folder / "ipython")}
    command = [sys.executable, "-c", COLAB, cell.replace("ADDRESS", str(ROOT)), colab]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_colab_cell_does_nothing_elsewhere(tmp_path: Path) -> None:
    assert run_colab_cell(tmp_path, "").startswith("pairs in ")
    assert not (tmp_path / "course").exists()


@pytest.mark.long
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git clone")
def test_colab_and_binder_have_pairs_and_copies(tmp_path: Path) -> None:
    printed = run_colab_cell(tmp_path, "colab")
    course = tmp_path / "course"
    assert "pip install --quiet anywidget" in printed
    assert "widgets are on" in printed
    assert f"pairs in {course / 'data'}" in printed
    assert (course / "data" / "scenes" / "annotations" / "captions_test.json").is_file()
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([course / "postBuild"], cwd=course, env=environment, check=True)  # as Binder does
    made = sorted(path.name for path in (course / "my_course").glob("*.ipynb"))
    assert made == sorted(path.name for path in (course / "notebooks").glob("*.ipynb"))
