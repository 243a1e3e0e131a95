"""The page in a real browser: a picture chosen, dropped and pasted, a question asked, on wide and narrow screens."""

import base64
import io
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import Server

from imc_lite import load_image
from imc_lite.noise.image import apply_to_image

webdriver = pytest.importorskip("selenium.webdriver", reason="the page is tested with selenium")
pytest.importorskip("uvicorn", reason="the server needs imc-lite[serve]")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if BROWSER is None or DRIVER is None:
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.slow

QUESTION = "What modlity is this?"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1000"),
)


@pytest.fixture(scope="module")
def server(default_bundle, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("page"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(executable_path=DRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def page(browser, server):
    browser.set_window_size(1280, 1000)
    browser.get(server.url)
    browser.get_log("browser")
    yield Page(browser)
    # Nothing was refused by the policy, nothing was thrown.
    assert browser.get_log("browser") == []


class Page:
    """What a person does with it."""

    def __init__(self, browser) -> None:
        self.browser = browser

    def __getitem__(self, name: str):
        return self.browser.find_element(By.ID, name)

    def wait(self, what) -> None:
        WebDriverWait(self.browser, 30, 0.05).until(lambda _: what())

    def choose(self, path: Path) -> None:
        self["file"].send_keys(str(path))
        self.wait(lambda: self["seen"].is_displayed())

    def ask(self, question: str) -> None:
        self["question"].clear()
        self["question"].send_keys(question, Keys.ENTER)
        self.wait(lambda: self["times"].is_displayed())

    def run(self, script: str, *values):
        return self.browser.execute_script(script, *values)


@pytest.fixture(scope="module")
def noisy(chest, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "noisy.png"
    Image.fromarray(apply_to_image(load_image(chest), "impulse", 4, 0)).save(path)
    return path


def test_a_noisy_picture_and_a_garbled_question(page, noisy):
    page.choose(noisy)
    assert page["verdict"].text.startswith("impulse, severity 4 of 5") and "gradable; restored" in page["verdict"].text
    assert page["before"].is_displayed() and page["after"].is_displayed()
    assert page.run("return [before.naturalWidth, after.naturalWidth].every((w) => w > 100)")
    page.ask(QUESTION)
    assert page["answer"].text == "x-ray" and page["confidence"].text.startswith("Confidence ")
    assert page["repaired"].text == "What modlity modality is this?"
    assert page["repaired"].find_element(By.TAG_NAME, "del").text == "modlity"
    assert page["repaired"].find_element(By.TAG_NAME, "ins").text == "modality"
    assert page["edits"].text.startswith("modlity became modality (typo, ")
    assert page["timings"].text.count(" ms") == 7 and page["sure"].is_displayed() and "all" in page["timings"].text


@pytest.mark.parametrize(
    ("original", "edits", "marked"),
    [
        (
            "Is there fluid in teh lungs or the heart?",
            [("teh", "the")],
            "Is there fluid in [teh the] lungs or the heart?",
        ),
        ("Is teh is teh?", [("teh", "the"), ("teh", "the")], "Is [teh the] is [teh the]?"),
        ("Any  (fx)\nw/ shift?", [("fx", "fracture"), ("w/", "with")], "Any  ([fx fracture])\n[w/ with] shift?"),
        ("Is it?", [("gone", "there")], "as repaired"),
    ],
)
def test_repairs_are_marked_where_they_were_made(page, original, edits, marked):
    report = {"original": original, "repaired": "as repaired", "edits": [{"from": a, "to": b} for a, b in edits]}
    shown = page.run(
        "const box = document.createElement('p'); box.append(...marked(arguments[0]));"
        "for (const d of box.querySelectorAll('del')) d.prepend('[');"
        "for (const i of box.querySelectorAll('ins')) i.append(']'); return box.textContent",
        report,
    )
    assert shown == marked


def test_a_clean_picture_is_left_alone(page, chest, noisy):
    page.choose(chest)
    assert page["verdict"].text.startswith("clean") and not page["restored"].is_displayed()
    page.ask("What body part is shown?")
    assert page["edits"].text == "Nothing to repair."
    # Another picture: what was said of the first one goes.
    page["file"].send_keys(str(noisy))
    page.wait(lambda: page["answer"].text == "" and page["restored"].is_displayed())


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_dropped_and_pasted(page, chest, how):
    page.run(
        """const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "x.jpg", { type: "image/jpeg" }));
        const init = { bubbles: true, cancelable: true };
        const event = arguments[1] === "drop" ? new DragEvent("drop", { ...init, dataTransfer: data })
          : new ClipboardEvent("paste", { ...init, clipboardData: data });
        document.body.dispatchEvent(event);""",
        base64.b64encode(chest.read_bytes()).decode(),
        how,
    )
    page.wait(lambda: page["seen"].is_displayed())
    assert page["verdict"].text.startswith("clean")


def test_the_keyboard_is_enough(page, chest):
    page["file"].send_keys(str(chest))
    page.wait(lambda: page["seen"].is_displayed())
    page.run("document.activeElement.blur()")
    reached = []
    for _ in range(3):
        webdriver.ActionChains(page.browser).send_keys(Keys.TAB).perform()
        reached.append(page.browser.switch_to.active_element.get_attribute("id"))
    assert reached == ["file", "question", "ask"]
    page["question"].send_keys(QUESTION)
    webdriver.ActionChains(page.browser).send_keys(Keys.TAB, Keys.SPACE).perform()
    page.wait(lambda: page["answer"].text == "x-ray")


def test_an_example_noise_and_the_answer_with_and_without(page):
    page.wait(lambda: len(page["examples"].find_elements(By.TAG_NAME, "button")) == 3)
    assert page["kind"].get_attribute("disabled") and not page["plain"].is_displayed()
    page["examples"].find_elements(By.TAG_NAME, "button")[2].click()
    page.wait(lambda: page["verdict"].text.startswith("clean"))
    assert page["question"].get_attribute("value") == "What modality is this?"
    before = page["before"].get_attribute("src")
    page["kind"].send_keys("impulses")
    page.wait(lambda: page["verdict"].text.startswith("impulse, severity 3 of 5") and page["restored"].is_displayed())
    assert page["before"].get_attribute("src") != before
    page["severity"].send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.wait(lambda: page["verdict"].text.startswith("impulse, severity 5 of 5"))
    assert page["severity-shown"].text == "5"
    page["compare"].click()
    page.ask("What modlity is this?")
    page.wait(lambda: page["plain"].is_displayed() and page["status"].text == "")
    assert page["answer"].text == "microscopy" and page["plain-answer"].text
    page["kind"].send_keys("none")
    page.wait(lambda: page["verdict"].text.startswith("clean"))
    assert page["before"].get_attribute("src") == before
    assert page["answer"].text == "" and not page["plain"].is_displayed()


def test_other_wordings_are_asked(page, chest):
    page.choose(chest)
    page["wording"].click()
    page.ask("What modality is this?")
    assert page["answer"].text == "x-ray" and "In other words it gets the same answer " in page["confidence"].text
    page["wording"].click()
    page.ask("What body part is shown?")
    assert "In other words" not in page["confidence"].text


def test_an_answer_that_is_not_given_is_said_to_be_withheld(browser, default_bundle, chest, tmp_path):
    strict = Server(tmp_path, "--max-risk", "0.0001")
    try:
        browser.get(strict.url)
        page = Page(browser)
        page.choose(chest)
        page["compare"].click()
        page.ask("What modality is this?")
        page.wait(lambda: page["plain"].is_displayed() and page["status"].text == "")
        assert page["answer"].text == "No answer is given." and "can be promised" in page["confidence"].text
        assert page["plain-answer"].text.startswith("No answer is given: the answer would be wrong with")
    finally:
        strict.stop()


def test_the_demo_begins_with_a_picture(page, server):
    page.browser.get(f"{server.url}/#demo")
    page.browser.refresh()
    page.wait(lambda: page["seen"].is_displayed())
    assert page["compare"].is_selected() and page["question"].get_attribute("value") == "Is there pneumonia?"


def test_a_screen_reader_finds_names_and_news(page):
    assert page.run("return document.documentElement.lang") == "en"
    unnamed = page.run(
        "return [...document.querySelectorAll('input, select, textarea')].filter((e) => !e.labels.length).length"
    )
    assert unnamed == 0
    assert page["live"].get_attribute("aria-live") == "polite" and page["error"].get_attribute("role") == "alert"
    assert all(i.get_attribute("alt") for i in page.browser.find_elements(By.TAG_NAME, "img"))


def test_what_is_wrong_is_said(browser, server, tmp_path):
    page = Page(browser)
    browser.get(server.url)
    page["question"].send_keys(QUESTION, Keys.ENTER)
    page.wait(lambda: page["error"].text == "Choose an image first.")
    (tmp_path / "notes.txt").write_text("no picture")
    page["file"].send_keys(str(tmp_path / "notes.txt"))
    page.wait(lambda: "is not a picture" in page["error"].text)
    assert not page["seen"].is_displayed() and page["status"].text == ""


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out(page, noisy, width):
    # A headless window is never as narrow as a telephone; its viewport can be.
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.choose(noisy)
        page.ask(QUESTION)
        assert page.run("return innerWidth") == width
        assert page.run("return document.documentElement.scrollWidth") <= width
        shot = Image.open(io.BytesIO(page.browser.get_screenshot_as_png()))
        assert shot.width == width and len(np.unique(np.asarray(shot.convert("L")))) > 50
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dicom_brings_its_window_and_frame(page):
    pydicom = pytest.importorskip("pydicom")
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    page.choose(folder / "CT_small.dcm")
    assert page["window"].is_displayed()
    before = page["before"].get_attribute("src")
    page["window"].send_keys("lung")
    page.wait(lambda: page["before"].get_attribute("src") != before)
    # What is damaged is what was shown.
    page["kind"].send_keys("low contrast")
    page.wait(lambda: page["verdict"].text.startswith("low contrast"))
    page.ask("What modality is this?")
    assert page["answer"].text and page["error"].text == ""


def test_another_frame_is_damaged_anew(page, tmp_path):
    """What is asked about is the frame that the form names, with the noise that it names."""
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm")
    frames = np.stack([dataset.pixel_array, dataset.pixel_array[::-1]])
    dataset.NumberOfFrames, dataset.PixelData = 2, frames.tobytes()
    dataset.save_as(tmp_path / "two.dcm")
    page.choose(tmp_path / "two.dcm")
    page["kind"].send_keys("low contrast")
    page.wait(lambda: page["verdict"].text.startswith("low contrast"))
    before = page.run("return picture")
    page["frame"].clear()
    page["frame"].send_keys("2", Keys.TAB)
    page.wait(lambda: page.run("return picture") != before)
    page.wait(lambda: page["seen"].is_displayed())
    assert page["kind"].get_attribute("value") == "low_contrast" and page["error"].text == ""


def test_a_file_that_cannot_be_read_is_said_and_the_last_one_counts(page, chest):
    page.choose(chest)
    page.run("""
      const gone = () => Promise.reject(new DOMException("gone", "NotFoundError"));
      take({ name: "x.png", slice: () => ({ arrayBuffer: gone }) });
    """)
    page.wait(lambda: "cannot be read" in page["error"].text)
    # The large one is still being read when the small one is there.
    script = """
      take(new File([new Uint8Array(40e6)], "large.png"));
      take(new File([Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0))], "small.jpg"));
    """
    small = base64.b64encode(chest.read_bytes()).decode()
    page.run(script, small)
    page.wait(lambda: page["error"].text == "" and page["seen"].is_displayed())
    time.sleep(1)
    assert page.run("return original").endswith(small) and page["error"].text == ""


def test_the_page_asks_for_the_key(browser, default_bundle, tmp_path, chest):
    server = Server(tmp_path, env={"IMC_LITE_API_KEY": "sesame"})
    try:
        page = Page(browser)
        browser.get(server.url)
        page["file"].send_keys(str(chest))
        page.wait(lambda: page["key"].is_displayed())
        page["key"].send_keys("sesame", Keys.TAB)
        page.wait(lambda: page["seen"].is_displayed())
    finally:
        server.stop()


def test_a_model_without_prototypes(browser, llava_checkpoint, tmp_path, chest):
    server = Server(tmp_path, "--model", str(llava_checkpoint), "--device", "cpu", "--max-tokens", "4")
    try:
        page = Page(browser)
        browser.get(server.url)
        page.choose(chest)
        assert page["verdict"].text.startswith("clean") and page["before"].is_displayed()
        page.ask("What is this?")
        assert page["confidence"].text.startswith("Nothing was fitted ") and page["error"].text == ""
        assert "%" in page["confidence"].text and not page["sure"].is_displayed()
    finally:
        server.stop()


def test_nothing_comes_from_elsewhere(server):
    status, headers, html = server.send("/")
    policy = headers["Content-Security-Policy"]
    assert status == 200 and "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert "http://" not in html and "https://" not in html and "src=" not in html
    assert json.dumps(html).count("<script>") == 1
