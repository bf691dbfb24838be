"The project as a whole: what importing it does, its notebooks, its documentation, its package."
import ast
import base64
import configparser
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tokenize
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.append(str(Path(__file__).resolve().parents[1]/"tools"))
import check_release
import lowest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path for path in (ROOT/"nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
MODULES = sorted(path for path in (ROOT/"dmgn").rglob("*.py") if not path.name.startswith("_"))
WORKFLOWS = sorted((ROOT/".github/workflows").iterdir())
CODE = sorted(path for folder in ("dmgn", "tests", "tools") for path in (ROOT/folder).rglob("*.py")
              if path.name != "_modidx.py")  # which nbdev writes
SETTINGS = configparser.ConfigParser(delimiters=["="])
SETTINGS.read(ROOT/"settings.ini", encoding="utf-8")
SETTINGS = SETTINGS["DEFAULT"]
SITE = yaml.safe_load((ROOT/"_quarto.yml").read_text(encoding="utf-8"))

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
asked = []
sys.addaudithook(lambda event, args: asked.append(event) if event in {"socket.connect", "socket.getaddrinfo"} else None)
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"nbdev", "fastcore", "execnb", "IPython"}: raise ImportError(f"blocked: {name}")
sys.meta_path.insert(0, Blocker())
import dmgn
for module in pkgutil.walk_packages(dmgn.__path__, "dmgn."): importlib.import_module(module.name)
sys.exit(f"asked the network: {asked}" if asked else 0)
"""


def short(path: Path) -> str:
    "A file's name for a test's label."
    return path.stem


def relative(path: Path) -> str:
    "A file's place in the project, for a test's label."
    return path.relative_to(ROOT).as_posix()


def cells(path: Path) -> list[dict]:
    "A notebook's cells."
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def outputs(path: Path) -> list[dict]:
    "The outputs of a notebook's code cells."
    return [output for cell in cells(path) for output in cell.get("outputs", [])]


def test_importing_every_module_needs_no_development_package_and_no_network():
    done = subprocess.run([sys.executable, "-c", IMPORT_EVERYTHING], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_notebook_opens_with_a_title_and_a_subtitle(path: Path):
    first = cells(path)[0]
    lines = [line for line in "".join(first["source"]).splitlines() if line.strip()]
    assert first["cell_type"] == "markdown"
    assert len(lines) == 2, "nbdev keeps nothing of the first cell but title and subtitle"
    assert lines[0].startswith("# ") and lines[1].startswith("> ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_notebook_is_small(path: Path):
    pictures = [output["data"]["image/png"] for output in outputs(path) if "image/png" in output.get("data", {})]
    sizes = [len(base64.b64decode("".join(picture))) for picture in pictures]
    assert path.stat().st_size < 2_000_000
    assert max(sizes, default=0) < 200_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_notebook_shows_no_error_and_no_warning_of_a_library(path: Path):
    assert not [output["ename"] for output in outputs(path) if output["output_type"] == "error"]
    assert not [output["text"] for output in outputs(path) if "Warning:" in "".join(output.get("text", ""))]


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.parent.name != "tutorials"], ids=short)
def test_notebook_fetches_the_project_in_colab_and_nowhere_else(path: Path):
    hidden = next("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code")
    assert hidden.startswith("#| hide\nimport sys\n\nif \"google.colab\" in sys.modules:")
    assert f"git clone -q {SETTINGS['git_url']} " in hidden
    assert hidden.endswith(f"%cd dmgn/{path.parent.relative_to(ROOT).as_posix()}")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_relative_links_of_a_notebook_lead_somewhere(path: Path):
    text = "\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text)
    missing = [link for link in links
               if "://" not in link and not link.startswith("attachment:") and not (path.parent/link).exists()]
    assert not missing


def test_questions_have_answers_that_are_tests():
    answered = 0
    for path in NOTEBOOKS:
        for question, answer in pairwise(cells(path)):
            if not re.match(r"\*\*\d+\.\*\* ", "".join(question["source"])): continue
            code = "".join(answer["source"])
            assert code.startswith('#| code-fold: true\n#| code-summary: "Answer"\n'), f"{path.name}: {question['id']}"
            assert re.search(r"\bassert\b|\btest_\w+\(", code) and answer["outputs"], f"{path.name}: {code}"
            answered += 1
    assert answered > 50


def code_of(path: Path) -> list[tuple[str, str]]:
    "(where, source) of a Python file, or of every code cell of a notebook; cells are counted as ruff does, from 1."
    name = path.relative_to(ROOT).as_posix()
    if path.suffix == ".py": return [(name, path.read_text(encoding="utf-8"))]
    return [(f"{name}:cell {number}", "".join(cell["source"])) for number, cell in enumerate(cells(path), 1)
            if cell["cell_type"] == "code"]


def without_magics(source: str) -> str:
    "A cell without its lines for IPython, so that it can be parsed; the number of lines stays."
    if source.lstrip().startswith("%%"): return ""
    return re.sub(r"^(\s*)[!%].*$", r"\1pass", source, flags=re.MULTILINE)


DEFINITIONS = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_only_a_cell_that_shows_something_has_an_output_that_is_shown(path: Path):
    stale = []
    for cell in (cell for cell in cells(path) if cell["cell_type"] == "code"):
        body = ast.parse(without_magics("".join(cell["source"]))).body
        *_, last = [None, *body]
        shown = {output["output_type"] for output in cell["outputs"]}
        if "execute_result" in shown and not isinstance(last, ast.Expr): stale.append(cell["id"])
        if "display_data" in shown and isinstance(last, DEFINITIONS): stale.append(cell["id"])
        if shown and body and all(isinstance(statement, DEFINITIONS) for statement in body): stale.append(cell["id"])
    assert not stale, "run again: an output is left from what the cell was"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_no_picture_of_a_test_set_is_kept(path: Path):
    kept = [cell["id"] for cell in cells(path) if "benchmark_pairs(" in "".join(cell["source"])
            and any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))]
    assert not kept, "the photographs are their owners': clear the output"


def lines_of_body(function: ast.FunctionDef) -> int:
    "The lines of a function without its signature, which documents one parameter per line."
    return function.end_lineno - function.body[0].lineno + 1


def is_whole(source: str) -> bool:
    "Whether a cell cannot be split: imports, one name per line, a single class, or a function of many parameters."
    body = ast.parse(without_magics(source)).body
    if all(isinstance(node, ast.Import | ast.ImportFrom) for node in body): return True
    if len(body) != 1: return False
    return isinstance(body[0], ast.ClassDef) or (isinstance(body[0], ast.FunctionDef) and lines_of_body(body[0]) <= 25)


def written_by_nbdev(path: Path) -> int:
    "How many lines at the head of a module nbdev writes: docstring and list of names."
    if "dmgn" not in path.parts or path.suffix != ".py": return 0
    return next((n for n, line in enumerate(path.read_text().splitlines()) if line.startswith("# %% ../")), 0)


@pytest.mark.parametrize("path", [*CODE, *NOTEBOOKS], ids=relative)
def test_no_line_of_code_is_longer_than_120_characters(path: Path):
    found = [f"{where}:{number}: {len(line)} characters" for where, source in code_of(path)
             for number, line in enumerate(source.splitlines(), 1)
             if len(line) > 120 and number > written_by_nbdev(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_no_cell_is_longer_than_25_lines(path: Path):
    found = [f"{where}: {source.count(chr(10)) + 1} lines" for where, source in code_of(path)
             if source.count("\n") >= 25 and not is_whole(source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", [*CODE, *NOTEBOOKS], ids=relative)
def test_no_function_is_longer_than_40_lines(path: Path):
    found = [f"{where}:{node.lineno}: {node.name}, {lines_of_body(node)} lines"
             for where, source in code_of(path) for node in ast.walk(ast.parse(without_magics(source)))
             if isinstance(node, ast.FunctionDef) and lines_of_body(node) > 40]
    assert not found, "\n".join(found)


def public_functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef, bool]]:
    "(name, function, whether it is a method) for the functions of a module and the methods of its classes."
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef): found.append((node.name, node, False))
        if isinstance(node, ast.ClassDef):
            found += [(f"{node.name}.{item.name}", item, True)
                      for item in node.body if isinstance(item, ast.FunctionDef)]
    return [(name, node, method) for name, node, method in found
            if node.name == "__init__" or not node.name.startswith("_")]


def parameters(node: ast.FunctionDef) -> list[ast.arg]:
    "A function's parameters, without self and cls."
    arguments = node.args
    named = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
    return [a for a in [*named, arguments.vararg, arguments.kwarg] if a and a.arg not in ("self", "cls")]


def comment_lines(source: str) -> set[int]:
    "The numbers of the lines that have a comment."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}


def undocumented(source: str, node: ast.FunctionDef, commented: set[int]) -> list[str]:
    "Parameters with neither a comment of their own (where nbdev looks for it) nor a help text for the command line."
    def helped(a: ast.arg) -> bool: return "help=" in (ast.get_source_segment(source, a.annotation) or "")
    started = {a.lineno for a in parameters(node)}
    def noted(a: ast.arg) -> bool:
        return a.lineno in commented or (a.lineno - 1 in commented and a.lineno - 1 not in started)
    return [a.arg for a in parameters(node) if not (noted(a) or (a.annotation and helped(a)))]


def untyped(node: ast.FunctionDef) -> list[str]:
    "Parameters without a type, and `return`."
    missing = [a.arg for a in parameters(node) if a.annotation is None]
    return missing + (["return"] if node.returns is None and node.name != "__init__" else [])


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_what_a_module_exports_has_types_and_documentation(path: Path):
    source = path.read_text(encoding="utf-8")
    tree, commented = ast.parse(source), comment_lines(source)
    found = []
    for node in (n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")):
        if not ast.get_docstring(node): found.append(f"{node.name}: no docstring")
    for name, node, method in public_functions(tree):
        found += [f"{name}: no type for {what}" for what in untyped(node)]
        found += [f"{name}: no comment on {what}" for what in undocumented(source, node, commented)]
        if not method and not ast.get_docstring(node): found.append(f"{name}: no docstring")
    assert not found, "\n".join(found)


def exported_names() -> set[str]:
    "The functions and classes that nbdev's site has a link for."
    index = ast.literal_eval((ROOT/"dmgn/_modidx.py").read_text(encoding="utf-8").partition("d = ")[2])
    return {name.rpartition(".")[2] for names in index["syms"].values() for name in names}


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_no_comment_on_a_parameter_quotes_a_name_that_nbdev_turns_into_a_link(path: Path):
    comments = re.findall(r"^[^\n]*[,:(] *# (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    quoted = {name for comment in comments for name in re.findall(r"`([\w.]+)`", comment)}
    shown_raw = {name for name in quoted if name.rpartition(".")[2] in exported_names()}
    assert not shown_raw, "nbdev shows it as raw Markdown: leave out the backticks"


def sidebar(contents: list) -> list[str]:
    "The pages of a sidebar, in order."
    return [page for item in contents for page in (sidebar(item["contents"]) if isinstance(item, dict) else [item])]


def test_the_sidebar_lists_every_notebook_once():
    listed = sidebar(SITE["website"]["sidebar"]["contents"])
    assert sorted(listed) == [path.relative_to(ROOT/"nbs").as_posix() for path in NOTEBOOKS]


def test_the_front_page_lists_the_notebooks_in_the_order_of_the_sidebar():
    text = "".join("".join(cell["source"]) for cell in cells(ROOT/"nbs/index.ipynb"))
    listed = re.findall(r"^\| \[[^\]]+\]\(([^)]+\.ipynb)\)", text, flags=re.MULTILINE)
    assert ["index.ipynb", *listed] == sidebar(SITE["website"]["sidebar"]["contents"])


def test_site_and_settings_agree():
    assert (ROOT/"nbs/_quarto.yml").resolve() == ROOT/"_quarto.yml"
    website = SITE["website"]
    assert SITE["project"]["output-dir"] == SETTINGS["doc_path"]
    assert website["title"] == SETTINGS["title"]
    assert website["description"] == SETTINGS["description"]
    assert website["repo-url"] == SETTINGS["git_url"]
    assert website["site-url"] == SETTINGS["doc_host"] + SETTINGS["doc_baseurl"]
    assert website["navbar"]["tools"][0]["href"] == SETTINGS["git_url"]


def texts() -> Iterator[tuple[str, str]]:
    "(name, text) of every file that may name where the project is published."
    folders = (".github", "dmgn", "nbs", "tests", "tools")
    found = [*ROOT.glob("*.*"), *(path for folder in folders for path in (ROOT/folder).rglob("*"))]
    for path in sorted(found):
        if path.suffix in (".cff", ".ini", ".ipynb", ".md", ".py", ".yaml", ".yml"):
            yield relative(path), path.read_text(encoding="utf-8")


def test_the_address_of_the_project_is_the_same_everywhere():
    repository, site = SETTINGS["git_url"].removeprefix("https://"), SETTINGS["doc_host"].removeprefix("https://")
    like_ours = rf"github\.com/[\w-]+/{SETTINGS['repo']}\b|[\w-]+\.github\.io(?=/{SETTINGS['repo']}\b)"
    other = [f"{name}: {address}" for name, text in texts() for address in re.findall(like_ours, text)
             if address not in (repository, site)]
    assert not other, f"settings.ini has {repository} and {site}:\n" + "\n".join(other)


def test_the_citation_agrees():
    citation = yaml.safe_load((ROOT/"CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["repository-code"]) == (SETTINGS["version"], SETTINGS["git_url"])
    assert citation["license"] == "Apache-2.0" and citation["authors"] == [{"name": SETTINGS["author"]}]
    paper, bibtex = citation["preferred-citation"], (ROOT/"README.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^  (\w+) += \{(.*)\},?$", bibtex, flags=re.MULTILINE))
    assert said.pop("author").split(" and ") == [f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]]
    assert said.pop("pages") == f"{paper['start']}--{paper['end']}"
    assert said == {name: str(paper[name]) for name in said} and "doi" in said


@pytest.mark.parametrize("path", WORKFLOWS, ids=short)
def test_every_action_of_a_workflow_is_pinned_to_a_commit(path: Path):
    uses = re.findall(r"^ *(?:- )?uses: *(.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert uses and not [used for used in uses if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", used)]


def test_the_site_is_put_online_by_a_job_that_only_deploys_what_was_tested():
    jobs = yaml.safe_load((ROOT/".github/workflows/test.yaml").read_text(encoding="utf-8"))["jobs"]
    assert set(jobs["deploy"]["needs"]) == jobs.keys() - {"deploy"}
    assert [step["uses"].partition("@")[0] for step in jobs["deploy"]["steps"]] == ["actions/deploy-pages"]
    assert [name for name, job in jobs.items() if "permissions" in job] == ["deploy"]
    built = [step.get("run") or step["uses"].partition("@")[0] for step in jobs["site"]["steps"]]
    assert built[-3:] == ["make docs", ".venv/bin/python -m pytest tests/test_site.py", "actions/upload-pages-artifact"]


def test_what_is_published_is_built_without_the_right_to_publish():
    jobs = yaml.safe_load((ROOT/".github/workflows/release.yaml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"} and "permissions" not in jobs["build"]
    assert not [step for step in jobs["publish"]["steps"] if "run" in step]


def test_a_release_has_a_tag_a_date_and_a_citation_of_its_version(tmp_path: Path):
    for name in ("settings.ini", "CITATION.cff"): shutil.copy(ROOT/name, tmp_path)
    version = SETTINGS["version"]
    (tmp_path/"CHANGELOG.md").write_text(f"# Changelog\n\n## [{version}] - 2026-01-31\n")
    assert not check_release.problems(f"v{version}", tmp_path)
    assert len(check_release.problems("v9.9.9", tmp_path)) == 1
    (tmp_path/"CHANGELOG.md").write_text(f"# Changelog\n\n## [{version}] - unreleased\n")
    (tmp_path/"CITATION.cff").write_text("version: 9.9.9\n")
    assert len(check_release.problems(f"v{version}", tmp_path)) == 2


def test_every_dependency_has_a_lower_bound():
    assert not [pin for pin in lowest.lowest(ROOT/"settings.ini") if not re.fullmatch(r"[\w-]+==\d[\d.]*", pin)]


def test_the_changelog_knows_the_version():
    assert f"## [{SETTINGS['version']}]" in (ROOT/"CHANGELOG.md").read_text(encoding="utf-8")


def test_a_page_gives_every_dependency_a_reason():
    text = "".join("".join(cell["source"]) for cell in cells(ROOT/"nbs/packages.ipynb"))
    needs = [Requirement(need).name for need in SETTINGS["requirements"].split()]
    assert not [name for name in needs if f"| {name} |" not in text]


def test_the_site_is_built_below_a_folder_whose_name_begins_with_a_dot(tmp_path: Path):
    pytest.importorskip("smalldocs", reason="smalldocs needs Python 3.11 or newer")
    copy = tmp_path/".hidden/dmgn"
    for folder in ("tools", "nbs/images"): shutil.copytree(ROOT/folder, copy/folder)
    for name in ("settings.ini", "pyproject.toml", "_quarto.yml"): shutil.copy(ROOT/name, copy)
    for name in ("index.ipynb", "styles.css", "_quarto.yml"): shutil.copy(ROOT/"nbs"/name, copy/"nbs")
    done = subprocess.run([sys.executable, "tools/make_docs.py"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0 and (copy/"_docs/index.html").exists(), done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    "The wheel that `pip install .` would install."
    work, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT/"dmgn", work/"dmgn", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("settings.ini", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT/name, work)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", out,
           work]
    done = subprocess.run(pip, capture_output=True, text=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_wheel_holds_the_whole_package(wheel: zipfile.ZipFile):
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT/"dmgn").rglob("*")
               if path.is_file() and "__pycache__" not in path.parts}
    assert package == {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert any(name.endswith("LICENSE") for name in wheel.namelist())


def test_the_wheel_has_every_extra_that_the_pages_name(wheel: zipfile.ZipFile):
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    extras = set(re.findall(r"^Provides-Extra: (\w+)$", metadata, re.M))
    text = "".join("".join(cell["source"]) for path in NOTEBOOKS for cell in cells(path))
    named = set(re.findall(r"dmgn\[(\w+)\]", text))
    assert {"onnx", "dev"} <= named <= extras


def test_the_wheel_asks_for_no_development_package(wheel: zipfile.ZipFile):
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    needed = [Requirement(line.split(":")[1]) for line in metadata.splitlines()
              if line.startswith("Requires-Dist") and "extra" not in line]
    wanted = map(Requirement, SETTINGS["requirements"].split())
    assert {(canonicalize_name(need.name), need.specifier) for need in needed} == {
        (canonicalize_name(need.name), need.specifier) for need in wanted}
