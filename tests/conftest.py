"What the tests share: where the project is, and the data beside it that not every machine has."
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def one_thread():
    "As the processes that a test starts: bit for bit the same."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def root() -> Path:
    "The project's folder."
    return ROOT


@pytest.fixture
def shared() -> Callable[[str], Path]:
    "`shared(\"golden/x.npz\")`: a file or folder of ../shared; the test is skipped where it is missing."
    def find(name: str) -> Path:
        path = ROOT.parent/"shared"/name
        if not path.exists(): pytest.skip(f"needs ../shared/{name}, which is not on this machine")
        return path
    return find
