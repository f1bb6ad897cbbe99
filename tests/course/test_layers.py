"""The files of the course import only what is below them, and stay short enough to read."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

HELPERS = Path(__file__).resolve().parents[2] / "helpers"
MACHINERY = {"__init__", "__main__", "cli", "files", "runs"}
COURSE = sorted(path for path in HELPERS.glob("*.py") if path.stem not in MACHINERY)

LAYERS = [  # from bottom to top; a file may import from its own layer and from those below
    {"text", "losses", "temperature", "optimizers", "files"},
    {"scale"},
    {"scenes", "sources", "augmentation", "diagnostics"},
    {"encoders", "data", "regularizers"},
    {"pretrained"},
    {"evaluation", "runs", "gap_toy", "grounding"},
    {"regularizer_report", "report", "training"},
    {"experiments"},
    {"checks", "widgets", "classroom", "cli", "__main__", "__init__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
SCALE_ALSO_IMPORTS = {"sources.images", "text"}


def imports(path: Path) -> set[str]:
    """The modules of ``helpers`` that a file imports, such as ``losses`` or ``sources.images``."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                is_module = (HELPERS.parent / node.module.replace(".", "/") / f"{alias.name}.py").exists()
                modules.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return {module.removeprefix("helpers.") for module in modules if module.startswith("helpers.")}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(HELPERS).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", sorted(HELPERS.rglob("*.py")), ids=module_name)
def test_imports_come_from_the_same_layer_or_below(path: Path) -> None:
    name = module_name(path)
    room = name.split(".")[0]
    allowed = {module for module in imports(path) if LEVEL[module.split(".")[0]] <= LEVEL[room]}
    if room == "scale":
        allowed |= SCALE_ALSO_IMPORTS
    assert imports(path) - allowed == set()


def test_imports_form_no_cycle() -> None:
    graph = {module_name(path): imports(path) for path in HELPERS.rglob("*.py")}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize("path", COURSE, ids=module_name)
def test_course_file_is_short_and_has_no_command_line(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    assert "argparse" not in text
    assert "__main__" not in text
