"""The temperature explorer in a browser, as a page of its own: no kernel, no network."""

import re
from pathlib import Path

import explorer_view
import pytest
import torch
from conftest import watched_page
from explorer_view import explorer, features, full_explorer, open_page
from playwright.sync_api import Browser, Page

from helpers.widgets.explorer import BROWSER_SCRIPT, TemperatureExplorer

pytestmark = pytest.mark.browser

HANDS = pytest.mark.parametrize("hand", ["pointer", "keyboard"])


@pytest.fixture
def page(lasting_page: Page) -> Page:
    lasting_page.mouse.move(0, 0)
    return lasting_page


def close(numbers: dict[str, float]) -> object:
    return pytest.approx(numbers, rel=1e-9, abs=1e-12)


def test_needs_no_network_and_shows_the_numbers_of_the_kernel(page: Page, tmp_path: Path) -> None:
    schemes: set[str] = set()
    page.on("request", lambda request: schemes.add(request.url.split(":")[0]))
    widget = full_explorer()
    assert open_page(page, tmp_path, widget).numbers() == close(widget.numbers())
    assert schemes <= {"file", "blob", "data"}


def test_numbers_agree_with_python_over_the_whole_range(page: Page, tmp_path: Path) -> None:
    widget = explorer()
    view = open_page(page, tmp_path, widget)
    positions = torch.rand(60, generator=torch.Generator().manual_seed(0)).mul(100).tolist()
    for shown in view.sweep([0, *positions, 100]):
        widget.temperature = shown["temperature"]
        assert shown == close(widget.numbers())
    assert widget.temperature == 2


def test_slider_by_mouse_and_by_every_key(page: Page, tmp_path: Path) -> None:
    view = open_page(page, tmp_path, explorer())
    temperatures = [view.numbers()["temperature"]]
    before = {name: view.pixels(name) for name in ("similarity", "softmax")}
    for key in ("ArrowRight", "ArrowUp", "PageUp", "ArrowLeft", "ArrowDown", "PageDown", "End", "Home"):
        view.slider.press(key)
        temperatures.append(view.numbers()["temperature"])
        assert float(view.slider.get_attribute("aria-valuetext")) == temperatures[-1]
    start, right, up, page_up, left, down, page_down, end, home = temperatures
    assert start < right < up < page_up > left > down > page_down
    assert page_up / up > (up / right) ** 5
    assert down == pytest.approx(page_up * start / up, rel=0.02)
    assert (end, home) == (2, 0.01)
    view.drag(0.01, 0.7)
    assert view.numbers()["temperature"] > 0.2
    assert view.pixels("similarity") == before["similarity"]
    assert view.pixels("softmax") != before["softmax"]


@HANDS
def test_direction(page: Page, tmp_path: Path, hand: str) -> None:
    widget = explorer()
    view = open_page(page, tmp_path, widget)
    rows = view.pixels()
    view.radio("both").focus()
    for key, direction in (("ArrowDown", "image to text"), ("ArrowRight", "text to image")):
        view.radio(direction).click() if hand == "pointer" else page.keyboard.press(key)
        assert view.radio(direction).is_checked()
        widget.direction = direction
        assert view.numbers() == close(widget.numbers())
        assert (view.pixels() == rows) == (direction == "image to text")


@HANDS
def test_moments_of_a_training(page: Page, tmp_path: Path, hand: str) -> None:
    widget = full_explorer()
    view = open_page(page, tmp_path, widget)
    training = view.slider_named("Training")
    pictures = [view.pixels("similarity")]
    steps = (1, "half-way", "ArrowLeft", 0.5), (2, "now", "End", 0.99), (0, "untrained", "Home", 0.01)
    for moment, name, key, place in steps:
        view.drag(0.7, place, training) if hand == "pointer" else training.press(key)
        widget.moment = moment
        assert view.numbers() == close(widget.numbers())
        assert training.get_attribute("aria-valuetext") == name
        pictures.append(view.pixels("similarity"))
    assert pictures[0] == pictures[2]
    assert len(set(pictures)) == 3


@HANDS
def test_normalisation_can_be_switched_off(page: Page, tmp_path: Path, hand: str) -> None:
    widget = full_explorer()
    view = open_page(page, tmp_path, widget)
    box, before = view.check_box("L2-normalise"), view.pixels()
    for value in (False, True):
        box.click() if hand == "pointer" else box.press("Space")
        assert box.is_checked() == value
        widget.normalize = value
        assert view.numbers() == close(widget.numbers())
        assert (view.pixels() == before) == value


@HANDS
def test_logit_scale_is_another_name_for_the_same(page: Page, tmp_path: Path, hand: str) -> None:
    view = open_page(page, tmp_path, explorer(temperature=0.05))
    before, box = view.numbers(), view.check_box("As logit scale")
    box.click() if hand == "pointer" else box.press("Space")
    assert view.numbers() == before
    assert view.slider.get_attribute("aria-valuetext") == "20"
    assert view.root.locator("[data-quantity=temperature]").inner_text() == "20"
    view.slider.press("ArrowRight")  # a higher temperature, as before
    assert view.numbers()["temperature"] > 0.05
    assert float(view.slider.get_attribute("aria-valuetext")) < 20


@pytest.mark.parametrize("temperature", [0.001, 0.0123456, 5.0])
def test_a_page_opens_with_the_settings_made_in_python(page: Page, tmp_path: Path, temperature: float) -> None:
    widget = full_explorer(temperature=temperature)
    widget.direction, widget.normalize, widget.scale = "text to image", False, "logit scale"
    widget.selected, widget.moment = 5, 1
    view = open_page(page, tmp_path, widget)
    assert view.numbers() == close(widget.numbers())
    assert view.numbers()["temperature"] == temperature  # not rounded
    assert float(view.slider.get_attribute("aria-valuetext")) == pytest.approx(1 / temperature, rel=1e-3)
    assert view.radio("text to image").is_checked()
    assert [view.check_box(name).is_checked() for name in ("L2-normalise", "As logit scale")] == [False, True]
    assert view.slider_named("Training").get_attribute("aria-valuetext") == "half-way"
    assert len(view.bars()) > 1


@pytest.mark.parametrize("direction", ["both", "image to text", "text to image"])
def test_a_cell_shows_its_pair_and_its_gradient(page: Page, tmp_path: Path, direction: str) -> None:
    widget = explorer(6, temperature=0.3)
    widget.direction = direction
    gradient = explorer_view.gradient(widget)
    line = widget.similarities_by_direction()[0]
    similarities = line.T if direction == "text to image" else line  # [image, text]
    view = open_page(page, tmp_path, widget)
    for row, column in ((0, 0), (0, 5), (3, 3), (4, 1), (5, 0)):
        details = view.point(row, column, pairs=6)
        assert f"Image {row} with text {column}" in details
        assert f"a square of shade {column}" in details
        assert f"similarity {float(similarities[row, column]):.3f}".replace("-", "\u2212") in details
        verb, number = re.search(r"(pulled together|pushed apart) with (\S+)", details).groups()
        assert (verb == "pushed apart") == (gradient[row, column] > 0)
        assert float(number) == pytest.approx(abs(float(gradient[row, column])), rel=5e-3)
    view.slider.press("End")
    assert view.details() != details


def test_the_matrix_by_keys(page: Page, tmp_path: Path) -> None:
    view = open_page(page, tmp_path, explorer(4))
    page.evaluate("document.body.style.paddingBottom = '3000px'")
    view.face().focus()
    scrolled = page.evaluate("window.scrollY")
    assert "Image 0 with text 0, a matched pair" in view.details()
    keys = ["ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowLeft", "ArrowUp"]
    pairs = [(0, 1), (1, 1), (2, 1), (2, 0), (2, 0), (1, 0)]  # the second ArrowLeft stays within the matrix
    for key, (image, text) in zip(keys, pairs, strict=True):
        page.keyboard.press(key)
        assert f"Image {image} with text {text}" in view.details()
    assert "Image 1 with text 0" in view.root.locator("[aria-live]").inner_text()
    for lock in ("Enter", " "):
        page.keyboard.press(lock)
        assert view.bars().keys() == {0, 2, 3}
        page.keyboard.press("Escape")
        assert view.bars() == {}
    assert page.evaluate("window.scrollY") == scrolled


def test_each_control_is_one_tab_stop(page: Page, tmp_path: Path) -> None:
    open_page(page, tmp_path, full_explorer())
    stops = []
    for _ in range(8):
        page.keyboard.press("Tab")
        name = page.locator(":focus").evaluate("(node) => node.ariaLabel ?? (node.labels?.[0] ?? node).innerText")
        stops.append(name.split(":")[0].split(",")[0])
    boxes = ["L2-normalise", "As logit scale"]
    matrices = ["Cells of the similarity matrix", "Cells of the softmax matrix"]
    assert stops == ["Temperature", "Training", "both", *boxes, "Geometry of the features", *matrices]


def test_a_click_locks_a_line_and_shows_who_pushes(page: Page, tmp_path: Path) -> None:
    widget = explorer()
    view = open_page(page, tmp_path, widget)
    page.mouse.click(*view.cell(3, 9, pairs=16))
    widget.selected = 3
    for temperature in (0.07, 2.0):
        widget.temperature = temperature
        shares, bars = explorer_view.shares(widget), view.bars()
        assert len(bars) == 8
        assert bars == pytest.approx({k: float(shares[k]) for k in bars}, rel=1e-9)
        assert min(bars.values()) >= max(float(share) for k, share in enumerate(shares) if k not in bars) - 1e-12
        rest = view.pushes.locator("[data-share]:not([data-negative])").get_attribute("data-share")
        assert float(rest) == pytest.approx(1 - sum(bars.values()))
        view.slider.press("End")
    page.mouse.click(*view.cell(3, 2, pairs=16))
    assert view.bars() == {}
    page.mouse.click(*view.cell(5, 2, pairs=16))
    view.pushes.get_by_role("button", name="let go").click()
    assert view.bars() == {}


def test_who_pushes_by_column(page: Page, tmp_path: Path) -> None:
    widget = full_explorer(8)
    view = open_page(page, tmp_path, widget)
    view.radio("text to image").check()
    page.mouse.click(*view.cell(1, 4, pairs=8))
    widget.direction, widget.selected = "text to image", 4
    bars = view.bars()
    assert bars.keys() == set(range(8)) - {4}
    assert bars == pytest.approx({k: float(explorer_view.shares(widget)[k]) for k in bars}, rel=1e-9)


def test_a_caption_never_becomes_markup(page: Page, tmp_path: Path) -> None:
    nasty = "</script><script>window.caught = 1</script><img src=x onerror='window.caught = 1'>"
    captions = [nasty, "\u7ea2\u8272\u7684\u5706 \u2028 \N{LARGE RED CIRCLE}", "x" * 500, ""]
    view = open_page(page, tmp_path, explorer(4, captions=captions))
    titles = view.root.locator(".panel:first-child .columns span").evaluate_all("spans => spans.map((s) => s.title)")
    assert titles == captions
    for column, caption in enumerate(captions):
        view.point(0, column, pairs=4)
        assert view.root.locator(".detail .caption").text_content() == caption
    page.mouse.click(*view.cell(1, 1, pairs=4))
    assert nasty in view.pushes.locator("[data-negative='0']").text_content()
    assert view.root.locator("img, script").count() == 0
    assert page.evaluate("window.caught") is None


@pytest.mark.parametrize("pairs", [1, 2, 7, 33, 512])
def test_any_number_of_pairs_and_ties(page: Page, tmp_path: Path, pairs: int) -> None:
    images, texts = features(pairs)
    texts[-2:] = texts[-1]  # a tie, which is wrong
    widget = TemperatureExplorer(images, texts)
    view = open_page(page, tmp_path, widget)
    last = pairs - 1
    assert f"Image {last} with text {last}, a matched pair" in view.point(last, last, pairs)
    assert f"text {last}" in view.details()  # without captions
    assert view.root.locator(".tile").count() == 0  # without images
    page.mouse.click(*view.cell(last, last, pairs))
    assert len(view.bars()) == min(8, pairs - 1)
    assert view.pushes.get_by_text(f"Who pushes image {last} away").is_visible()
    view.slider.press("End")
    widget.temperature = 2
    assert view.numbers() == close(widget.numbers())


# 640 pixels, each displayed by 2 x 2, are a window of 1280 at 200 % zoom.
@pytest.mark.parametrize(
    ("width", "zoom", "words"), [(320, 1, "a square of shade"), (640, 2, "x" * 500)], ids=["telephone", "zoomed"]
)
def test_nothing_is_cut_off_in_a_narrow_window(
    browser: Browser, tmp_path: Path, width: int, zoom: int, words: str
) -> None:
    with watched_page(browser, viewport={"width": width, "height": 450}, device_scale_factor=zoom) as page:
        widget = full_explorer(16, captions=[f"{words} {i}" for i in range(16)])
        widget.selected = 3
        view = open_page(page, tmp_path, widget)
        view.point(15, 15, pairs=16)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        canvases = [view.root.locator(f"[data-matrix={name}]") for name in ("similarity", "softmax")]
        tops = [canvas.bounding_box()["y"] for canvas in canvases]
        assert (tops[0] == tops[1]) == (width >= 600)
        for canvas in canvases:
            assert canvas.evaluate("(canvas) => canvas.width / canvas.clientWidth") == pytest.approx(zoom, abs=0.01)
            assert canvas.bounding_box()["width"] > 150
        assert view.slider.bounding_box()["width"] >= 100


def test_by_touch(browser: Browser, tmp_path: Path) -> None:
    with watched_page(browser, viewport={"width": 400, "height": 800}, has_touch=True, is_mobile=True) as page:
        view = open_page(page, tmp_path, explorer(8))
        start = view.numbers()["temperature"]
        box = view.slider.bounding_box()
        page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
        assert view.numbers()["temperature"] > 2 * start
        page.touchscreen.tap(*view.cell(2, 5, pairs=8))
        assert "Image 2 with text 5" in view.details()
        assert view.bars().keys() == set(range(8)) - {2}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page: Page, tmp_path: Path, theme: str) -> None:
    page.emulate_media(color_scheme=theme)
    view = open_page(page, tmp_path, full_explorer())
    page.mouse.click(*view.cell(3, 1, 16))
    view.check_box("L2-normalise").uncheck()
    assert view.bars()
    assert view.faults() == []
    view.root.locator(".note").first.evaluate("(note) => { note.style.color = 'rgb(110 110 110 / 0.8)'; }")
    assert any("color-contrast" in fault for fault in view.faults())  # the check itself works


def test_without_javascript_the_page_describes_itself(browser: Browser, tmp_path: Path) -> None:
    widget = explorer(4)
    with watched_page(browser, java_script_enabled=False) as page:
        page.goto(widget.to_html(tmp_path / "explorer.html").as_uri())
        assert f"loss={widget.numbers()['loss']:.4g}" in page.locator("body").inner_text()


def test_one_picture_per_frame_and_none_when_idle(page: Page, tmp_path: Path) -> None:
    view = open_page(page, tmp_path, explorer(64))
    asked = page.evaluate(
        """async () => {
            const frame = window.requestAnimationFrame.bind(window);
            const pause = () => new Promise((done) => frame(() => frame(done)));
            const slider = document.querySelector("input[aria-label^=Temperature]");
            let count = 0;
            window.requestAnimationFrame = (callback) => { count++; return frame(callback); };
            await pause();
            const idle = count;
            for (let to = 0; to < 50; to++) { slider.value = to; slider.dispatchEvent(new Event("input")); }
            await pause();
            return [idle, count];
        }"""
    )
    assert asked == [0, 1]
    assert view.numbers()["temperature"] != 0.07


def test_removing_the_widget_leaves_nothing(page: Page) -> None:
    widget = full_explorer(4)
    state = widget.get_state(set(TemperatureExplorer.class_own_traits(sync=True)))
    state |= {name: list(state[name]) for name in ("features", "thumbnails")}
    page.goto("about:blank")
    result = page.evaluate(
        """async ([source, state]) => {
            const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
            const { default: explorer } = await import(url);
            for (const name of ["features", "thumbnails"]) {
                state[name] = new DataView(new Uint8Array(state[name]).buffer);
            }
            let made = 0;
            const [create, revoke] = [URL.createObjectURL, URL.revokeObjectURL];
            URL.createObjectURL = (blob) => { made++; return create.call(URL, blob); };
            URL.revokeObjectURL = (address) => { made--; revoke.call(URL, address); };
            const listeners = new Set();
            const model = {
                get: (name) => state[name], set() {}, save_changes() {},
                on: (name, listener) => listeners.add(name), off: (name, listener) => listeners.delete(name),
            };
            const el = document.body.appendChild(document.createElement("div"));
            const cleanUp = explorer.render({ model, el });
            const before = [made, listeners.size];
            await new Promise(requestAnimationFrame);
            cleanUp();
            return { before, after: [made, listeners.size, el.children.length] };
        }""",
        [BROWSER_SCRIPT, state],
    )
    assert result == {"before": [1, 6], "after": [0, 0, 0]}
