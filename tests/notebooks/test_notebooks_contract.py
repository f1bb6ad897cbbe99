"""Rules that every stored notebook follows. nbval executes the notebooks and compares their outputs."""

import ast
import json
import re
import statistics
from pathlib import Path

import nbformat
import pytest

from helpers import checks
from helpers.classroom import copies

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
    """The number of lines in each code cell, without blank ones."""
    return [sum(bool(line.strip()) for line in source(cell).splitlines()) for cell in cells(path, "code")]


def word_count(path: Path) -> int:
    """The number of words in the text cells, without addresses, HTML tags and formulas."""
    text = prose(path)
    for not_words in (r"https?://\S+", r"<[^>]+>", r"\$+[^$]+\$+"):
        text = re.sub(not_words, " ", text)
    return len(re.findall(r"\w+", text))


def shown_widgets(path: Path) -> list[str]:
    views = [output.get("data", {}).get(copies.WIDGET_VIEW) for output in outputs(path)]
    return [view["model_id"] for view in views if view]


def test_the_readme_links_to_every_notebook_in_order() -> None:
    linked = re.findall(r"^\| \[.+?\]\(notebooks/(.+?)\)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert linked == [path.name for path in NOTEBOOKS]


@each_notebook
def test_every_code_cell_was_run_in_order(path: Path) -> None:
    counts = [cell["execution_count"] for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1)), "run `make notebooks`"


@each_notebook
def test_outputs_have_no_errors_no_warnings_and_nothing_of_one_machine(path: Path) -> None:
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
def test_metadata_does_not_depend_on_the_machine(path: Path) -> None:
    metadata = read(path)["metadata"]
    assert metadata.pop("kernelspec") == {"name": "python3", "display_name": "Python 3", "language": "python"}
    assert metadata.pop("language_info") == {"name": "python", "file_extension": ".py"}
    assert set(metadata) <= {"widgets"}
    for cell in read(path)["cells"]:
        assert set(cell["metadata"]) <= {"tags", "jupyter"}, f"cell {cell['id']}"


@each_notebook
def test_cell_ids_are_words(path: Path) -> None:
    names = [cell["id"] for cell in read(path)["cells"]]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name), f"{name}: lower case words joined by hyphens"
        assert not re.match(r"[0-9a-f]{8}(-|$)", name), f"{name} looks random"


@each_notebook
def test_file_is_small_and_has_few_figures(path: Path) -> None:
    figures = sum(any(kind in output.get("data", {}) for kind in IMAGES) for output in outputs(path))
    assert path.stat().st_size <= 300 * 1024
    assert figures <= 6
    assert figures >= 1 or not shown_widgets(path), "a notebook with a widget also needs a static figure"


@each_notebook
def test_exactly_the_shown_widgets_are_stored(path: Path) -> None:
    states = read(path)["metadata"].get("widgets", {}).get(copies.WIDGET_STATE, {}).get("state", {})
    assert set(shown_widgets(path)) <= set(states)
    notebook = nbformat.read(path, as_version=4)
    copies.keep_shown_widgets(notebook)
    kept = notebook.metadata.get("widgets", {}).get(copies.WIDGET_STATE, {}).get("state", {})
    assert set(kept) == set(states), "hidden widgets are stored; run `make notebooks`"


@each_notebook
def test_first_cell_has_the_title_and_the_minutes(path: Path) -> None:
    first = read(path)["cells"][0]
    assert first["cell_type"] == "markdown"
    assert re.match(r"# \S", source(first))
    assert len(re.findall(r"^# ", prose(path), re.MULTILINE)) == 1, "one title per notebook"
    assert re.search(r"\b\d+ minutes\b", source(first)), "say how many minutes the lesson takes"


@each_notebook
def test_links_lead_to_the_neighbours_and_to_existing_files(path: Path) -> None:
    number = NOTEBOOKS.index(path)
    links = [link.split("#")[0] for link in LINK.findall(prose(path)) if not re.match(r"https?:|#", link)]
    neighbours = NOTEBOOKS[max(0, number - 1) : number] + NOTEBOOKS[number + 1 : number + 2]
    assert {neighbour.name for neighbour in neighbours} <= set(links)
    assert [link for link in links if not (path.parent / link).exists()] == []


@each_notebook
def test_each_exercise_is_followed_by_its_check(path: Path) -> None:
    every = read(path)["cells"]
    starts = [i for i, cell in enumerate(every) if re.match(r"## Try it yourself\b", source(cell))]
    assert len(starts) == 1
    exercises = [i for i, cell in enumerate(every) if "SOLUTION" in source(cell)]
    checks = [i for i, cell in enumerate(every) if copies.CHECK_TAG in cell["metadata"].get("tags", [])]
    assert 2 <= len(exercises) <= 6
    assert exercises[0] > starts[0]
    assert checks == [i + 1 for i in exercises], "the cell under each exercise, and no other, is its check"
    for exercise, check in zip(exercises, checks, strict=True):
        assert every[exercise]["cell_type"] == every[check]["cell_type"] == "code"
        assert re.search(r"^checks\.check_\w+\(", source(every[check]), re.MULTILINE)


@each_notebook
def test_learners_copy_has_stubs_in_place_of_solutions(path: Path) -> None:
    original = nbformat.read(path, as_version=4)
    copy = copies.learners_copy(original, path.name)
    stubs = [cell.source for cell in copy.cells if copies.STUB[0] in cell.source]
    assert stubs
    for stub in stubs:
        ast.parse(stub)
    text = "\n".join(cell.source for cell in copy.cells)
    assert "SOLUTION" not in text
    assert "<summary>Solution" not in text
    solutions = [
        match[0].splitlines()[1:-1] for cell in original.cells for match in copies.SOLUTION.finditer(cell.source)
    ]
    assert [lines for lines in solutions if len(lines) > 1 and "\n".join(lines) in text] == []


@each_notebook
def test_the_first_stub_or_its_check_stops_with_a_sentence(path: Path) -> None:
    copy = copies.learners_copy(nbformat.read(path, as_version=4), path.name)
    trees = [ast.parse(cell.source) for cell in copy.cells if cell.cell_type == "code"]
    imports = [node for tree in trees for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    namespace: dict = {}
    exec(ast.unparse(ast.Module(imports, [])), namespace)
    first = next(i for i, cell in enumerate(copy.cells) if copies.STUB[0] in cell.source)
    exercise_and_check = "\n".join(cell.source for cell in copy.cells[first : first + 2])
    with pytest.raises((NotImplementedError, AssertionError), match=r"in place of this line|replace the stub"):
        exec(exercise_and_check, namespace)


@each_notebook
def test_cells_are_short_and_there_is_enough_text_between_them(path: Path) -> None:
    assert max(line_counts(path)) <= 45
    most = 180 if path == NOTEBOOKS[0] else 125  # the first lesson has little code
    assert 50 <= word_count(path) / len(cells(path, "code")) <= most


def test_most_cells_of_the_course_are_short() -> None:
    lines = sorted(count for path in NOTEBOOKS for count in line_counts(path))
    assert statistics.median(lines) <= 6
    assert lines[int(0.9 * (len(lines) - 1))] <= 22


def test_each_check_is_used_in_one_notebook() -> None:
    used = [name for path in NOTEBOOKS for name in set(re.findall(r"\bchecks\.(check_\w+)", code(path)))]
    assert sorted(used) == sorted(name for name in vars(checks) if name.startswith("check_"))


@each_notebook
def test_lessons_have_the_same_head_and_the_same_end(path: Path) -> None:
    head, text = source(read(path)["cells"][0]), prose(path)
    for part in ("**After this lesson you can**", "**You need**", "**New words**", "**Time**"):
        assert part in head
    ends = [text.index(f"## {part}") for part in ("Summary", "Check yourself", "Try it yourself", "Going further")]
    assert ends == sorted(ends)
    exercises = re.split(r"^### Exercise \d", text, flags=re.MULTILINE)[1:]
    assert 2 <= len(exercises) <= 6
    for exercise in exercises:
        assert re.match(r": .+ (★☆☆|★★☆|★★★) \(\d+ minutes.*\)\n", exercise)
        assert "*Why it matters:*" in exercise
        assert all(f"<summary>Hint {number}</summary>" in exercise for number in (1, 2, 3))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks" / "figures").glob("*.svg")), ids=lambda path: path.stem)
def test_pictures_have_a_title_a_white_ground_and_a_reader(path: Path) -> None:
    picture = path.read_text(encoding="utf-8")
    assert re.search(r"<title>.{20,}</title>", picture)
    assert re.search(r'<rect [^>]*fill="(white|#fff(fff)?)"', picture), "readable on a dark page too"
    readers = [notebook for notebook in NOTEBOOKS if f"(figures/{path.name})" in prose(notebook)]
    assert len(readers) == 1
    assert re.search(rf"!\[.{{40,}}\]\(figures/{path.name}\)", prose(readers[0])), "a text alternative"


@each_notebook
def test_an_answer_to_a_prediction_is_not_in_sight_in_the_learners_copy(path: Path) -> None:
    copy = copies.learners_copy(nbformat.read(path, as_version=4), path.name)
    kinds = "".join(cell.cell_type[0] for cell in copy.cells)
    predictions = [i for i, cell in enumerate(copy.cells) if "**Predict**" in cell.source]
    assert predictions
    for i in predictions:
        answer = kinds.index("m", i + 1)
        assert answer > i + 1, f"{copy.cells[i].id}: a code cell with the answer follows"
        assert [cell.outputs for cell in copy.cells[i + 1 : answer]] == [[]] * (answer - i - 1)
        assert re.match(r"(#.+\n\n)*<details><summary>Run the cell", copy.cells[answer].source), copy.cells[answer].id
