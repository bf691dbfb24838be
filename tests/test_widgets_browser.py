"The widgets as a person meets them: in JupyterLab with a kernel, and on a page without one."
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [name for name in ("playwright", "jupyterlab", "ipywidgets", "ipykernel")
           if importlib.util.find_spec(name) is None]
if MISSING or CHROMIUM is None:
    pytest.skip(f"needs {', '.join([*MISSING, *([] if CHROMIUM else ['chromium'])])}, not on this machine",
                allow_module_level=True)

from playwright.sync_api import Browser, Locator, Page, sync_playwright  # noqa: E402

PATIENCE = 300_000  # milliseconds; a quiet machine needs a few seconds
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
METHODS = ["plain method", "median method", "blurred method", "other method"]

# The study is a file of its own, so that the names of the methods are nowhere in the notebook
STUDY = f"""
from PIL import ImageFilter
from dmgn.images import example
from dmgn.experiments.preferences import apply_methods
filters = [lambda p: p, lambda p: p.filter(ImageFilter.MedianFilter(5)),
           lambda p: p.filter(ImageFilter.GaussianBlur(2)), lambda p: p.rotate(180)]
photographs = {{name: example(name)[0].resize((120, 80)) for name in ("cat", "coffee")}}
samples = apply_methods(photographs, dict(zip({METHODS}, filters)))
"""
CELLS = """
from study import photographs, samples
from dmgn.experiments.preferences import Ranking
from dmgn.restore import restore
from dmgn.widgets import mask_explorer, noise_layers, show_restoration, synthesis_playground
restored = restore(photographs["cat"], "deraining")
---
show_restoration(restored, alt="A cat in the rain")
---
mask_explorer(photographs["cat"])
---
noise_layers(restored)
---
synthesis_playground("rain", photographs["coffee"])
---
Ranking(samples, "Ada", "votes.jsonl")
"""


def notebook(sources: list[str]) -> dict[str, Any]:
    "A notebook of code cells that were not run."
    cells = [{"id": f"c{n}", "cell_type": "code", "source": source.strip(), "metadata": {}, "outputs": [],
              "execution_count": None} for n, source in enumerate(sources)]
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    "Chromium without a window, with a profile of its own."
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[tuple[Path, str]]:
    "A folder with the notebook, and the address at which JupyterLab shows it."
    folder, home = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("home")
    (folder/"study.py").write_text(STUDY)
    (folder/"widgets.ipynb").write_text(json.dumps(notebook(CELLS.split("---"))))
    places = {f"JUPYTER_{name}_DIR": str(home/name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    places |= {f"JUPYTERLAB_{name}_DIR": str(home/name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    env = os.environ | places | {"HOME": str(home), "IPYTHONDIR": str(home/"ipython"), "PYTHONPATH": str(root),
                                 "OMP_NUM_THREADS": "1"}
    options = ["--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root", f"--ServerApp.root_dir={folder}",
               "--IdentityProvider.token=only-for-this-test",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (home/"log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], cwd=folder, env=env, stdout=log,
                                  stderr=subprocess.STDOUT)
    try:
        yield folder, address(server, home)
    finally:
        server.terminate()
        try: server.wait(60)
        except subprocess.TimeoutExpired: server.kill()


def address(server: subprocess.Popen, home: Path) -> str:
    "Where the server listens, once it does."
    for _ in range(PATIENCE//500):
        for path in (home/"runtime").glob("jpserver-*.json"):
            info = json.loads(path.read_text() or "{}")
            if info: return f"http://127.0.0.1:{info['port']}/lab/tree/widgets.ipynb?reset&token={info['token']}"
        assert server.poll() is None, (home/"log").read_text()[-2000:]
        time.sleep(0.5)
    raise AssertionError(f"JupyterLab did not start: {(home/'log').read_text()[-2000:]}")


def run_all(browser: Browser, address: str, cells: int) -> Page:
    "A notebook in which Run All Cells was chosen; so tall a window that JupyterLab keeps every cell on the page."
    page = browser.new_page(viewport={"width": 1300, "height": 4000})
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.locator(".jp-Notebook .jp-CodeCell").nth(cells - 1).wait_for()
    # JupyterLab forgets cells that are run before their kernel is there (jupyterlab issue 8490)
    page.locator(".jp-StatusBar-Left", has_text="| Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    return page


@pytest.fixture(scope="module")
def page(browser: Browser, lab: tuple[Path, str]) -> Page:
    "The notebook of widgets, run."
    page = run_all(browser, lab[1], len(CELLS.split("---")))
    # Not by its role: to find roles again and again keeps a busy page from its work
    page.locator(".widget-button:text-is('Next'), [data-mime-type*=error]").first.wait_for()
    return page


def until(true: Callable[[], Any], what: str) -> Any:
    "Wait for the kernel's answer to show."
    stop = time.monotonic() + PATIENCE/1000
    while time.monotonic() < stop:
        if found := true(): return found
        time.sleep(0.1)
    raise AssertionError(f"waited in vain for {what}")


def slide(page: Page, name: str, key: str) -> None:
    "Press a key on the slider of that name."
    box = page.locator(".widget-slider").filter(has=page.get_by_text(name, exact=True))
    box.get_by_role("slider").focus()
    page.keyboard.press(key)


def test_the_notebook_runs(page: Page):
    assert page.locator("[data-mime-type*=error], [data-mime-type*=stderr]").all_inner_texts() == []
    assert page.get_by_text("Error displaying widget").count() == 0


def moved_by_keys(frame: Locator, page: Page) -> tuple[bytes, bytes, bytes]:
    "The comparison as it is, with its slider 30 steps to the left, and at the right end."
    slider = frame.get_by_role("slider")
    slider.focus()
    seen = [frame.screenshot()]
    for _ in range(30): page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "20" and slider.get_attribute("aria-valuetext") == "20 %"
    seen.append(frame.screenshot())
    page.keyboard.press("End")
    return *seen, frame.screenshot()


def test_the_slider_moves_the_picture(page: Page):
    frame = page.locator(".dmgn-frame")
    assert len(set(moved_by_keys(frame, page))) == 3
    box = frame.bounding_box()
    x, y = box["x"] + 0.25*box["width"], box["y"] + box["height"]/2
    page.mouse.move(box["x"] + 0.9*box["width"], y)
    page.mouse.down()
    page.mouse.move(x, y, steps=5)
    page.mouse.up()
    assert abs(int(frame.get_by_role("slider").input_value()) - 25) <= 1
    images = page.locator(".dmgn-frame img")
    assert images.evaluate_all("all => all.map(i => [i.alt, i.complete && i.naturalWidth])") == [
        ["A cat in the rain, before", 120], ["A cat in the rain, after", 120]]


def test_the_mask_explorer_shows_another_cell(page: Page):
    def mask(cell: str) -> str | None:
        found = page.locator(f'img[alt="Mask: generator {cell}"]')
        return found.get_attribute("src") if found.count() else None
    first = until(lambda: mask("G_b, cell 1"), "the first mask")
    slide(page, "cell", "ArrowRight")
    second = until(lambda: mask("G_b, cell 2"), "the second mask")
    page.get_by_label("generator").select_option("G_refine")
    assert len({first, second, until(lambda: mask("G_refine, cell 2"), "a refining cell's mask")}) == 3
    slide(page, "cell", "End")
    until(lambda: mask("G_refine, cell 6"), "the last refining cell's mask")


def test_the_noise_layers_follow_their_controls(page: Page):
    picture = page.locator('img[alt^="Noise layers:"]')
    before = picture.get_attribute("src")
    page.get_by_label("layer", exact=True).select_option("noise image")
    until(lambda: "layer noise image, opacity 0.5" in picture.get_attribute("alt"), "the noise image")
    assert picture.get_attribute("src") != before


def test_the_playground_rains_harder(page: Page):
    picture = page.locator('img[alt^="Rain:"]')
    before = picture.get_attribute("src")
    assert "density 0.18" in picture.get_attribute("alt")
    slide(page, "density", "ArrowRight")
    until(lambda: "density 0.2," in picture.get_attribute("alt"), "more rain")
    assert picture.get_attribute("src") != before


def test_a_subject_ranks_a_sample_with_mouse_and_keyboard(page: Page, lab: tuple[Path, str]):
    def button(name: str) -> Locator: return page.get_by_role("button", name=name, exact=True)
    text = page.content()
    assert 'alt="Picture A"' in text and not [method for method in METHODS if method in text], "the names are hidden"
    votes, shown = lab[0]/"votes.jsonl", page.locator('img[alt="Picture A"]').get_attribute("src")
    button("B").click()
    button("B: best").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    button("C: second best").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    button("A: 4th").wait_for()
    assert not votes.exists()
    button("Next").click()
    vote = json.loads(until(lambda: votes.exists() and votes.read_text(), "the vote"))
    assert (vote["subject"], sorted(vote["shown"])) == ("Ada", sorted(METHODS))
    assert vote["ranking"] == [vote["shown"]["ABCD".index(letter)] for letter in "BCDA"]
    until(lambda: page.get_by_text("Sample 2 of 2").count(), "the second sample")
    assert page.locator('img[alt="Picture A"]').get_attribute("src") != shown
    until(lambda: button("A").evaluate("b => b === document.activeElement"), "the first button in focus")


def test_a_photograph_of_ones_own_is_restored(browser: Browser, lab: tuple[Path, str], root: Path, tmp_path: Path):
    code = [cell for cell in json.loads((root/"nbs/tutorials/quickstart.ipynb").read_text())["cells"]
            if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in code]
    wanted = sources[:next(n for n, source in enumerate(sources) if "App()" in source) + 1]
    (lab[0]/"quickstart.ipynb").write_text(json.dumps(notebook(wanted)))
    page = run_all(browser, lab[1].replace("widgets.ipynb", "quickstart.ipynb"), len(wanted))
    upload = page.locator(".widget-upload")
    page.locator(".widget-upload, [data-mime-type*=error]").first.wait_for()

    def choose(path: Path) -> None:
        with page.expect_file_chooser() as chooser: upload.click()
        chooser.value.set_files(path)

    (tmp_path/"broken.png").write_bytes(b"not a photograph")
    choose(tmp_path/"broken.png")
    page.locator(".widget-html-content", has_text="cannot be read as a photograph").wait_for()
    with Image.open(root/"dmgn/examples/cat_rain.png") as photograph:
        photograph.resize((120, 80)).save(tmp_path/"mine.jpg")
    choose(tmp_path/"mine.jpg")
    link = page.locator("a", has_text="Save the restored photograph")
    page.locator('img[alt="Your photograph, after"][width="120"]').wait_for()
    with page.expect_download() as download: link.click()
    with Image.open(download.value.path()) as restored: assert (restored.format, restored.size) == ("PNG", (120, 80))
    assert page.locator('img[alt="Your photograph, after"]').evaluate("i => i.complete && i.naturalWidth") == 120
    assert download.value.suggested_filename == "mine_restored.png"
    page.get_by_label("show", exact=True).select_option("noise image")
    page.locator('img[alt="noise image"]').wait_for()
    page.close()


def outputs_of(path: Path) -> list[dict[str, Any]]:
    "What the cells of a notebook show."
    return [output["data"] for cell in json.loads(path.read_text())["cells"]
            for output in cell.get("outputs", []) if "data" in output]


def test_what_is_committed_needs_no_kernel(root: Path):
    for name in ("24_widgets", "experiments/05_table4_preferences"):
        stored = outputs_of(root/"nbs"/f"{name}.ipynb")
        widgets = [mime for data in stored for mime in data if "widget" in mime]
        assert not widgets, "a site without a kernel shows a widget that does not answer"
        assert [data for data in stored if "image/png" in data], "pictures stand in for the controls"


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_the_slider_of_the_site_works_without_a_kernel(browser: Browser, root: Path, scripts: bool):
    html = next("".join(data["text/html"]) for data in outputs_of(root/"nbs/24_widgets.ipynb")
                if "dmgn-compare" in "".join(data.get("text/html", "")))
    context = browser.new_context(java_script_enabled=scripts, viewport={"width": 800, "height": 500})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.set_content(html)
    frame, pictures = page.locator(".dmgn-frame"), page.locator(".dmgn-frame img")
    left, right = (pictures.nth(n).bounding_box() for n in (0, 1))
    if scripts:
        assert left == right and len(set(moved_by_keys(frame, page))) == 3
        page.get_by_label("side by side").check()
        left, right = (pictures.nth(n).bounding_box() for n in (0, 1))
    assert left["x"] + left["width"] < right["x"] and left["y"] == right["y"]
    assert page.get_by_role("slider").count() == 0
    context.close()
