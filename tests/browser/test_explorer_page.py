"""The temperature explorer in a real browser, as a page of its own: no kernel, no network."""

from pathlib import Path

import pytest
import torch
from explorer_view import ExplorerView
from playwright.sync_api import Page
from torchvision.transforms.functional import to_pil_image

from helpers.explorer import BROWSER_SCRIPT, TemperatureExplorer
from helpers.losses import contrastive_loss, one_way_contrastive_loss

pytestmark = pytest.mark.browser


def features(pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs that match in part: the texts are the images and noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(pairs, 64, generator=generator)
    return images, images + 2 * torch.randn(pairs, 64, generator=generator)


def explorer(pairs: int = 16, **given: object) -> TemperatureExplorer:
    pictures = [to_pil_image(torch.full((3, 64, 64), i / pairs)) for i in range(pairs)]
    captions = [f"a square of shade {i}" for i in range(pairs)]
    return TemperatureExplorer(*features(pairs), **{"images": pictures, "captions": captions, **given})


def open_page(page: Page, tmp_path: Path, widget: TemperatureExplorer) -> ExplorerView:
    page.goto(widget.to_html(tmp_path / "explorer.html").as_uri())
    return ExplorerView(page)


def effective_negatives(logits: torch.Tensor) -> float:
    return float(torch.special.entr(logits.softmax(1)).sum(1).exp().mean())


def test_needs_no_network_and_shows_the_kernels_numbers(page: Page, tmp_path: Path) -> None:
    page.context.set_offline(True)
    schemes: set[str] = set()
    page.on("request", lambda request: schemes.add(request.url.split(":")[0]))
    widget = explorer()
    view = open_page(page, tmp_path, widget)
    assert view.numbers() == pytest.approx(widget.numbers(), rel=1e-9)
    assert view.numbers()["temperature"] == 0.07
    assert schemes <= {"file", "blob", "data"}


def test_drag_changes_the_softmax_and_not_the_similarities(page: Page, tmp_path: Path) -> None:
    view = open_page(page, tmp_path, explorer())
    before = {name: view.pixels(name) for name in ("similarity", "softmax")}
    view.drag(0.37, 0.7)
    assert view.numbers()["temperature"] > 0.2
    assert view.pixels("similarity") == before["similarity"]
    assert view.pixels("softmax") != before["softmax"]


def test_every_key_of_a_slider(page: Page, tmp_path: Path) -> None:
    view = open_page(page, tmp_path, explorer())
    temperatures = [view.numbers()["temperature"]]
    for key in ("ArrowRight", "ArrowUp", "PageUp", "ArrowLeft", "ArrowDown", "PageDown", "End", "Home"):
        view.slider.press(key)
        temperatures.append(view.numbers()["temperature"])
        assert float(view.slider.get_attribute("aria-valuetext")) == temperatures[-1]
    start, right, up, page_up, left, down, page_down, end, home = temperatures
    assert start < right < up < page_up > left > down > page_down
    assert page_up / up > (up / right) ** 5
    assert down == pytest.approx(page_up * start / up, rel=0.02)
    assert (end, home) == (2, 0.01)


def test_two_hundred_moves_leave_the_kernels_numbers(page: Page, tmp_path: Path) -> None:
    widget = explorer()
    view = open_page(page, tmp_path, widget)
    images, texts = features(16)
    similarities = torch.nn.functional.normalize(images.double()) @ torch.nn.functional.normalize(texts.double()).T
    positions = torch.rand(200, generator=torch.Generator().manual_seed(0)).mul(100).tolist()
    for shown in view.sweep([0, *positions, 100]):
        widget.temperature = shown["temperature"]
        assert shown == pytest.approx(widget.numbers(), rel=1e-9)
        loss = float(contrastive_loss(images, texts, shown["temperature"]))
        assert shown["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-5)
        effective = effective_negatives(similarities / shown["temperature"])
        assert shown["effective_negatives"] == pytest.approx(effective, rel=1e-5)
    assert widget.temperature == 2


def test_direction(page: Page, tmp_path: Path) -> None:
    widget = explorer()
    view = open_page(page, tmp_path, widget)
    images, texts = features(16)
    rows = view.pixels("softmax")
    for direction, sides in (("text to image", (texts, images)), ("image to text", (images, texts))):
        page.get_by_role("radio", name=direction, exact=True).check()
        widget.direction = direction
        shown = view.numbers()
        assert shown == pytest.approx(widget.numbers(), rel=1e-9)
        assert shown["loss"] == pytest.approx(float(one_way_contrastive_loss(*sides, normalize=True)), rel=1e-5)
        assert (view.pixels("softmax") == rows) == (direction == "image to text")


@pytest.mark.parametrize("temperature", [0.001, 0.0123456, 0.07, 5.0])
def test_a_temperature_from_python_is_kept_to_the_last_digit(page: Page, tmp_path: Path, temperature: float) -> None:
    view = open_page(page, tmp_path, explorer(temperature=temperature))
    assert view.numbers()["temperature"] == temperature
    assert float(view.slider.get_attribute("aria-valuetext")) == pytest.approx(temperature, rel=1e-3)


def test_pointing_at_a_cell_shows_its_pair_and_follows_the_slider(page: Page, tmp_path: Path) -> None:
    view = open_page(page, tmp_path, explorer(4))
    before = view.point(1, 2, pairs=4)
    images, texts = features(4)
    assert "Image 1 with text 2" in before
    assert "a square of shade 2" in before
    assert f"similarity {torch.nn.functional.cosine_similarity(images[1], texts[2], dim=0):.3f}" in before
    view.slider.press("End")
    view.settle()
    after = view.root.locator(".detail").inner_text()
    assert after != before
    assert "Image 1 with text 2" in after


def test_a_caption_never_becomes_markup(page: Page, tmp_path: Path) -> None:
    nasty = "</script><script>window.caught = 1</script><img src=x onerror='window.caught = 1'>"
    captions = [nasty, "\u7ea2\u8272\u7684\u5706 \u2028 \N{LARGE RED CIRCLE}", "x" * 500, ""]
    view = open_page(page, tmp_path, explorer(4, captions=captions))
    assert view.root.locator("img, script").count() == 0
    titles = view.root.locator(".panel:first-child .columns span").evaluate_all("spans => spans.map((s) => s.title)")
    assert titles == captions
    for column, caption in enumerate(captions):
        view.point(0, column, pairs=4)
        assert view.root.locator(".detail .caption").text_content() == caption
    assert page.evaluate("window.caught") is None


@pytest.mark.parametrize("pairs", [1, 2, 7, 33, 256])
def test_any_number_of_pairs(page: Page, tmp_path: Path, pairs: int) -> None:
    widget = explorer(pairs)
    view = open_page(page, tmp_path, widget)
    assert view.numbers() == pytest.approx(widget.numbers(), rel=1e-9)
    last = pairs - 1
    assert f"Image {last} with text {last}, a matched pair" in view.point(last, last, pairs)
    assert view.root.locator(".rows .tile").count() == (2 * pairs if pairs <= 32 else 0)


def test_without_pictures_and_captions(page: Page, tmp_path: Path) -> None:
    view = open_page(page, tmp_path, explorer(5, images=None, captions=None))
    for axis in (".rows", ".columns"):
        assert view.root.locator(f".panel:first-child {axis} span").all_inner_texts() == list("01234")
    assert "text 3" in view.point(2, 3, pairs=5)
    assert view.root.locator(".tile").count() == 0


def test_ties_are_wrong_here_too(page: Page, tmp_path: Path) -> None:
    images, texts = features(6)
    images[3], texts[5] = images[0], texts[4]
    widget = TemperatureExplorer(images, texts, temperature=0.5)
    accuracy = open_page(page, tmp_path, widget).numbers()["accuracy"]
    assert accuracy == pytest.approx(widget.numbers()["accuracy"])
    assert accuracy <= 4 / 6  # on either side two of the six have a twin


@pytest.mark.parametrize("width", [320, 600, 1280])
def test_nothing_is_cut_off_in_a_narrow_window(page: Page, tmp_path: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    view = open_page(page, tmp_path, explorer())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tops = [view.root.locator(f"[data-matrix={name}]").bounding_box()["y"] for name in ("similarity", "softmax")]
    assert (tops[0] == tops[1]) == (width >= 600)


def test_words_can_be_read_in_the_dark(page: Page, tmp_path: Path) -> None:
    brightness = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        number = open_page(page, tmp_path, explorer()).root.locator("[data-quantity=loss]")
        colour = number.evaluate("(value) => getComputedStyle(value).color.match(/[0-9]+/g).map(Number)")
        brightness.append(sum(colour[:3]) / 3)
    assert brightness[0] < 80 < 180 < brightness[1]


def test_one_picture_a_frame_and_none_when_idle(page: Page, tmp_path: Path) -> None:
    page.add_init_script(
        """window.frames_asked = 0;
        const ask = window.requestAnimationFrame.bind(window);
        window.requestAnimationFrame = (draw) => { window.frames_asked++; return ask(draw); };"""
    )
    view = open_page(page, tmp_path, explorer(64))
    page.wait_for_timeout(300)
    asked = page.evaluate("window.frames_asked")
    page.wait_for_timeout(500)
    assert page.evaluate("window.frames_asked") == asked
    view.slider.evaluate(
        "(s) => { for (let to = 0; to < 50; to++) { s.value = to; s.dispatchEvent(new Event('input')); } }"
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.frames_asked") == asked + 1


def test_cleaning_up_leaves_nothing(page: Page, tmp_path: Path) -> None:
    widget = explorer(4)
    state = {name: getattr(widget, name) for name in ("pairs", "captions", "temperature", "direction")}
    state |= {name: list(getattr(widget, name)) for name in ("features", "thumbnails")}
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
            el.remove();
            return { before, after: [made, listeners.size] };
        }""",
        [BROWSER_SCRIPT, state],
    )
    assert result == {"before": [1, 2], "after": [0, 0]}
