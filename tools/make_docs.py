"Builds the site into _docs/ offline: nbdev processes the notebooks, smalldocs renders them with _quarto.yml."
import base64
import os
import re
import shutil
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

from nbdev.config import get_config
from nbdev.serve import proc_nbs

PICTURE = re.compile(r'<img ([^>]*?)src="data:image/(png|jpeg|webp);base64,([^"]+)"([^>]*)>')
ICONS = re.compile(r'(<i class="bi[^"]*"(?: [\w-]+="[^"]*")*?) role="img"')

CARD = re.compile(r'(<meta (?:property="og|name="twitter):image" content="[^"]*?)/(?:tutorials|experiments)/(images/)')

FONTS = re.compile(r'@import url\([^)]*\);?')  # A theme's own letters: the system's do, and no third party is asked


def apart(
    match: re.Match,  # Of PICTURE
    page: Path,  # On which it is
    pictures: dict[str, str],  # Their files, by content; added to
) -> str:  # The same tag, with a file in place of the content, and the picture's size: the page does not jump
    "A picture in a file of its own, as Quarto puts it."
    before, kind, text, after = match.groups()
    if text not in pictures:
        folder = page.with_name(f"{page.stem}_files")
        folder.mkdir(exist_ok=True)
        (folder/f"{len(pictures)}.{kind}").write_bytes(base64.b64decode(text))
        pictures[text] = f"{folder.name}/{len(pictures)}.{kind}"
    size = ""
    if kind == "png" and "width=" not in before + after:
        width, height = struct.unpack(">II", base64.b64decode(text[:64])[16:24])
        size = f'width="{width}" height="{height}" '
    return f'<img {size}{before}src="{pictures[text]}"{after}>'


def polish(
    site: Path,  # The rendered site
) -> None:
    "What smalldocs leaves out: pictures as files and their sizes, one card, icons as decoration, the system's letters."
    for page in site.rglob("*.html"):
        pictures: dict[str, str] = {}
        moved = partial(apart, page=page, pictures=pictures)
        text = PICTURE.sub(moved, page.read_text(encoding="utf-8"))
        text = CARD.sub(r"\1/\2", text)
        page.write_text(ICONS.sub(r'\1 aria-hidden="true"', text), encoding="utf-8")
    for theme in site.glob("site_libs/**/*.css"):
        theme.write_text(FONTS.sub("", theme.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    "Process, render, and put the site where nbdev puts it."
    config = get_config()
    os.chdir(config.config_path)  # nbdev leaves out what lies in a folder with a dot, were it one above the project
    processed = proc_nbs(config.nbs_path.relative_to(config.config_path), force=True)
    smalldocs = Path(sys.executable).with_name("smalldocs")
    if not smalldocs.exists(): sys.exit("smalldocs is not installed: it needs Python 3.11 or newer")
    if code := subprocess.run([smalldocs, "render", processed]).returncode: sys.exit(code)
    polish(processed/config.doc_path.name)
    shutil.rmtree(config.doc_path, ignore_errors=True)
    shutil.move(processed/config.doc_path.name, config.doc_path)
    print(f"Wrote {config.doc_path.relative_to(config.config_path)}/index.html")


if __name__ == "__main__": main()
