"The tutorials as a newcomer meets them: an environment like Colab's, into which the first cell installs the package."
import os
import shutil
import subprocess
import sys
import time
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SETTINGS = ConfigParser(delimiters=["="])
SETTINGS.read(Path(__file__).parents[1]/"settings.ini", encoding="utf-8")
REPOSITORY = SETTINGS["DEFAULT"]["git_url"]
THERE = ("torch", "torchvision", "numpy", "matplotlib", "pillow", "ipywidgets", "ipykernel")
TUTORIALS = sorted(path.stem for path in (Path(__file__).parents[1]/"nbs/tutorials").glob("*.ipynb"))
PATIENCE = 240  # seconds for a tutorial at its reduced size; a quiet machine needs a fifth


def with_requirements(names: tuple[str, ...]) -> set[str]:
    "Packages, and all that they need."
    found, waiting = set(), list(names)
    while waiting:
        if (name := canonicalize_name(waiting.pop())) in found: continue
        found.add(name)
        needs = map(Requirement, metadata.requires(name) or [])
        waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def colab(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    "The environment variables where notebooks run without the package; its repository is this folder's last commit."
    folder = tmp_path_factory.mktemp("colab")
    if os.name == "nt": pytest.skip("needs links, and folders of an environment as POSIX has them")
    if not (root/".git").exists() or shutil.which("git") is None: pytest.skip("needs git and a clone")
    subprocess.run([sys.executable, "-m", "venv", folder/"venv"], check=True)
    python = folder/"venv/bin/python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip())
    for file in [file for name in with_requirements(THERE) for file in metadata.files(name) if ".." not in file.parts]:
        (site/file).parent.mkdir(parents=True, exist_ok=True)
        if not (site/file).exists(): (site/file).symlink_to(file.locate())
    subprocess.run([python, "-m", "ipykernel", "install", "--prefix", folder, "--name", "colab"], check=True,
                   capture_output=True)
    local = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{root}.insteadOf", "GIT_CONFIG_VALUE_0": REPOSITORY}
    usual = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    variables = usual | local | {"JUPYTER_PATH": str(folder/"share/jupyter"),
                                 "PATH": f"{python.parent}:{os.environ['PATH']}", "TQDM_DISABLE": "1"}
    builds = subprocess.run([python, "-m", "pip", "download", "-q", "--no-deps", "--dest", folder, "setuptools"],
                            env=variables, capture_output=True, text=True)
    if builds.returncode: pytest.skip(f"pip cannot install here: {builds.stderr.strip().splitlines()[-1]}")
    return variables


def test_there_are_five():
    assert TUTORIALS == ["a_new_noise", "inside_a_restoration", "quickstart", "the_mask_that_would_not_fade",
                         "your_own_pairs"]


@pytest.mark.parametrize("name", sorted(TUTORIALS, key=lambda name: name != "quickstart"))
def test_runs_where_only_the_usual_packages_are(colab: dict[str, str], root: Path, name: str, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch):
    notebook = nbformat.read(root/f"nbs/tutorials/{name}.ipynb", 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert f'"pip", "install", "-q", "git+{REPOSITORY}"]' in code[0].source
    notebook.cells = [cell for cell in code if not {"slow", "gpu"} & set(directives(cell.source))]
    monkeypatch.setenv("JUPYTER_PATH", colab["JUPYTER_PATH"])
    start = time.time()
    NotebookClient(notebook, timeout=PATIENCE, kernel_name="colab",
                   resources={"metadata": {"path": str(tmp_path)}}).execute(env=colab)
    assert time.time() - start < PATIENCE
    where = subprocess.run(["python", "-c", "import dmgn; print(dmgn.__file__)"], env=colab, cwd=tmp_path,
                           capture_output=True, text=True, check=True).stdout
    assert "site-packages" in where


def directives(source: str) -> list[str]:
    "The words after `#|` at the head of a cell."
    return [word for line in source.splitlines() if line.startswith("#|") for word in line[2:].split()]
