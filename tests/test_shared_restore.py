"Photographs restored by two processes that torchrun starts, as `accelerate launch` does."
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dmgn.config import DMGNConfig
from dmgn.files import EXAMPLES
from dmgn.model import DMGN
from dmgn.restore import restore_file
from test_training import ENVIRONMENT, free_port

NAMES = [f"{n:02d}.png" for n in range(12)]


@pytest.fixture
def trip(tmp_path: Path) -> Path:
    "A folder with a dozen photographs, one of them broken, and a network."
    torch.manual_seed(0)
    DMGN(DMGNConfig(width=4, vgg_taps=1, middle_cells=1), vgg_weights="random").save_pretrained(tmp_path/"net")
    (tmp_path/"trip").mkdir()
    for name in NAMES: shutil.copy(EXAMPLES/"cat_rain.png", tmp_path/"trip"/name)
    (tmp_path/"trip"/"broken.png").write_text("a text")
    return tmp_path


def started(folder: Path, *more: str) -> subprocess.Popen:
    "Two processes that restore the folder."
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    command = [*launch, "-m", "dmgn", "restore", "trip", "-o", "clean", "--model", "net", "--device", "cpu", *more]
    return subprocess.Popen(command, cwd=folder, env=os.environ | ENVIRONMENT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def process_of_rank(launcher: int, rank: int) -> int:
    "The number of a process that a launcher started."
    for folder in Path("/proc").glob("[0-9]*"):
        try: parent, ours = (folder/"stat").read_text().rpartition(")")[2].split()[1], (folder/"environ").read_bytes()
        except OSError: continue
        if parent == str(launcher) and f"RANK={rank}".encode() in ours.split(b"\0"): return int(folder.name)
    raise LookupError(f"no process of rank {rank}")


def whole(folder: Path) -> bool:
    "Whether every photograph was restored as by one process."
    restore_file(folder/"trip"/NAMES[0], folder/"one.png", model=folder/"net", device="cpu")
    wanted = (folder/"one.png").read_bytes()
    return all((folder/"clean"/name).read_bytes() == wanted for name in NAMES)


def test_two_processes_share_a_folder_and_give_one_summary(trip: Path):
    out, err = started(trip).communicate(timeout=300)
    assert out.count("photographs restored into clean") == 1 and "12 of 13 photographs restored into clean" in out, err
    assert err.count("not restored: trip/broken.png") == 1 and whole(trip)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
def test_what_a_killed_process_left_is_restored_with_resume(trip: Path):
    (trip/"trip"/"broken.png").unlink()
    launcher = started(trip)
    end = time.monotonic() + 200
    while not list((trip/"clean").glob("*.png")) and time.monotonic() < end: time.sleep(0.02)
    os.kill(process_of_rank(launcher.pid, 1), signal.SIGKILL)
    launcher.communicate(timeout=300)
    done = len(list((trip/"clean").glob("*.png")))
    assert launcher.returncode != 0 and done < len(NAMES), f"killed too late, after {done} photographs"
    out, err = started(trip, "--resume").communicate(timeout=300)
    assert f"{len(NAMES) - done} of 12 photographs restored into clean, {done} there already" in out, err
    assert whole(trip) and sorted(path.name for path in (trip/"clean").glob("[0-9]*.png")) == NAMES
