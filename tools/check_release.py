"Checks that a tag may be released: python tools/check_release.py v0.1.0"
import re
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def problems(
    tag: str,  # v and the version
    root: Path,  # The project
) -> list[str]:  # What speaks against it
    "Why a tag is not a release; nothing if it is one."
    parser = ConfigParser(delimiters=["="])
    parser.read(root/"settings.ini", encoding="utf-8")
    version, found = parser["DEFAULT"]["version"], []
    changelog, citation = ((root/name).read_text(encoding="utf-8") for name in ("CHANGELOG.md", "CITATION.cff"))
    if tag != f"v{version}": found.append(f"the tag is {tag}, and settings.ini has version {version}")
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$"
    if not re.search(heading, changelog, flags=re.MULTILINE):
        found.append(f"CHANGELOG.md has no heading [{version}] with a date")
    if f"\nversion: {version}\n" not in f"\n{citation}": found.append(f"CITATION.cff does not have version {version}")
    return found


if __name__ == "__main__":
    lines = problems(sys.argv[1], ROOT)
    if lines: sys.exit("\n".join(lines))
