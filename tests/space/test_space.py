# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The Space in a browser: headless Chromium, with the bundled model."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image
from test_analysis import png_of_size

from remamber_hf.inference.loading import BUNDLED_MODEL, BUNDLED_PICTURES


pytest.importorskip("gradio", reason="Gradio is missing; `make test-space` installs it")
sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing; `make test-space` installs it")
CHROMIUM = os.environ.get("CHROME_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("Chromium is missing; install it, or name it in CHROME_PATH", allow_module_level=True)

import app  # noqa: E402
from huggingface_hub import SpaceCard  # noqa: E402


ROOT = Path(__file__).parents[2]
PICTURE = BUNDLED_PICTURES / "shapes_3.png"
EXPRESSIONS = ["the purple star", "the orange square"]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
sync_api.expect.set_options(timeout=30_000)


class CountedSegmenter:
    """A pipeline that counts its calls, those at the same time too, lets them wait, and shows the last picture."""

    def __init__(self, segmenter):
        self.segmenter, self.processor = segmenter, segmenter.processor
        self.num_calls = self.num_running = self.most_running = 0
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, picture, *args, **kwargs):
        self.picture = picture
        self.num_calls += 1
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        assert self.may_go.wait(60)
        self.num_running -= 1
        return self.segmenter(picture, *args, **kwargs)


class Server:
    """The app on a port of its own, and the folder where Gradio writes."""

    def __init__(self, folder: Path, segmenters: dict, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRADIO_TEMP_DIR", str(folder))
            self.app = app.build_app(segmenters, **options)
        self.folder = folder
        self.examples = self.files()
        # Gradio reads the variable again wherever it writes.
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        _, self.url, _ = app.launch(self.app, prevent_thread_lock=True, quiet=True)

    def files(self) -> set[Path]:
        return {path for path in self.folder.rglob("*") if path.is_file()}

    def close(self):
        self.app.close(verbose=False)
        del os.environ["GRADIO_TEMP_DIR"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"  # red on the left, blue on the right
    frame = Image.new("RGB", (640, 480), "blue")
    frame.paste("red", (0, 0, 320, 480))
    frame.save(film, format="JPEG")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    camera.append(f"--use-file-for-fake-video-capture={film}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pipelines():
    return app.load_segmenters(None)


@pytest.fixture
def segmenter(pipelines):
    return CountedSegmenter(pipelines["shapes"])


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(segmenters, **options):
        servers.append(Server(tmp_path / "gradio", segmenters, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def visit(browser):
    """Opens the page as a new visitor. It may load nothing from anywhere but its server."""
    contexts, strangers = [], []

    def open_page(server, viewport=WIDE, **options):
        context = browser.new_context(viewport=viewport, permissions=["camera"], **options)
        contexts.append(context)
        page = context.new_page()
        own = (server.url, "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(own) or strangers.append(request.url))
        page.goto(server.url)
        sync_api.expect(segment_button(page)).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert strangers == []


def segment_button(page):
    return page.get_by_role("button", name="Segment")


def table(page):
    return page.locator(".tables")


def fill(page, upload, text: str):
    if upload is not None:
        page.locator("input[type=file]").first.set_input_files(upload)
        sync_api.expect(page.get_by_label("Remove Image")).to_be_visible()
    page.get_by_label("Expressions").fill(text)


def segment(page, upload, text: str):
    fill(page, upload, text)
    segment_button(page).click()


def download(page, button: int = 0) -> Image.Image:
    """What the download button gives that is `button`-th of those to be seen."""
    with page.expect_download() as answer:
        page.get_by_label("Download", exact=True).locator("visible=true").nth(button).click()
    return Image.open(BytesIO(Path(answer.value.path()).read_bytes()))


def wait_until(is_so, seconds: float = 30):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_the_slider_changes_the_masks_and_runs_no_model(serve, visit, segmenter):
    page = visit(serve({"shapes": segmenter}))
    segment(page, PICTURE, "\n".join(EXPRESSIONS))
    for expression in EXPRESSIONS:
        sync_api.expect(table(page)).to_contain_text(expression)
    before = download(page)
    cells = table(page).inner_text()
    page.get_by_role("slider").fill("0.95")
    sync_api.expect(table(page)).not_to_have_text(cells, use_inner_text=True)
    wait_until(lambda: download(page).tobytes() != before.tobytes())
    assert segmenter.num_calls == 1


def test_overlay_mask_cut_out_and_heat_map_are_downloaded_in_full(serve, visit, segmenter, pipelines):
    results = pipelines["shapes"](str(PICTURE), EXPRESSIONS)
    page = visit(serve({"shapes": segmenter}))
    segment(page, PICTURE, "\n".join(EXPRESSIONS))
    sync_api.expect(table(page)).to_be_visible()
    assert download(page).width == 480
    downloads = {}
    for view in ("Mask", "Cut-out", "Heat map"):
        page.get_by_role("tab", name=view).click()
        page.get_by_label("Thumbnail 2 of 2").locator("visible=true").first.click()
        sync_api.expect(page.locator(".caption").locator("visible=true").first).to_have_text(EXPRESSIONS[1])
        downloads[view] = download(page)
    assert downloads["Mask"].convert("L").tobytes() == results[1]["mask"].tobytes()
    assert downloads["Cut-out"].mode == "RGBA"
    alpha = results[1]["mask"].crop(results[1]["mask"].getbbox())
    assert downloads["Cut-out"].getchannel("A").tobytes() == alpha.tobytes()
    assert downloads["Heat map"].size == (480, 480)


def test_an_example_fills_picture_and_expressions(serve, visit, segmenter):
    page = visit(serve({"shapes": segmenter}))
    page.get_by_text("the striped orange moon").click()
    sync_api.expect(page.get_by_label("Expressions")).to_have_value("the striped orange moon\nthe checkered ring")
    sync_api.expect(page.get_by_label("Remove Image")).to_be_visible()
    segment_button(page).click()
    sync_api.expect(table(page)).to_contain_text("the checkered ring")


def test_a_photograph_from_the_camera_is_segmented_and_not_mirrored(serve, visit, segmenter):
    page = visit(serve({"shapes": segmenter}), PHONE)
    page.get_by_label("Capture from camera").click()
    page.get_by_title("grant webcam access").click()
    page.get_by_label("capture photo").click()
    segment(page, None, "the green one")
    sync_api.expect(table(page)).to_contain_text("the green one")
    left, right = (segmenter.picture.getpixel((x, 240)) for x in (100, 540))
    assert left[0] > 150 > left[2] and right[2] > 150 > right[0]


def test_bad_input_is_told_clearly_and_runs_no_model(serve, visit, segmenter, tmp_path):
    page = visit(serve({"shapes": segmenter}))
    (tmp_path / "damaged.png").write_bytes(PICTURE.read_bytes()[:3000])
    (tmp_path / "bomb.png").write_bytes(png_of_size(30000, 30000))
    for upload, text, message in (
        (None, "the star", "There is no picture."),
        (PICTURE, " ", "There is no expression."),
        (None, "the star\n" * 7, "Give at most 6, one per line."),
        (None, "a" * 201, "Expression 1 has 201 letters."),
        (None, "star " * 30, "Expression 1 is too long for the model."),
        (tmp_path / "damaged.png", "the star", "The file cannot be read as a picture."),
        (tmp_path / "bomb.png", "the star", "The picture has too many pixels."),
    ):
        if upload is not None and page.get_by_label("Remove Image").is_visible():
            page.get_by_label("Remove Image").click()
        segment(page, upload, text)
        sync_api.expect(page.get_by_text(message)).to_be_visible()
        assert "/" not in page.get_by_text(message).inner_text()  # no path of the server's
    assert segmenter.num_calls == 0
    assert not table(page).is_visible()


def test_a_file_with_too_many_bytes_is_refused_by_page_and_server_and_leaves_nothing(
    serve, visit, segmenter, tmp_path
):
    large = tmp_path / "large.png"
    large.write_bytes(bytes(app.MAX_BYTES + 1))
    server = serve({"shapes": segmenter})
    page = visit(server)
    page.locator("input[type=file]").first.set_input_files(large)
    sync_api.expect(page.get_by_text("exceed the maximum allowed size of 10.0 Mb").first).to_be_visible()
    answer = page.request.post(f"{server.url}gradio_api/upload", multipart={"files": large})
    assert answer.status == 413
    assert server.files() == server.examples


def test_visitors_are_served_one_after_the_other_and_a_full_queue_says_so(serve, visit, segmenter, monkeypatch):
    monkeypatch.setattr(app, "MAX_WAITING", 1)
    server = serve({"shapes": segmenter})
    pages = [visit(server) for _ in range(3)]
    for page in pages:
        fill(page, PICTURE, "the purple star")
    segmenter.may_go.clear()
    segment_button(pages[0]).click()
    wait_until(lambda: segmenter.num_running)
    segment_button(pages[1]).click()
    wait_until(lambda: len(server.app._queue))
    segment_button(pages[2]).click()
    sync_api.expect(pages[2].get_by_text("currently busy")).to_be_visible()
    segmenter.may_go.set()
    for page in pages[:2]:
        sync_api.expect(table(page)).to_be_visible()
    assert (segmenter.num_calls, segmenter.most_running) == (2, 1)


def test_nothing_of_a_visitor_is_kept(serve, visit, segmenter, tmp_path):
    Image.new("RGB", (64, 48), "green").save(tmp_path / "mine.png")
    server = serve({"shapes": segmenter}, keep_seconds=10)
    page = visit(server)
    segment(page, tmp_path / "mine.png", "the purple star")
    sync_api.expect(table(page)).to_be_visible()
    assert sorted(path.name for path in server.files() - server.examples) == ["image.png", "mine.png"]
    wait_until(lambda: server.files() == server.examples)
    for act in (lambda: page.get_by_role("slider").fill("0.9"), segment_button(page).click):
        act()
        message = page.get_by_text("Picture and result were deleted")
        sync_api.expect(message).to_be_visible()
        page.get_by_test_id("toast-close").click()
        sync_api.expect(message).to_be_hidden()


def test_results_are_forgotten_when_the_page_is_closed(serve, visit, segmenter):
    server = serve({"shapes": segmenter})
    page = visit(server)
    segment(page, PICTURE, "the purple star")
    sync_api.expect(table(page)).to_be_visible()
    assert len(server.app.state_holder.session_data) == 1
    page.close()
    wait_until(lambda: not server.app.state_holder.session_data)


def test_removing_the_picture_removes_its_result(serve, visit, segmenter):
    server = serve({"shapes": segmenter})
    page = visit(server)
    segment(page, PICTURE, "the purple star")
    sync_api.expect(table(page)).to_be_visible()
    page.get_by_label("Remove Image").click()
    sync_api.expect(table(page)).to_be_hidden()
    (session,) = server.app.state_holder.session_data.values()
    assert not any(hasattr(value, "picture") for value in session.state_data.values())


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_two_models_are_compared_on_one_page(serve, visit, segmenter, pipelines, viewport):
    server = serve({"ours": segmenter, "theirs": CountedSegmenter(pipelines["shapes"])})
    page = visit(server, viewport)
    segment(page, PICTURE, "the purple star")
    for model in ("ours", "theirs"):
        sync_api.expect(table(page)).to_contain_text(model)
    assert download(page, 0).size == download(page, 1).size
    left, right = (page.locator("label", has_text=model).bounding_box() for model in ("ours", "theirs"))
    assert (left["y"] == right["y"]) == (viewport == WIDE)
    for measured in page.get_by_role("table").filter(has_text="score").all():
        box = measured.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"]
        assert measured.get_by_text("the purple star").bounding_box()["height"] < 40  # on one line


def test_one_model_or_two_with_different_names_are_loaded():
    assert list(app.load_segmenters(None)) == ["shapes"]
    for names in (",", "a,b,c", f"{BUNDLED_MODEL},other/shapes"):
        with pytest.raises(ValueError, match="give one model or two with different names, as in a,b"):
            app.load_segmenters(names)


def test_the_folder_that_goes_to_the_hub_starts_by_itself_and_prints_its_address(tmp_path):
    shutil.copytree(ROOT / "space", tmp_path / "space", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "remamber_hf", tmp_path / "space" / "remamber_hf")
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path / "gradio"), "PYTHONUNBUFFERED": "1"}
    environment.pop("REMAMBER_MODELS", None)
    server = subprocess.Popen(
        [sys.executable, "app.py"], cwd=tmp_path / "space", env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        printed = next(line for line in server.stdout if "http://" in line)
        with urlopen(re.search(r"http://\S+", printed)[0], timeout=30) as answer:
            assert b"gradio" in answer.read()
    finally:
        server.terminate()
        server.wait()


def test_the_front_matter_names_the_tested_gradio_and_files_that_are_there():
    card = SpaceCard.load(ROOT / "space" / "README.md").data
    pinned = re.search(r"^gradio==(.*)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)[1]
    assert card.sdk == "gradio" and card.sdk_version == pinned
    assert (ROOT / "space" / card.app_file).is_file()
    assert len(card.short_description) <= 60  # the Hub's limit


def test_requirements_are_those_of_the_package():
    required = (ROOT / "space" / "requirements.txt").read_text().splitlines()
    package = [line.strip() for line in (ROOT / "setup.cfg").read_text().splitlines()]
    assert [line for line in required if line and not line.startswith("#") and line not in package] == []
