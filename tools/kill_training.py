"""Kills a small training at random moments and resumes it each time; nothing may be lost.

python tools/kill_training.py [--kills 20] [--seed 0]
After each kill that left both, checkpoint.pt and log.json must agree once the run is resumed; at the end the weights
must be those of a run that nobody killed, bit for bit. Exit code 1 if not."""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from PIL import Image  # noqa: E402

import small_run  # noqa: E402
from dmgn.files import EXAMPLES  # noqa: E402
from dmgn.model import DMGN  # noqa: E402

ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "ACCELERATE_USE_CPU": "true",
    "TQDM_DISABLE": "1",
    "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
}
PARTS = ("model", "average", "generator optimizer", "generator schedule")


def command(place: Path, out: Path, steps: int, *more: str) -> list[str]:
    "The training, as a user would type it"
    return [
        sys.executable,
        "-m",
        "dmgn",
        "train",
        "--task",
        "deraining",
        "--train",
        str(place / "photographs"),
        "--model",
        str(place / "start"),
        "--out",
        str(out),
        "--steps",
        str(steps),
        "--batch",
        "1",
        "--crop",
        "24",
        "--validate-every",
        "5",
        "--save-minutes",
        "0",
        "--workers",
        "0",
        "--tracker",
        "none",
        *more,
    ]


def prepare(place: Path) -> None:
    "Photographs, and a network to start from"
    (place / "photographs").mkdir()
    for n, path in enumerate(sorted(EXAMPLES.glob("*.png"))[:6]):
        with Image.open(path) as image:
            image.convert("RGB").resize((64, 48)).save(place / f"photographs/{n}.png")
    small_run.network().save_pretrained(place / "start")


def state_of(
    run: Path,
) -> tuple[dict | None, dict | str | None]:  # checkpoint, progress in log.json; None: there is none
    "What lies in a run's folder"
    saved = torch.load(run / "checkpoint.pt", weights_only=True) if (run / "checkpoint.pt").exists() else None
    try:
        log = json.loads((run / "log.json").read_text())
    except FileNotFoundError:
        log = None
    except ValueError:
        log = "broken"
    return saved, log


def same(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def run_until(arguments: list[str], run: Path, seconds: float) -> tuple[int, str]:  # exit code, standard error
    "Start a training and kill it some time after its first new checkpoint"
    before = (run / "checkpoint.pt").stat().st_mtime_ns if (run / "checkpoint.pt").exists() else 0
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while process.poll() is None:
        if (run / "checkpoint.pt").exists() and (run / "checkpoint.pt").stat().st_mtime_ns != before:
            break
        time.sleep(0.002)
    time.sleep(seconds if process.poll() is None else 0)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    return process.wait(), process.communicate()[1]


def check(run: Path, what: str, faults: list[str]) -> None:
    "Note if log.json is not the checkpoint's"
    saved, log = state_of(run)
    if saved is not None and log != saved["progress"]:
        step = log if log is None or isinstance(log, str) else log.get("step")
        faults.append(f"{what}: checkpoint.pt is at step {saved['progress']['step']}, log.json at {step}")
    loadable = (run / "best").exists() or not any(
        "psnr" in entry for entry in (saved or {"progress": {"log": []}})["progress"]["log"]
    )
    try:
        if (run / "best").exists():
            DMGN.from_pretrained(run / "best")
    except (ValueError, OSError) as error:
        faults.append(f"{what}: best does not load: {error}")
    if not loadable:
        faults.append(f"{what}: there is no best, though a validation was logged")


def first_of_a_resume(arguments: list[str], run: Path) -> tuple[int, str]:  # exit code, standard error
    "Resume with no time for a step: what a start repairs is seen, and no new checkpoint"
    code = (
        "import sys, os, dmgn.training as t\n"
        "t.train_step = lambda *_: os._exit(77)\n"
        "from dmgn.commands.main import app\n"
        "app(sys.argv[1:], prog_name='dmgn')"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments[3:]], env=ENVIRONMENT, capture_output=True, text=True)
    return done.returncode, done.stderr


def compare(whole: dict, cut: dict, faults: list[str]) -> None:
    "Note what differs between two finished runs"
    for state in (whole, cut):
        state["progress"].pop("seconds")
    if whole["progress"] != cut["progress"]:
        faults.append("the progress differs from that of an unbroken run")
    faults += [f"{part} differs from that of an unbroken run" for part in PARTS if not same(whole[part], cut[part])]


def main() -> int:  # 1 if something was lost
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=600, help="of the run; must outlast the kills")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: another each time")
    options = parser.parse_args()
    chance, faults, kills = random.Random(options.seed), [], 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place)
        whole, cut = place / "whole", place / "cut"
        silent = dict(env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(command(place, whole, options.steps), check=True, **silent)
        while kills < options.kills:
            resume = ("--resume",) * (cut / "checkpoint.pt").exists()
            code, said = run_until(command(place, cut, options.steps, *resume), cut, chance.uniform(0, 1))
            if code == 0:
                break
            if code != -signal.SIGKILL:
                faults.append(f"after {kills} kills the run ended with {code}: {said.strip()[-200:]}")
                break
            kills += 1
            saved, log = state_of(cut)
            apart = saved is not None and (not isinstance(log, dict) or log["step"] != saved["progress"]["step"])
            step = saved["progress"]["step"] if saved else 0
            print(f"kill {kills}: step {step}{', log.json lags' * apart}", flush=True)
            if apart or kills % 5 == 0:  # a resumed run must make them agree
                code, said = first_of_a_resume(command(place, cut, options.steps, "--resume"), cut)
                if code not in (0, 77):
                    faults.append(f"kill {kills}: the resume ended with {code}: {said.strip()[-200:]}")
                check(cut, f"resumed after kill {kills}", faults)
        if kills < options.kills:
            faults.append(f"the run ended after {kills} kills: take more --steps")
        subprocess.run(command(place, cut, options.steps, "--resume"), **silent)
        check(cut, "at the end", faults)
        if (cut / "checkpoint.pt").exists():
            compare(state_of(whole)[0], state_of(cut)[0], faults)
    print(f"{kills} kills, {len(faults)} faults")
    for fault in faults:
        print(f"  {fault}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
