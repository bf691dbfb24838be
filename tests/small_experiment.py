"An experiment small enough to be killed: `python small_experiment.py ROOT OUT` runs it, also in several processes."
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from dmgn.config import DMGNConfig, ablations
from dmgn.experiments.definitions import DataConfig, Experiment, Variant
from dmgn.experiments.run import run_experiment
from dmgn.losses import LossWeights
from dmgn.training import TrainConfig

NETWORK = DMGNConfig("reflection", width=4, vgg_taps=1, middle_cells=1, refine_dilations=(1, 2), coarse_residual=True,
                     refine_residual=True)
TRAINING = TrainConfig.small(3, batch=1, weights=LossWeights(coarse_perceptual=0), save_minutes=0, workers=0,
                             tracker=None)


def picture(seed: int, side: int) -> Image.Image:
    "Smooth patches of colour."
    squares = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(squares).resize((side, side), Image.Resampling.BICUBIC)


def make_data(root: Path) -> None:
    "Four photographs to train on, and four test sets of one picture each."
    (root/"clean").mkdir(parents=True)
    for n in range(4): picture(n, 224).save(root/f"clean/{n}.png")
    for folder in ("real20_300/blended", "real20_300/transmission_layer", "rain100L/input", "rain100L/target",
                   "gt_rain_dev/input", "gt_rain_dev/target", "ihaze_small/hazy", "ihaze_small/GT"):
        (root/folder).mkdir(parents=True)
        noisy = folder.rpartition("/")[2] in ("blended", "input", "hazy")
        Image.blend(picture(8, 48), picture(9, 48), 0.2 * noisy).save(root/folder/"3.png")


def variants(**changes) -> tuple[Variant, ...]:
    "Two networks and the input as it is."
    training = replace(TRAINING, **changes)
    return (Variant("input", method="input"), Variant("Base", ablations(NETWORK)["Base"], training),
            Variant("DMGN", NETWORK, training))


def experiment(*rows: Variant) -> Experiment:
    data = DataConfig("clean", crop=24, short_sides=(32, 48), test_pictures=1)
    return Experiment("mini", "small", "reflection", rows or variants(), ("real20_300", "test-split"), data)


if __name__ == "__main__":
    root, out, steps = sys.argv[1:]
    run_experiment(experiment(*variants(steps=int(steps))), out, root, vgg="random")
