"The site as a reader meets it: built by `make docs`, served from this machine, opened in headless Chromium."
import html
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag
from urllib.request import urlopen

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dmgn.files import EXAMPLES
from dmgn.images import to_pil, to_tensor
from dmgn.model import DMGN

ROOT = Path(__file__).resolve().parents[1]
SITE, PROCESSED = ROOT/"_docs", ROOT/"_proc"
CONFIG = yaml.safe_load((ROOT/"_quarto.yml").read_text(encoding="utf-8"))
NOTEBOOKS = sorted(path.relative_to(ROOT/"nbs")
                   for path in (ROOT/"nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
PAGES = [path.with_suffix(".html").as_posix() for path in NOTEBOOKS]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]

# Every text that can be seen, with the contrast to what is behind it; texts in the same colours count once
CONTRAST = r"""() => {
  const parse = c => {
    const [r, g, b, a = 1] = c.match(/[\d.]+/g).map(Number);
    return c.startsWith('color(') ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.map(v => linear(v / 255)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const found = new Map(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const skipped = '.katex-mathml, svg, script, style, noscript, .visually-hidden, [hidden]';
  for (let node; node = walker.nextNode();) {
    const el = node.parentElement, box = el.getBoundingClientRect(), style = getComputedStyle(el);
    if (!node.data.trim() || el.closest(skipped)) continue;
    if (!box.width || !box.height || style.visibility === 'hidden') continue;
    let layers = [], opacity = 1;
    for (let at = el; at; at = at.parentElement) {
      const s = getComputedStyle(at);
      layers.unshift(parse(s.backgroundColor));
      opacity *= Number(s.opacity);
    }
    if (!opacity) continue;
    const behind = layers.reduce((under, top) => over(top, under), [255, 255, 255, 1]), colour = parse(style.color);
    const front = over([...colour.slice(0, 3), colour[3] * opacity], behind);
    const [a, b] = [light(front), light(behind)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
    const key = [front, behind, large].join();
    const where = `"${node.data.trim().slice(0, 40)}" in ${el.tagName.toLowerCase()}.${el.className}`;
    if (ratio < (large ? 3 : 4.5) && !found.has(key)) found.set(key, `${ratio.toFixed(2)}: ${where}`);
  }
  for (const text of document.querySelectorAll('.dmgn-diagram text')) {
    const box = text.closest('a')?.querySelector('rect.box') ?? text.closest('svg').querySelector('.paper');
    const behind = over(parse(getComputedStyle(box).fill), parse(getComputedStyle(document.body).backgroundColor));
    const front = parse(getComputedStyle(text).fill);
    const [a, b] = [light(front), light(behind)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.set(text.textContent, `diagram: ${text.textContent}`);
  }
  return [...found.values()];
}"""

# What reaches beyond the screen and stands in no frame that scrolls
OVERFLOW = r"""() => [...document.querySelectorAll('main *, header *, footer *')].filter(el => {
  const box = el.getBoundingClientRect();
  if (!box.width || !box.height || box.right <= innerWidth + 1) return false;
  if (el.closest('.katex-mathml, .collapse:not(.show), .skip-link')) return false;
  for (let at = el; at && at !== document.body; at = at.parentElement)
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(at).overflowX)) return false;
  return true;
}).map(el => `${el.tagName.toLowerCase()}.${el.className} "${el.textContent.trim().slice(0, 40)}"`).slice(0, 3)"""

EQUATIONS = """() => ({
  all: document.querySelectorAll('.math').length,
  set: document.querySelectorAll('.math .katex').length,
  wrong: [...document.querySelectorAll('.katex-error')].map(e => e.title)})"""

# Markdown or TeX that nobody has rendered
RAW = r"""() => {
  const found = [], walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  const markup = /\]\(|:::|\$[^$]*\\|\$[A-Za-z]/, skipped = 'pre, code, svg, script, style, .katex';
  for (let node; node = walker.nextNode();)
    if (!node.parentElement.closest(skipped) && markup.test(node.data)) found.push(node.data.trim().slice(0, 60));
  return found;
}"""

PICTURES = """() => [...document.querySelectorAll('main img')]
  .filter(i => !i.alt.trim() || !i.naturalWidth || !i.hasAttribute('width') || !i.hasAttribute('height'))
  .map(i => `alt="${i.alt}" ${i.naturalWidth} x ${i.naturalHeight}: ${i.src.slice(0, 60)}`)"""


def newest(
    paths: list[Path],  # Files
) -> float:  # Seconds
    "When the newest of some files was written."
    return max((path.stat().st_mtime for path in paths if path.is_file()), default=0)


@pytest.fixture(scope="module")
def site() -> Path:
    "The site, built anew if a source of it is newer."
    pytest.importorskip("smalldocs", reason="smalldocs needs Python 3.11 or newer")
    sources = [*(ROOT/"nbs").rglob("*"), ROOT/"_quarto.yml", ROOT/"tools/make_docs.py", ROOT/"tools/prepare_pages.py"]
    if newest([SITE/"index.html"]) < newest(sources) or not (PROCESSED/"index.ipynb").exists():
        done = subprocess.run([sys.executable, ROOT/"tools/make_docs.py"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return SITE


def from_npm(name: str, version: str, request: pytest.FixtureRequest) -> Path:
    "The files of a package from the npm registry, kept in pytest's cache."
    folder = Path(request.config.cache.mkdir(f"{name}-{version}"))
    if not (folder/"package/package.json").exists():
        try:
            with urlopen(f"https://registry.npmjs.org/{name}/-/{name}-{version}.tgz", timeout=120) as answer:
                packed = answer.read()
        except OSError as error: pytest.skip(f"could not get {name}@{version}: {error}")
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive: archive.extractall(folder, filter="data")
    return folder/"package/dist"


@pytest.fixture(scope="module")
def katex(site: Path, request: pytest.FixtureRequest) -> Path:
    "KaTeX in the version that the pages ask for."
    version = re.search(r"npm/katex@([\d.]+)/dist", (site/"17_losses.html").read_text(encoding="utf-8"))[1]
    return from_npm("katex", version, request)


@pytest.fixture(scope="module")
def runtime(site: Path, request: pytest.FixtureRequest) -> Path:
    "ONNX Runtime in the version that the live page asks for."
    version = re.search(r"npm/onnxruntime-web@([\d.]+)/dist", (site/"live/worker.js").read_text(encoding="utf-8"))[1]
    return from_npm("onnxruntime-web", version, request)


class Quiet(SimpleHTTPRequestHandler):
    "A server that does not write what it serves."
    def log_message(self, *args: object) -> None: ...


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    "Where the site is served, on this machine only."
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    "A browser, with a profile of its own."
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
                 None)
    if not found: pytest.skip("needs Chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(chromium, address: str, katex: Path) -> Iterator[Callable]:
    "`opened(page, size)`: a page of the site in a tab; KaTeX comes from the local copy, nothing else from elsewhere."
    context = chromium.new_context(viewport=DESKTOP, color_scheme="light", reduced_motion="reduce")
    context.set_default_timeout(120_000)

    def answer(route) -> None:
        url = route.request.url
        if url.startswith(address): route.continue_()
        elif match := re.search(r"/npm/katex@[\d.]+/dist/(.+)", url): route.fulfill(path=katex/match[1])
        else: route.abort()

    context.route("**/*", answer)

    def open_page(name: str, size: dict = DESKTOP, tab=None):
        tab = tab or context.new_page()
        tab.set_viewport_size(size)
        tab.goto(f"{address}/{name}", wait_until="load")
        return tab

    yield open_page
    context.close()


@pytest.fixture(scope="module")
def seen(opened: Callable) -> dict[str, dict]:
    "Every page, looked at once: wide and light, wide and dark, narrow."
    tab, found = opened("index.html"), {}
    for name in PAGES:
        said: list[str] = []
        def failed(request) -> None:
            if request.failure == "net::ERR_ABORTED": return  # we went on
            said.append(f"{request.failure}: {request.url}")
        listeners = {"console": lambda m: said.append(m.text) if m.type == "error" else None,
                     "pageerror": lambda e: said.append(str(e)), "requestfailed": failed}
        for event, listener in listeners.items(): tab.on(event, listener)
        tab.emulate_media(color_scheme="light")
        opened(name, tab=tab)
        page = {"title": tab.title(), "equations": tab.evaluate(EQUATIONS), "pictures": tab.evaluate(PICTURES),
                "raw": tab.evaluate(RAW), "light": tab.evaluate(CONTRAST)}
        tab.emulate_media(color_scheme="dark")
        tab.wait_for_function("document.documentElement.classList.contains('quarto-dark')")
        page["dark"] = tab.evaluate(CONTRAST)
        tab.set_viewport_size(PHONE)
        found[name] = page | {"overflow": tab.evaluate(OVERFLOW), "said": said}
        for event, listener in listeners.items(): tab.remove_listener(event, listener)
    return found


def check_all(
    seen: dict[str, dict],  # What was found on every page
    what: str,  # A kind of problem
) -> None:
    "Fail with one line a problem, if there are any of a kind on any page."
    found = [f"{name}: {problem}" for name, page in seen.items() for problem in page[what]]
    assert not found, "\n".join(found)


def test_every_page_loads_without_an_error(seen: dict[str, dict]):
    assert len(seen) == len(PAGES) and all(page["title"] for page in seen.values())
    check_all(seen, "said")


def test_every_equation_is_set(seen: dict[str, dict]):
    assert not [f"{name}: {wrong}" for name, page in seen.items() for wrong in page["equations"]["wrong"]]
    assert not [name for name, page in seen.items() if page["equations"]["all"] != page["equations"]["set"]]
    with_equations = {path.with_suffix(".html").as_posix()
                      for path in NOTEBOOKS if "$$" in (ROOT/"nbs"/path).read_text(encoding="utf-8")}
    assert len(with_equations) > 5 and not [name for name in with_equations if not seen[name]["equations"]["set"]]


def test_no_markup_is_left(seen: dict[str, dict]):
    check_all(seen, "raw")


def test_every_picture_has_a_text_and_a_size(seen: dict[str, dict]):
    check_all(seen, "pictures")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(seen: dict[str, dict], scheme: str):
    check_all(seen, scheme)  # WCAG AA asks for 4.5 to 1, and 3 to 1 for large letters


def test_every_page_fits_a_telephone(seen: dict[str, dict]):
    check_all(seen, "overflow")


def sidebar_pages(
    contents: list,  # Of the sidebar in _quarto.yml
) -> list[str]:  # Pages, in order
    "The pages that the sidebar should lead to."
    def pages(item) -> list[str]:
        return sidebar_pages(item["contents"]) if isinstance(item, dict) else [item.replace(".ipynb", ".html")]
    return [page for item in contents for page in pages(item)]


def test_the_sidebar_leads_to_every_page_in_order(opened: Callable, address: str):
    tab = opened("experiments/00_experiments.html")
    links = tab.locator("#quarto-sidebar a.sidebar-link[href$='.html']").evaluate_all("links => links.map(a => a.href)")
    assert [link.removeprefix(f"{address}/")
            for link in links] == sidebar_pages(CONFIG["website"]["sidebar"]["contents"])
    tab.get_by_role("link", name="Residual Deep-Masking Cell").first.click()
    tab.wait_for_url("**/04_rdmc.html")
    assert tab.locator("#quarto-sidebar [aria-current=page]").inner_text() == tab.locator("h1").inner_text()
    tab.close()


def test_on_a_telephone_the_sidebar_opens_and_closes(opened: Callable):
    tab = opened("index.html", PHONE)
    link = tab.locator("#quarto-sidebar").get_by_text("Separator", exact=True)
    assert not link.is_visible() or link.bounding_box()["x"] < 0
    tab.get_by_role("button", name="Toggle sidebar navigation").click()
    link.click()
    tab.wait_for_url("**/03_separator.html")
    tab.close()


@pytest.mark.parametrize("words, page",
                         [("hinge_loss", "17_losses.html"), ("hypercolumn", "02_hypercolumn.html"),
                          ("dark channel", "experiments/14_classical.html")])
def test_search_finds(opened: Callable, words: str, page: str):
    tab = opened("index.html")
    tab.keyboard.press("/")
    tab.keyboard.type(words)
    first = tab.locator(".search-result").first
    first.wait_for()
    found = tab.locator(".search-result").evaluate_all(
        "links => links.map(a => a.getAttribute('href').replace(/^\\.\\//, ''))")
    assert any(link.startswith(page) for link in found[:3]), found
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"**/{found[0]}")
    tab.close()


def test_the_keyboard_reaches_the_content_and_shows_where_it_is(opened: Callable):
    tab = opened("04_rdmc.html")
    tab.keyboard.press("Tab")
    skip = tab.locator(":focus")
    assert skip.inner_text() == "Skip to the content"
    assert skip.bounding_box()["y"] >= 0
    tab.keyboard.press("Enter")
    seen = []
    for _ in range(6):
        tab.keyboard.press("Tab")
        seen.append(tab.evaluate("""() => { const el = document.activeElement, style = getComputedStyle(el);
            const visible = style.outlineStyle !== 'none' || style.boxShadow !== 'none';
            return [!!el.closest('main'), visible, el.textContent.trim()]; }"""))
    assert all(inside and visible for inside, visible, _ in seen), seen
    assert "Open in Colab" in [text for *_, text in seen]
    tab.close()


def test_what_scrolls_sideways_can_be_reached_with_the_keyboard(opened: Callable):
    tab = opened("04_rdmc.html", PHONE)
    scrolling = tab.locator("main pre, main table").evaluate_all(
        "all => all.filter(el => el.scrollWidth > el.clientWidth).map(el => el.tabIndex)")
    assert scrolling and set(scrolling) == {0}
    tab.close()


def test_the_theme_can_be_chosen_and_is_kept(opened: Callable):
    tab = opened("index.html")
    dark = "document.documentElement.classList.contains('quarto-dark')"
    assert not tab.evaluate(dark)
    tab.get_by_title("Toggle dark mode").click()
    tab.wait_for_function(dark)
    opened("00_images.html", tab=tab)
    tab.wait_for_function(dark)
    tab.evaluate("localStorage.clear()")
    tab.close()


def test_the_slider_moves_on_a_telephone(opened: Callable):
    tab = opened("24_widgets.html", PHONE)
    frame = tab.locator(".dmgn-frame").first
    slider = frame.get_by_role("slider")
    frame.scroll_into_view_if_needed()
    before, box = frame.screenshot(), frame.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
    slider.focus()
    for _ in range(30): tab.keyboard.press("ArrowLeft")
    assert slider.input_value() == "20" and frame.screenshot() != before
    tab.close()


def test_figures_answer_to_the_hand(opened: Callable):
    from dmgn.experiments.figures import all_masks, cat_bench, cell_probe, guided_board
    bench = cat_bench()
    board = guided_board(bench, alphas=(0, 0.4, 1.6), factors=(0, 1, 2))
    tab = opened("06_ndm.html", PHONE)
    said, shown = tab.locator(".dmgn-board p"), tab.locator(".dmgn-sheet img")
    def as_computed(*setting: str) -> None:
        assert_alike(said.text_content(), board.texts[board.settings.index(setting)])

    as_computed("0.4", "times 1")
    before = shown.evaluate("image => image.style.transform")
    tab.locator(".dmgn-board label", has_text="times 0").click()
    as_computed("0.4", "times 0")
    assert shown.evaluate("image => image.style.transform") != before
    assert len(all_masks(bench.network)) == 24
    probe = cell_probe(bench, bench.network.background.out_full, "last cell of G_b: ")
    opened("04_rdmc.html", tab=tab)
    layers, said = tab.locator(".dmgn-probe figure > div"), tab.locator(".dmgn-board p")
    layers.nth(2).hover(position={"x": 1, "y": 1})
    assert_alike(said.text_content(), probe.read(0, 0))
    tab.locator(".dmgn-probe").focus()
    for _ in range(2): tab.keyboard.press("ArrowRight")
    assert said.text_content().startswith("pixel (2, 0): last cell of G_b: X ")
    assert layers.nth(0).locator("span").evaluate("mark => mark.style.left") == "1.5625%"
    tab.close()


def assert_alike(one: str, other: str) -> None:
    "Two texts of the same words, with numbers that differ by no more than processors do."
    number = r"[+-]?\d+\.\d+"
    assert re.sub(number, "#", one) == re.sub(number, "#", other)
    assert [*map(float, re.findall(number, one))] == pytest.approx([*map(float, re.findall(number, other))], abs=0.1)


def test_answers_are_folded(opened: Callable):
    tab = opened("18_metrics.html")
    answer = tab.locator("details.answer").first
    assert answer.count() and not answer.locator("pre").first.is_visible()
    answer.locator("summary").click()
    assert answer.locator("pre").first.is_visible() and answer.locator(".cell-output").first.is_visible()
    tab.close()


def test_the_diagram_on_the_home_page_leads_to_the_notebooks(opened: Callable, root: Path):
    tab = opened("index.html", PHONE)
    diagram = tab.locator("svg.dmgn-diagram")
    assert "Refining generator leads to restored background B" in diagram.locator("desc").text_content()
    letters = tab.evaluate(
        "Math.min(...[...document.querySelectorAll('.dmgn-diagram text')].map(t => t.getBoundingClientRect().height))")
    assert letters > 10, "too small to be read on a telephone"
    diagram.locator("text", has_text="Channel attention").click()
    tab.wait_for_url("**/05_aca.html")
    tab.close()


def test_the_diagram_of_the_home_page_is_the_network_as_it_is_now():
    from dmgn.diagram import architecture
    cells = json.loads((ROOT/"nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]
    shown = ["".join(out["data"].get("text/html", "")) for cell in cells
             for out in cell.get("outputs", []) if "data" in out]
    assert architecture() in shown, "run index.ipynb, then `make prepare`"


def has_anchor(page: Path, anchor: str) -> bool:
    "Whether a link can lead to a place on a page."
    return f'id="{unquote(anchor)}"' in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_no_link_is_broken(site: Path, name: str):
    page = site/name
    broken = []
    for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8")):
        target, anchor = urldefrag(html.unescape(link))
        if re.match(r"[a-z]+:|//", target): continue
        file = (page.parent/unquote(target)).resolve() if target else page
        if file.is_dir(): file = file/"index.html"
        found = file.is_file() and (not anchor or file.suffix != ".html" or has_anchor(file, anchor))
        if not found: broken.append(link)
    assert not broken


@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_every_notebook_opens_in_colab_and_shows_its_source(site: Path, path: Path):
    text = (site/path.with_suffix(".html")).read_text(encoding="utf-8")
    repository = CONFIG["website"]["repo-url"]
    file = f"blob/{CONFIG['website']['repo-branch']}/nbs/{path.as_posix()}"
    assert f"https://colab.research.google.com/github/{repository.removeprefix('https://github.com/')}/{file}" in text
    assert f'href="{repository}/{file}"' in text


def test_pages_link_to_each_other_and_not_to_the_published_site(site: Path):
    own = CONFIG["website"]["site-url"]
    links = [(page.name, link) for page in site.rglob("*.html")
             for link in re.findall(r'<a [^>]*href="([^"]+)"', page.read_text(encoding="utf-8"))]
    assert not [(page, link) for page, link in links if link.startswith(f"{own}/")]


def test_icon_and_card(site: Path):
    from PIL import Image
    text = (site/"index.html").read_text(encoding="utf-8")
    assert re.search(r'<link rel="icon" href="(?:\./)?images/favicon.svg"', text)
    card = f'<meta property="og:image" content="{CONFIG["website"]["site-url"]}/images/social-card.jpg">'
    assert not [name for name in PAGES if card not in (site/name).read_text(encoding="utf-8")]
    assert Image.open(io.BytesIO((site/"images/social-card.jpg").read_bytes())).size == (1200, 630)


# styles.css and smalldocs do the same
FOR_QUARTO = ("format.html.grid is ignored", "format.html.respect-user-color-scheme is ignored")


def test_smalldocs_finds_nothing_to_complain_of(site: Path):
    done = subprocess.run([Path(sys.executable).with_name("smalldocs"), "check", PROCESSED], capture_output=True,
                          text=True)
    said = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    assert sorted(said) == sorted(FOR_QUARTO), done.stdout + done.stderr


def test_the_site_is_small(site: Path):
    sizes = [path.stat().st_size for path in site.rglob("*") if path.is_file()]
    assert sum(sizes) < 32_000_000  # of which the live page's network is 3.3


def on_live_page(opened: Callable, runtime: Path, spoil: bool = False):
    "The live page with the runtime from this machine, and all that the browser complains of."
    tab, said = opened("live.html"), []
    def answer(route) -> None:
        content = (runtime/route.request.url.rsplit("/", 1)[1]).read_bytes()
        headers = {"access-control-allow-origin": "*", "content-type": "text/javascript"}
        route.fulfill(body=content + b" "*spoil, headers=headers)
    tab.context.route("**/npm/onnxruntime-web@*/**", answer)
    tab.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda e: said.append(str(e)))
    return tab, said


def status_of(tab, wanted: str) -> str:
    "What the live page says, once it says what is wanted."
    tab.wait_for_function("wanted => document.querySelector('[data-part=status]').textContent.includes(wanted)",
                          arg=wanted, timeout=400_000)
    return tab.locator("[data-part=status]").inner_text()


def pytorch_on_blocks(photograph: Image.Image) -> np.ndarray:
    "What PyTorch makes of a picture, filled up to multiples of 16 as for the exported network."
    image = to_tensor(photograph)
    (h, w), network = image.shape[-2:], DMGN.from_pretrained("small-any").eval()
    with torch.inference_mode(): out = network(torch.nn.functional.pad(image, (0, -w % 16, 0, -h % 16), "replicate"))
    return np.asarray(to_pil(out.background[..., :h, :w])).astype(int)


def test_the_live_page_restores_as_pytorch_does(opened: Callable, runtime: Path, tmp_path: Path):
    tab, said = on_live_page(opened, runtime)
    tab.get_by_role("button", name="rain").click()
    text = status_of(tab, "Restored cat_rain.png")
    print(text)
    assert re.search(r"328 x 218 pixels, in [\d.]+ s with Web\w+: [\d.]+ s a megapixel", text)
    with tab.expect_download() as saved: tab.get_by_text("Save the result").click()
    assert saved.value.suggested_filename == "cat_rain_restored.png"
    saved.value.save_as(tmp_path/"restored.png")
    ours = np.asarray(Image.open(tmp_path/"restored.png").convert("RGB")).astype(int)
    off = np.abs(ours - pytorch_on_blocks(Image.open(EXAMPLES/"cat_rain.png").convert("RGB")))
    assert off.max() <= 1
    before = tab.locator(".dmgn-live-pictures").screenshot()
    tab.locator("[data-part=slider]").press("Home")
    assert tab.locator(".dmgn-live-pictures").screenshot() != before
    tab.set_viewport_size(PHONE)
    assert tab.evaluate(OVERFLOW) == []
    tab.locator("[data-part=file]").set_input_files({"name": "notes.jpg", "mimeType": "image/jpeg", "buffer": b"no"})
    assert status_of(tab, "no picture") == ("This file is no picture that your browser can open: "
                                            "expected JPEG, PNG, WebP or AVIF.")
    assert said == []
    tab.close()


def test_the_live_page_shows_each_tile_as_it_comes(opened: Callable, runtime: Path, tmp_path: Path):
    tab, said = on_live_page(opened, runtime)
    Image.open(EXAMPLES/"cat_rain.png").convert("RGB").resize((528, 64)).save(tmp_path/"wide.png")  # two tiles
    tab.locator("[data-part=file]").set_input_files(tmp_path/"wide.png")
    assert re.search(r"wide.png, 528 x 64 pixels: 1 of 2 tiles, about \d+ s left", status_of(tab, "1 of 2 tiles"))
    assert tab.locator("[data-part=pictures] canvas").is_visible()
    assert not tab.get_by_text("Save the result").is_visible()
    status_of(tab, "Restored wide.png")
    assert tab.locator("[data-part=pictures] img").count() == 2 and tab.get_by_text("Save the result").is_visible()
    assert said == []
    tab.close()


def test_the_live_page_runs_nothing_that_was_altered_on_its_way(opened: Callable, runtime: Path):
    tab, _ = on_live_page(opened, runtime, spoil=True)
    tab.get_by_role("button", name="rain").click()
    assert "The network could not run" in status_of(tab, "could not")
    tab.close()
