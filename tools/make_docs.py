"Builds the site into _docs/ offline: nbdev processes the notebooks, smalldocs renders them with _quarto.yml."
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from nbdev.config import get_config
from nbdev.serve import proc_nbs


def link_locally(
    site: Path,  # The rendered site
    address: str,  # Where nbdev's links say the site is
) -> None:
    "Point nbdev's links to this package's own pages at the files beside them, which keep their numbers."
    pages = {re.sub(r"^\d+[a-z]?_", "", page.name): page for page in site.rglob("*.html")}
    for page in site.rglob("*.html"):
        def local(match: re.Match) -> str:
            target = pages.get(match[1])
            return os.path.relpath(target, page.parent) if target else match[0]
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(rf"{re.escape(address)}/(?:[\w/]+/)?([\w.]+\.html)", local, text), encoding="utf-8")


def main() -> None:
    "Process, render, and put the site where nbdev puts it."
    config = get_config()
    processed = proc_nbs(force=True)
    smalldocs = Path(sys.executable).with_name("smalldocs")
    if not smalldocs.exists(): sys.exit("smalldocs is not installed: it needs Python 3.11 or newer")
    if code := subprocess.run([smalldocs, "render", processed]).returncode: sys.exit(code)
    link_locally(processed/config.doc_path.name, config.doc_host + config.doc_baseurl)
    shutil.rmtree(config.doc_path, ignore_errors=True)
    shutil.move(processed/config.doc_path.name, config.doc_path)
    print(f"Wrote {config.doc_path.relative_to(config.config_path)}/index.html")


if __name__ == "__main__": main()
