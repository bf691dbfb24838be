"A run small enough to be killed: `python small_run.py train OUT` or `gradients FILE`, also under `accelerate launch`."
import sys
from pathlib import Path

import torch

from dmgn.config import DMGNConfig
from dmgn.data import SyntheticPairs, crops
from dmgn.files import EXAMPLES
from dmgn.losses import LossWeights
from dmgn.model import DMGN
from dmgn.tasks import TASKS
from dmgn.training import Run, TrainConfig, batches, make_accelerator, train, train_step, validation_pairs

PHOTOGRAPHS = [EXAMPLES/f"{name}.png" for name in ("astronaut", "cat", "coffee")]


def network() -> DMGN:
    "The same at every call"
    torch.manual_seed(0)
    return DMGN(DMGNConfig(width=4, vgg_taps=1, middle_cells=1, refine_dilations=(1, 2)), vgg_weights="random")


def data() -> SyntheticPairs:
    return SyntheticPairs(PHOTOGRAPHS, TASKS["reflection"].synthesise, crops(24, (32, 48)))


def config(steps: int = 8, **changes) -> TrainConfig:
    weights = LossWeights(perceptual=0.02, coarse_perceptual=0, adversarial=0.01)
    usual = dict(batch=2, weights=weights, validate_every=4, save_minutes=0, workers=0, tracker=None)
    return TrainConfig.small(steps, **(usual | changes))


def run(out: Path, resume: bool = False, **changes) -> DMGN:
    "Train; the network at the end"
    model = network()
    train(model, data(), validation_pairs(PHOTOGRAPHS[:1], TASKS["reflection"].synthesise, 64), out, config(**changes),
          resume)
    return model


def gradients(file: Path, batch: int) -> None:
    "Write the generator's gradients of the first step"
    settings = config(batch=batch, weights=LossWeights(adversarial=0), clip=None)
    accelerator = make_accelerator(settings, file.parent)
    one = Run(network(), settings, 1, accelerator)
    found = {}
    def keep(*_) -> None:
        found.update({name: p.grad.clone() for name, p in one.model.named_parameters() if p.grad is not None})
    one.optimizers["generator"].optimizer.register_step_pre_hook(keep)
    loader = accelerator.prepare(batches(data(), settings, 0, batch * accelerator.num_processes))
    train_step(one, next(iter(loader))[:3])
    if accelerator.is_main_process: torch.save(found | {"processes": torch.tensor(accelerator.num_processes)}, file)


if __name__ == "__main__":
    command, path, *rest = sys.argv[1:]
    if command == "train": run(Path(path), resume=bool(rest))
    else: gradients(Path(path), int(rest[0]))
