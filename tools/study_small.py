"""What should a small network look like? Variants trained for the same CPU time each, on the same data.

python tools/study_small.py --data DATA --vgg FILE --out nbs/experiments/results/small_study.jsonl [--minutes 7]
python tools/study_small.py --data DATA --vgg FILE --out nbs/experiments/results/learning_small.jsonl --steps 500 \
    --seeds 0 1 --only "width 16, 3 taps" "width 16, 3 taps, fp32"
One thread, so that CPU time is what it costs, whatever else the machine does. What the file holds already is left out.
Measured: decibels on held-out photographs, and CPU time per megapixel of restoring."""
import argparse
import json
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from dmgn.config import DMGNConfig
from dmgn.data import crops, hold_out, images_in
from dmgn.losses import LossWeights
from dmgn.model import DMGN
from dmgn.rain import MixedRain
from dmgn.tasks import TASKS
from dmgn.training import Run, TrainConfig, make_accelerator, steps_left, train, training_data, validation_pairs

PIXELS = 8 * 64 * 64 # of a batch, about
SHAPES: dict[str, dict[str, Any]] = { # by name, what differs from the tiny network
    "width 16, 3 taps": {},
    "width 16, 2 taps": dict(vgg_taps=2),
    "width 16, 1 tap": dict(vgg_taps=1),
    "width 24, 3 taps": dict(width=24),
    "width 32, 2 taps, 2 middle cells": dict(vgg_taps=2, width=32, middle_cells=2),
    "width 16, 3 taps, 2 middle cells": dict(middle_cells=2),
    "width 16, 3 taps, 4 refining cells": dict(refine_dilations=(1, 2, 4, 1)),
}
SETTINGS: dict[str, dict[str, Any]] = { # by name, what differs in training
    "perceptual": dict(perceptual=0.02), "crop 96": dict(crop=96), "crop 128": dict(crop=128),
    "rate 4e-3": dict(learning_rate=4e-3), "rate 1e-3": dict(learning_rate=1e-3), "fp32": dict(precision="no"),
}
VARIANTS = {name: (shape, {}) for name, shape in SHAPES.items()}
VARIANTS |= {f"width 16, 3 taps, {name}": ({}, change) for name, change in SETTINGS.items()}


def prepared(changes: dict, vgg: Path, out: Path, steps: int) -> Run:
    "A run at its beginning"
    config = train_config(changes, steps)
    torch.manual_seed(0)
    network = DMGN(changes["config"], vgg_weights=vgg)
    return Run(network, config, steps, make_accelerator(config, out))


def train_config(changes: dict, steps: int) -> TrainConfig:
    "The small preset, with what differs"
    crop = changes.get("crop", 64)
    weights = LossWeights(perceptual=changes.get("perceptual", 0), coarse_perceptual=0, adversarial=0)
    return TrainConfig.small(
        steps, batch=max(1, round(PIXELS / crop ** 2)), weights=weights, precision=changes.get("precision", "bf16"),
        learning_rate=changes.get("learning_rate", 2e-3), protocol=TASKS[changes["task"]].validation_protocol,
        workers=0, tracker=None, validate_every=max(1, steps // 4), save_minutes=1e6, ema=0.998)


def seconds_a_step(run: Run, data: Any) -> float:
    "CPU time of a step, the first two left out"
    steps = steps_left(run, data)
    for _ in range(2): next(steps)
    start = time.process_time()
    for _ in range(4): next(steps)
    return (time.process_time() - start) / 4


@torch.no_grad()
def seconds_a_megapixel(network: DMGN, side: int = 384) -> float:
    "CPU time of a restoration in 16 bits"
    network = network.eval().bfloat16().to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, side, side).to(memory_format=torch.channels_last)
    network(image)
    start = time.process_time()
    network(image)
    return (time.process_time() - start) / side ** 2 * 1e6


def measure(name: str, task: str, seed: int, options: argparse.Namespace) -> dict:
    "Train a variant for the time or the steps given, and measure it"
    shape, settings = VARIANTS[name]
    config = replace(DMGNConfig.tiny(task), aca_slope=0.1, **shape)
    changes = settings | {"config": config, "task": task}
    photographs, held = hold_out(images_in(options.data / "photographs") + images_in(options.data / "bsds_train"), 24)
    streaks = images_in(options.data / "garg_streaks") if task == "deraining" else []
    cut = crops(changes.get("crop", 64), changes.get("short_sides"))
    data = training_data(task, photographs, cut, seed=seed, clean_share=0.1, streaks=streaks)
    rain = MixedRain(tuple(streaks))
    validation = validation_pairs(held, rain if streaks else TASKS[task].synthesise_validation, 192)
    with tempfile.TemporaryDirectory() as folder:
        cost = seconds_a_step(prepared(changes, options.vgg, Path(folder), 100), data)
        steps = options.steps or int(60 * options.minutes / cost)
        run = Path(folder, "run")
        torch.manual_seed(seed)
        network, start = DMGN(config, vgg_weights=options.vgg), time.process_time()
        progress = train(network, data, validation, run, replace(train_config(changes, steps), seed=seed))
        spent = time.process_time() - start
        best = DMGN.from_pretrained(run / "best")
    log = [[entry["step"], entry["psnr"]] for entry in progress["log"] if "psnr" in entry]
    losses = [[entry["step"], sum(value for term, value in entry.items() if term.endswith("l1"))]
              for entry in progress["log"] if "l1" in entry]
    return {"variant": name, "seed": seed, "task": task, "psnr": progress["best"], "steps": steps,
            "cpu_seconds": spent, "log": log,
            "losses": losses,
            "seconds_a_step": cost, "parameters": sum(p.numel() for p in best.parameters()),
            "trained": sum(p.numel() for p in best.parameters() if p.requires_grad),
            "seconds_a_megapixel": seconds_a_megapixel(best)}


def main() -> None:
    "Measure what the file does not hold"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vgg", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", default="deraining")
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--steps", type=int, help="in place of minutes")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    done = {(record["task"], record["variant"], record.get("seed", 0)) for record in map(json.loads, lines)}
    for name, seed in product(options.only, options.seeds):
        if (options.task, name, seed) in done: continue
        record = measure(name, options.task, seed, options)
        with options.out.open("a") as file: file.write(json.dumps(record) + "\n")
        print(f"{name}, seed {seed}: {record['psnr']:.2f} dB after {record['steps']} steps "
              f"of {record['seconds_a_step']:.3f} s; "
              f"{record['seconds_a_megapixel']:.2f} s a megapixel", flush=True)


if __name__ == "__main__": main()
