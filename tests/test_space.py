"The folder that is uploaded as a Hugging Face Space, with Gradio where it is installed and a stand-in where it is not."
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import pytest
import yaml
from PIL import Image

from dmgn.images import example
from dmgn.restore import restore

@pytest.fixture
def app(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    "The Space's module, which starts no server when it is imported."
    if importlib.util.find_spec("gradio") is None:
        monkeypatch.setitem(sys.modules, "gradio", MagicMock(Error=ValueError))
    spec = importlib.util.spec_from_file_location("space_app", root/"space/app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_restores_as_the_package_does(app: ModuleType):
    rainy, _ = example("cat")
    (before, after), noise = app.cleaned(rainy, "deraining", 0.5)
    assert before.tobytes() == rainy.tobytes() and noise.size == rainy.size
    assert after.tobytes() == restore(rainy, "deraining", strength=0.5).background.tobytes()


def test_a_large_photograph_is_reduced_and_none_is_one_line(app: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app, "LONGEST", 96)
    large = Image.new("RGB", (192, 96))
    (before, after), _ = app.cleaned(large)
    assert before.size == after.size == (96, 48) and large.size == (192, 96)
    with pytest.raises(Exception, match="Choose a photograph first"): app.cleaned(None)


def test_what_the_space_is_told_names_its_file(root: Path):
    front = yaml.safe_load((root/"space/README.md").read_text(encoding="utf-8").split("---")[1])
    assert (root/"space"/front["app_file"]).is_file() and front["sdk"] == "gradio"
    assert "dmgn" in (root/"space/requirements.txt").read_text(encoding="utf-8")
