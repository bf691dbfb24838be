"Readies what nbdev put into _proc (`pre-render` of _quarto.yml): names, links between pages, to Colab and source."
import json
import os
import re
import shutil
import warnings
from pathlib import Path

import yaml

COLAB = "https://colab.research.google.com/github"
ANSWER = re.compile(r"^#\| code-fold: true\n#\| code-summary: \"?Answer\"?\n", flags=re.MULTILINE)


def unnumbered(
    page: Path, # a notebook, relative to the site
) -> str:  # Where nbdev's links expect its page
    "A page's address without the numbers that order the notebooks."
    parts = (re.sub(r"^\d+[a-z]?_", "", part) for part in page.with_suffix(".html").parts)
    return "/".join(parts)


def headings(
    path: Path,  # A processed notebook
) -> set[str]:  # In lower case, as the anchors are
    "What nbdev's links can point at in a notebook: the names that it shows the documentation of."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(output.get("data", {}).get("text/markdown", "")) for cell in cells
             for output in cell.get("outputs", [])]
    return {name.lower() for text in texts for name in re.findall(r"^### ([\w.]+)", text, flags=re.MULTILINE)}


def linked(
    text: str,  # A processed notebook, as it is stored
    page: Path,  # Its path, relative to the site
    pages: dict[str, tuple[Path, set[str]]],  # Notebook and its headings, by the address that nbdev gives it
    site: str,  # Where nbdev's links say the site is
) -> str:  # The same notebook
    "Point nbdev's links to this package's pages at the files beside them; a method without heading leads to its class."
    def local(match: re.Match) -> str:
        if match[1] not in pages: return match[0]
        target, known = pages[match[1]]
        anchor = match[2] if match[2] in known else match[2].partition(".")[0]
        path = os.path.relpath(target.with_suffix(".html"), page.parent).replace(os.sep, "/")
        return path + (f"#{anchor}" if anchor else "")
    return re.sub(rf"{re.escape(site)}/([\w/]+\.html)#?([\w.]*)", local, text)


def opened(
    notebook: dict,  # A processed notebook
    page: Path,  # Its path, relative to the site
    website: dict,  # That section of _quarto.yml
) -> None:
    "Put `Open in Colab` and `View source` under the title, and keep the page's own name."
    front = notebook["cells"][0]
    front["source"] = re.sub(r"^output-file:.*\n", "", "".join(front["source"]), flags=re.MULTILINE)
    path = f"{website['repo-branch']}/{website['repo-subdir']}/{page.as_posix()}"
    owner = website["repo-url"].removeprefix("https://github.com/")
    line = f"[Open in Colab]({COLAB}/{owner}/blob/{path}) [View source]({website['repo-url']}/blob/{path})"
    cell = {"cell_type": "markdown", "id": "links", "metadata": {}, "source": f"::: {{.notebook-links}}\n{line}\n:::"}
    if notebook["cells"][1].get("id") != "links": notebook["cells"].insert(1, cell)


def folded(
    notebook: dict,  # A processed notebook
) -> None:
    "Fold answers, code and output, under a word, so that a reader can think first."
    cells = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or not ANSWER.search(source):
            cells.append(cell)
            continue
        opening, closing = ({"cell_type": "markdown", "id": f"{cell['id']}-{end}", "metadata": {}, "source": text}
                            for end, text in (("open", "<details class=\"answer\"><summary>Answer</summary>"),
                                              ("close", "</details>")))
        cells += [opening, cell | {"source": ANSWER.sub("", source)}, closing]
    notebook["cells"] = cells


def brought_alive(
    folder: Path,  # of the page's script
) -> None:
    "Put the network and the examples beside the page that runs it in a browser."
    from dmgn.export import export
    from dmgn.files import EXAMPLES
    from dmgn.model import DMGN
    for name in ("cat_rain", "coffee_haze", "coffee_reflection"):
        shutil.copyfile(EXAMPLES/f"{name}.png", folder/f"{name}.png")
    if (folder/"small-any.onnx").exists(): return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's about itself
        export(DMGN.from_pretrained("small-any"), folder/"small-any.onnx", half=True)


def main(
    folder: Path,  # What nbdev wrote: the site's sources
) -> None:
    "Prepare every page; doing it twice changes nothing."
    if (folder/"live").is_dir(): brought_alive(folder/"live")
    website = yaml.safe_load((folder/"_quarto.yml").read_text(encoding="utf-8"))["website"]
    found = [path.relative_to(folder) for path in sorted(folder.rglob("*.ipynb"))]
    pages = {unnumbered(page): (page, headings(folder/page)) for page in found}
    for page in found:
        text = (folder/page).read_text(encoding="utf-8")
        notebook = json.loads(linked(text, page, pages, website["site-url"]))
        opened(notebook, page, website)
        folded(notebook)
        new = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        if new != text: (folder/page).write_text(new, encoding="utf-8")


if __name__ == "__main__":
    here = Path.cwd()
    if here.name == "_proc": main(here)
