"""The three lists of packages agree, and no file names a package registry or a path of one machine."""

import re
import subprocess
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
