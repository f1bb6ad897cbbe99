"""Every control of the lessons' figures is moved over its whole range, and each figure is compared with a formula."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"

# Runs after the last cell of a lesson. `expected`, defined per lesson below, is called at each position with the figure
# and the value of each control by its description.
SWEEP = """
import gc
import ipywidgets

def positions(control):
    if isinstance(control, (ipywidgets.SelectionSlider, ipywidgets.Dropdown, ipywidgets.ToggleButtons)):
        return [value for _, value in control._options_full]
    assert isinstance(control, ipywidgets.IntSlider), f"unknown control {control}"
    return list(range(control.min, control.max + 1, control.step))

def sweep(box):
    *controls, picture = box.children
    for control in controls:
        start, seen = control.value, set()
        for value in positions(control):
            control.value = value
            seen.add(picture.value)
            expected(box.figure, {each.description: each.value for each in controls})
        assert len(seen) > 1, f"{control.description} does not change the figure"
        control.value = start
        print("moved", control.description)

for thing in [thing for thing in gc.get_objects() if isinstance(thing, ipywidgets.Widget)]:
    if thing.model_id not in SHOWN:
        continue
    if isinstance(thing, ipywidgets.VBox):
        sweep(thing)
"""

EXPECTED = {
    "01_dataset": """
from helpers.augmentation import parse_augmentation

def expected(figure, at):
    kinds = {"nothing": (), "flip": ("flip:exchange",), "crop": ("crop:0.6",)}
    kinds["both"] = kinds["flip"] + kinds["crop"]
    augment = parse_augmentation(kinds[at["changed by"]])
    dataset = ImageTextDataset([image_paths[154]], [captions[154]], 64, augment=augment)
    dataset.set_epoch(at["epoch"])
    assert figure.axes[0].get_title().replace("\\n", " ") == dataset[0]["text"]
    shown = torch.tensor(figure.axes[0].images[0].get_array())
    torch.testing.assert_close(shown, figures.to_pixels(dataset[0]["image"]))
""",
    "02_contrastive_loss": """
def expected(figure, at):
    angles = [at["Angle"], 60, 150, 250]
    weights = [math.exp(math.cos(math.radians(angle)) / 0.07) for angle in angles]
    shares = [weight / sum(weights) for weight in weights]
    axis = figure.axes[0]
    loss = float(axis.get_title().split("loss ")[1])
    assert axis.get_title().startswith(f"{at['Angle']} degrees")
    assert abs(loss + math.log(shares[0])) < 0.0051
    written = [float(text.get_text()) for text in axis.texts if text.get_text() != "image"]
    assert all(abs(share - number) < 0.0051 for share, number in zip(shares, written, strict=True))
""",
    "04_multi_scale": """
def expected(figure, at):
    index, text = list(related.items())[at["Image"]]
    words, grid = text.split(), at["Grid"]
    words[at["Word"] - 1] = f"[{words[at['Word'] - 1]}]"
    assert figure.get_suptitle() == " ".join(words)
    for axis, its_model in zip(figure.axes, trained.values(), strict=True):
        with torch.no_grad():
            views = its_model.views(test_set[index]["image"][None], *its_tokenizer([text]))
            blocks = F.adaptive_avg_pool2d(views.region_map, grid).flatten(2).mT  # [1, grid * grid, 128]
            regions = its_model.image_encoder.projections[0](blocks)[0]  # [grid * grid, 128]
            cosines = F.cosine_similarity(regions, views.phrases[0, at["Word"] - 1], dim=1)  # [grid * grid]
        shade = torch.as_tensor(axis.images[1].get_array())[:, :, 3]
        torch.testing.assert_close(shade.flatten(), (0.7 - 0.7 * cosines / 0.6).clamp(0, 0.7), atol=1e-4, rtol=0)
        row, column = divmod(int(cosines.argmax()), grid)
        assert axis.patches[0].get_xy() == (column * 64 / grid, row * 64 / grid)
        assert axis.get_title().endswith(f"best {cosines.max():.2f}")
""",
    "08_scaling_out": """
def expected(figure, at):
    batch, gpus, speed = at["Batch"], at["GPUs"], 1e12 * at["TFLOP/s"] * at["GPUs"]
    loss = (1e9 / batch) * (8 * batch**2 * 512 * 10) / speed / 3600
    received = (1e9 / batch) * 2 * (2048 * (batch - batch / gpus) + 8 * batch * (gpus - 1)) / 50e9 / 3600
    hours = 1e9 * 4 * 41.09e9 / speed / 3600 + loss + received
    held = 4e-9 * 512 * batch * (5 if gpus == 1 else 4 / gpus + 3)
    assert figure.axes[0].get_title() == f"blockwise {held:,.1f} GB, plain {4e-9 * 6 * batch**2:,.1f} GB"
    assert figure.axes[1].get_title() == f"{hours:,.2f} hours, of them loss {loss:,.2f}"
""",
    "06_experiments": """
def expected(figure, at):
    arm, baseline = CLAIMS[at["Claim"]]
    new, old = (values(result, name, at["Reading"])[: at["Seeds"]] for name in (arm, baseline))
    theirs = stats.ttest_rel(new, old).confidence_interval(0.95)
    title = figure.axes[0].get_title()
    assert title.startswith(f"{statistics.mean(new) - statistics.mean(old):+.2f}, ")
    assert f"from {theirs.low:+.2f} to {theirs.high:+.2f}: " in title
    right = "better" if theirs.low > 0 else "worse" if theirs.high < 0 else "undecided"
    assert title.endswith(right)
""",
}


@pytest.mark.long
@pytest.mark.parametrize("lesson", EXPECTED)
def test_every_figure_is_right_over_the_range_of_its_controls(lesson: str) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3")
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        views = [
            output["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
            for cell in notebook.cells
            for output in cell.get("outputs", [])
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
        ]
        code = f"SHOWN = {set(views)}\n" + EXPECTED[lesson] + SWEEP
        notebook.cells.append(nbformat.v4.new_code_cell(code))
        last = client.execute_cell(notebook.cells[-1], len(notebook.cells) - 1)
    assert "moved" in "".join(output.get("text", "") for output in last.outputs)
