"Checks, on a copy, that dmgn/, the notebooks and README.md agree; one line for each file that doesn't."
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from make_readme import left_over, readme

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
SKIP = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".quarto", "*.safetensors")


def copy_project(
    to: Path,  # An empty folder
) -> None:
    "Copy what nbdev reads and writes, without the generated modules."
    for folder in ("nbs", "dmgn"): shutil.copytree(ROOT/folder, to/folder, ignore=SKIP)
    for name in ("settings.ini", "pyproject.toml", "_quarto.yml"): shutil.copy(ROOT/name, to)
    for path in modules(to): path.unlink()


def modules(
    root: Path,  # A project
) -> list[Path]:  # The modules that come from notebooks
    "Every Python file of the package but the two that are written by hand; nbdev gives the first its version."
    by_hand = root/"dmgn/__init__.py", root/"dmgn/__main__.py"
    return [path for path in sorted((root/"dmgn").rglob("*.py")) if path not in by_hand]


def run(
    command: str,  # One of nbdev's commands
    folder: Path,  # Where to run it
) -> None:
    "Run one of nbdev's commands, quietly unless it fails."
    env = {**os.environ, "XDG_CONFIG_HOME": str(folder/"config")}
    done = subprocess.run([sys.executable, BIN/command], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode: sys.exit(f"{command} failed:\n{done.stdout}{done.stderr}")


def difference(
    have: Path,  # The project's file
    want: bytes | None,  # What it should hold; None for no such file
) -> str | None:  # What is wrong
    "What is wrong with a file, in a few words."
    if want is None: return "comes from no notebook"
    if not have.exists(): return "is missing"
    return None if have.read_bytes() == want else "differs from what its notebook says"


def problems() -> list[str]:  # One line a file
    "Every file that isn't as nbdev and make_readme would write it."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_project(copy)
        run("nbdev_export", copy)
        run("nbdev_clean", copy)
        names = {path.relative_to(root) for root in (ROOT, copy) for path in modules(root)}
        names |= {path.relative_to(copy) for path in (copy/"nbs").rglob("*.ipynb")}
        names |= {Path("dmgn/__init__.py"), Path("pyproject.toml")}
        expected = {name: (copy/name).read_bytes() if (copy/name).exists() else None for name in names}
    files = readme(ROOT)
    expected |= {Path(name): content for name, content in files.items()} | dict.fromkeys(left_over(ROOT, files))
    found = {name: difference(ROOT/name, want) for name, want in expected.items()}
    return [f"{name}: {'is not clean' if name.suffix == '.ipynb' else what}"
            for name, what in sorted(found.items()) if what]


if __name__ == "__main__":
    lines = problems()
    for line in lines: print(line)
    if lines: sys.exit("Out of sync: run `make prepare`")
    print("In sync")
