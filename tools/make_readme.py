"Writes README.md from nbs/index.ipynb, without Quarto: python tools/make_readme.py"
import base64
import os
import re
from configparser import ConfigParser
from pathlib import Path

import nbformat

NOTICE = "<!-- Written from nbs/{name} by `make prepare`: edit the notebook, not this file. -->"
HIDDEN = {"hide", "export", "exporti", "default_exp"}


def directives(
    source: str,  # A code cell
) -> dict[str, str]:  # Directive to argument, of the `#|` lines
    "The `#|` lines of a cell."
    found = re.findall(r"^#\|[ \t]*([\w-]+)[ \t]*:?[ \t]*(.*)$", source, flags=re.MULTILINE)
    return {name: argument.strip() for name, argument in found}


def from_root(
    text: str,  # Markdown whose links are relative to `folder`
    folder: Path,  # The notebook's folder
    root: Path,  # The project
) -> str:  # Markdown whose links are relative to `root`
    "Rewrite the links to files beside the notebook so that they work from the project's root."
    def rewrite(match: re.Match) -> str:
        if re.match(r"#|\w+:", match[2]): return match[0]
        return match[1] + Path(os.path.normpath(folder.relative_to(root)/match[2])).as_posix() + match[3]
    text = re.sub(r"(\]\()([^)\s]+)(\))", rewrite, text)
    return re.sub(r'(src=")([^"]+)(")', rewrite, text)


def fenced(
    text: str,  # What the block holds
    language: str = "",  # Its language
) -> str:  # Markdown
    "A fenced block."
    return f"```{language}\n{text.strip()}\n```"


def output_text(
    output: dict,  # One output of a code cell
    stem: str,  # Name for a picture's file, without its suffix
    pictures: dict[str, bytes],  # Where a picture's file is put
    said: dict[str, str],  # The cell's directives: `fig-alt` and `fig-cap` of a picture
) -> str:  # Markdown
    "An output as Markdown: a picture with its caption, Markdown or plain text."
    if output["output_type"] == "stream": return fenced(output["text"])
    data = output.get("data", {})
    for kind in ("png", "jpeg"):
        if f"image/{kind}" in data:
            name = f"{stem}.{kind}"
            pictures[name] = base64.b64decode(data[f"image/{kind}"])
            alt, caption = (said.get(key, "").strip("\"'") for key in ("fig-alt", "fig-cap"))
            return f"![{alt}]({name})" + f"\n\n*{caption}*" * bool(caption)
    if data.get("text/html", "").startswith("<svg"):
        pictures[f"{stem}.svg"] = data["text/html"].strip().encode() + b"\n"
        return f"![{said.get('fig-alt', '').strip(chr(34))}]({stem}.svg)"
    if "text/markdown" in data: return data["text/markdown"].strip()
    return fenced(data["text/plain"]) if "text/plain" in data else ""


def cell_texts(
    index: int,  # The cell's place in the notebook
    cell: dict,  # The cell
    name: str,  # The notebook's name, without its suffix
    pictures: dict[str, bytes],  # Where pictures are put
) -> list[str]:  # Pieces of Markdown
    "A cell as Markdown; nothing for a hidden one."
    if cell.cell_type == "markdown": return [re.sub(r"<!--.*?-->", "", cell.source, flags=re.DOTALL).strip()]
    said = directives(cell.source)
    if cell.cell_type != "code" or HIDDEN & said.keys() or said.get("include") == "false": return []
    source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.MULTILINE).strip()
    texts = [] if said.get("echo") == "false" or not source else [fenced(source, "python")]
    if said.get("output") == "false": return texts
    return texts + [output_text(output, f"{name}_files/{index}-{i}", pictures, said)
                    for i, output in enumerate(cell.outputs)]


def readme(
    root: Path,  # The project
) -> dict[str, bytes]:  # File name to contents: README.md, and the pictures among the notebook's outputs
    "README.md and its pictures, as the notebook says they should be."
    settings = ConfigParser(delimiters=["="])
    settings.read(root/"settings.ini", encoding="utf-8")
    path = root/settings["DEFAULT"]["nbs_path"]/settings["DEFAULT"]["readme_nb"]
    pictures: dict[str, bytes] = {}
    cells = nbformat.read(path, as_version=4).cells
    texts = [text for index, cell in enumerate(cells) for text in cell_texts(index, cell, path.stem, pictures)]
    texts.insert(1, NOTICE.format(name=path.name))
    text = "\n\n".join(from_root(text, path.parent, root) for text in texts if text)
    beside = path.parent.relative_to(root)
    return {"README.md": (text + "\n").encode(),
            **{(beside/name).as_posix(): content for name, content in pictures.items()}}


def left_over(
    root: Path,  # The project
    files: dict[str, bytes],  # What readme returned
) -> list[Path]:  # Relative to the project
    "Pictures that README.md showed once."
    folders = {(root/name).parent for name in files if name != "README.md"}
    return [path.relative_to(root) for folder in sorted(folders) if folder.is_dir()
            for path in sorted(folder.iterdir()) if path.relative_to(root).as_posix() not in files]


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    files = readme(root)
    for path in left_over(root, files): (root/path).unlink()
    for name, content in files.items():
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        (root/name).write_bytes(content)
