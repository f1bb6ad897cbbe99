"""What every notebook of the course holds to, as it lies in the repository. nbval compares what the cells put out."""

import ast
import json
import re
import statistics
from pathlib import Path

import nbformat
import pytest

from helpers.classroom import course

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
LINK = re.compile(r"\]\(([^)\s]+)\)")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell: dict) -> str:
    return "".join(cell["source"])


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == kind]


def prose(path: Path) -> str:
    return "\n\n".join(map(source, cells(path, "markdown")))


def code(path: Path) -> str:
    return "\n\n".join(map(source, cells(path, "code")))


def outputs(path: Path) -> list[dict]:
    return [output for cell in cells(path, "code") for output in cell["outputs"]]


def line_counts(path: Path) -> list[int]:
    """The lines of each code cell that are not blank."""
    return [sum(bool(line.strip()) for line in source(cell).splitlines()) for cell in cells(path, "code")]


def word_count(path: Path) -> int:
    """The words of the prose, without what is not read as words: addresses, HTML tags, mathematics."""
    text = prose(path)
    for not_words in (r"https?://\S+", r"<[^>]+>", r"\$+[^$]+\$+"):
        text = re.sub(not_words, " ", text)
    return len(re.findall(r"\w+", text))


def shown_widgets(path: Path) -> list[str]:
    views = [output.get("data", {}).get(course.WIDGET_VIEW) for output in outputs(path)]
    return [view["model_id"] for view in views if view]


def test_the_course_has_the_notebooks_of_the_table_in_the_readme() -> None:
    table = re.findall(r"^\| (?:\[)?(\d\d) [^|]*\|[^|]*\| (here|not yet) \|$", (ROOT / "README.md").read_text(), re.M)
    assert [number for number, _ in table] == [f"{number:02}" for number in range(1, 9)]
    assert [path.name[:2] for path in NOTEBOOKS] == [number for number, state in table if state == "here"]


@each_notebook
def test_every_code_cell_was_run_in_order(path: Path) -> None:
    counts = [cell["execution_count"] for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1)), "run `make notebooks`"


@each_notebook
def test_outputs_hold_no_error_no_warning_and_nothing_that_changes_with_the_machine(path: Path) -> None:
    streams = [output for output in outputs(path) if output["output_type"] == "stream"]
    assert [output["ename"] for output in outputs(path) if output["output_type"] == "error"] == []
    assert ["".join(output["text"]) for output in streams if output["name"] == "stderr"] == []
    folders = "|".join(("home", "root", "tmp", "Users", "work", "site-packages"))
    for output in outputs(path):
        shown = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
        text = json.dumps([output.get("text", []), shown])
        changing = re.search(rf"(?<![\w.~-])/(?:[\w.-]+/)*(?:{folders})/\S*|\b0x[0-9a-f]{{6,}}", text)
        assert not changing, f"{changing[0]} is shown"


@each_notebook
def test_metadata_is_the_same_whoever_executed_it(path: Path) -> None:
    metadata = read(path)["metadata"]
    assert metadata.pop("kernelspec") == {"name": "python3", "display_name": "Python 3", "language": "python"}
    assert metadata.pop("language_info") == {"name": "python", "file_extension": ".py"}
    assert set(metadata) <= {"widgets"}
    for cell in read(path)["cells"]:
        assert set(cell["metadata"]) <= {"tags", "jupyter"}, f"cell {cell['id']}"


@each_notebook
def test_widgets_are_named_in_words(path: Path) -> None:
    names = [cell["id"] for cell in read(path)["cells"]]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name), f"{name}: lower case words joined by hyphens"
        assert not re.match(r"[0-9a-f]{8}(-|$)", name), f"{name} looks random"


@each_notebook
def test_size_and_figures_are_within_bounds(path: Path) -> None:
    figures = sum(any(kind in output.get("data", {}) for kind in IMAGES) for output in outputs(path))
    assert path.stat().st_size <= 300 * 1024
    assert figures <= 5
    assert figures >= 1 or not shown_widgets(path), "a page with a widget needs a static figure beside it"


@each_notebook
def test_every_widget_that_is_shown_is_stored(path: Path) -> None:
    states = read(path)["metadata"].get("widgets", {}).get(course.WIDGET_STATE, {}).get("state", {})
    assert set(shown_widgets(path)) <= set(states)
    unpruned = nbformat.read(path, as_version=4)
    course.keep_shown_widgets(unpruned)
    kept = unpruned.metadata.get("widgets", {}).get(course.WIDGET_STATE, {}).get("state", {})
    assert set(kept) == set(states), "widgets are stored that no output shows; run `make notebooks`"


@each_notebook
def test_it_opens_with_a_title_and_the_minutes_it_takes(path: Path) -> None:
    first = read(path)["cells"][0]
    assert first["cell_type"] == "markdown"
    assert re.match(r"# \S", source(first))
    assert len(re.findall(r"^# ", prose(path), re.MULTILINE)) == 1, "one title a notebook"
    assert re.search(r"\b\d+ minutes\b", source(first)), "the first cell says how many minutes the notebook takes"


@each_notebook
def test_it_links_to_its_neighbours_and_to_nothing_that_is_missing(path: Path) -> None:
    place = NOTEBOOKS.index(path)
    links = [link.split("#")[0] for link in LINK.findall(prose(path)) if not re.match(r"https?:|#", link)]
    neighbours = NOTEBOOKS[max(0, place - 1) : place] + NOTEBOOKS[place + 1 : place + 2]
    assert {neighbour.name for neighbour in neighbours} <= set(links)
    assert [link for link in links if not (path.parent / link).exists()] == []


@each_notebook
def test_exercises_stand_at_the_end_each_with_its_check_under_it(path: Path) -> None:
    every = read(path)["cells"]
    starts = [i for i, cell in enumerate(every) if re.match(r"## Try it yourself\b", source(cell))]
    assert len(starts) == 1
    exercises = [i for i, cell in enumerate(every) if "SOLUTION" in source(cell)]
    checks = [i for i, cell in enumerate(every) if course.CHECK_TAG in cell["metadata"].get("tags", [])]
    assert 2 <= len(exercises) <= 4
    assert exercises[0] > starts[0]
    assert checks == [i + 1 for i in exercises], "the cell under each exercise, and no other, is its check"
    for exercise, check in zip(exercises, checks, strict=True):
        for marker in ("### BEGIN SOLUTION", "### END SOLUTION"):
            assert [line.strip() for line in source(every[exercise]).splitlines()].count(marker) >= 1
        assert every[exercise]["cell_type"] == every[check]["cell_type"] == "code"
        assert re.search(r"^checks\.check_\w+\(", source(every[check]), re.MULTILINE)


@each_notebook
def test_a_learner_gets_it_without_the_solutions(path: Path) -> None:
    copy = course.learners_copy(nbformat.read(path, as_version=4), path.name)
    stubs = [cell.source for cell in copy.cells if course.STUB[0] in cell.source]
    assert stubs
    assert not [cell.id for cell in copy.cells if "SOLUTION" in cell.source]
    for stub in stubs:
        ast.parse(stub)


@each_notebook
def test_widgets_are_short_and_prose_is_neither_scarce_nor_long(path: Path) -> None:
    assert max(line_counts(path)) <= 45
    assert 60 <= word_count(path) / len(cells(path, "code")) <= 120


def test_widgets_are_short_all_over_the_course() -> None:
    lines = sorted(count for path in NOTEBOOKS for count in line_counts(path))
    assert statistics.median(lines) <= 6
    assert lines[int(0.9 * (len(lines) - 1))] <= 22


def test_each_check_belongs_to_one_notebook() -> None:
    module = ast.parse((ROOT / "helpers" / "checks.py").read_text(encoding="utf-8"))
    written = {
        node.name for node in module.body if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
    }
    used = [name for path in NOTEBOOKS for name in set(re.findall(r"\bchecks\.(check_\w+)", code(path)))]
    assert sorted(used) == sorted(written)
