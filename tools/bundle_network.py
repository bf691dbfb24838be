"Put the best network of a training run into the package: half-precision weights, its log, and a card with measured numbers."

import argparse
import json
import os
import tempfile
from pathlib import Path

import torch

from dmgn.images import PRETRAINED, to_pil, to_tensor
from dmgn.metrics import evaluate_folder
from dmgn.model import DMGN

CARD = """---
library_name: dmgn
license: apache-2.0
tags: [image-restoration, deraining]
---
# {name}

A small Deep-Masking Generative Network that removes rain streaks: `DMGN.from_pretrained("{name}")`.
{weights:.2f} M trained weights and VGG-19 down to relu3_1 ({trunk:.2f} M, frozen), stored in half precision ({megabytes:.1f} MB).

## Training

| | |
|---|---|
| photographs | {photographs} |
| pairs | {pairs} |
| held out to choose the checkpoint | 40 of the photographs, regularly spaced by name |
| command | `{command}` |
| steps | {steps} of {batch} crops of {crop} x {crop} pixels, seed {seed} |
| time | {minutes:.0f} minutes on two CPU cores, not all of which it had to itself |
| objective | L1 on refined background (1), coarse background (0.5), noise image (0.5); perceptual term on relu1_1, relu2_1, relu3_1 ({perceptual}) |
| optimiser | Adam, one-cycle schedule up to {learning_rate} |

## Measured

| images | protocol | input | restored |
|---|---|---|---|
| 40 held-out photographs, rain of our own, central 224 x 224 | Y | | {best:.2f} dB PSNR |
| Rain100L test set, 100 images, never trained on | Y | {input_psnr:.2f} dB, SSIM {input_ssim:.4f} | {psnr:.2f} dB, SSIM {ssim:.4f} |

Protocol Y: PSNR and SSIM (11 x 11 Gaussian, valid area) on studio-range luma of 8-bit images, averaged over images.
`tools/bundle_network.py` measured the stored half-precision weights on Rain100L and wrote this card; the held-out number is training's own.

## Limits

Trained on drawn rain in photographs of 481 x 321 pixels. Wide or out-of-focus streaks, drops on the lens and mist are beyond it,
and thin bright lines of the scene may be taken for rain.

## Attribution

The VGG-19 trunk is Karen Simonyan's and Andrew Zisserman's (Visual Geometry Group, University of Oxford), *Very Deep Convolutional Networks
for Large-Scale Image Recognition*, CC BY 4.0; converted to RGB in [0, 1] with ImageNet's mean and deviation, and its activations scaled by 0.01.
The photographs are of the Berkeley Segmentation Data Set 500; none is part of the network.
"""


def bundle(run: Path, name: str, rain100l: Path, facts: dict[str, str]) -> None:
    "Write PRETRAINED/name from a run's best network, measured on Rain100L"
    folder = PRETRAINED / name
    half = DMGN.from_pretrained(run / "best").half()
    with tempfile.TemporaryDirectory(dir=PRETRAINED) as partial:
        half.save_pretrained(partial)
        log = json.loads((run / "log.json").read_text())
        Path(partial, "log.json").write_text(json.dumps(log))
        results = measure(Path(partial), rain100l)
        Path(partial, "results.json").write_text(json.dumps(results, indent=2))
        Path(partial, "README.md").write_text(card(Path(partial), name, run, log, results, facts))
        folder.mkdir(exist_ok=True)
        for file in Path(partial).iterdir(): os.replace(file, folder / file.name)


def measure(folder: Path, rain100l: Path) -> dict[str, float | str]:
    "PSNR and SSIM of the stored weights on Rain100L"
    network = DMGN.from_pretrained(folder)
    def derain(image):
        with torch.inference_mode(): return to_pil(network(to_tensor(image)).background)
    results = {"images": "Rain100L test set", "protocol": "y"}
    for key, predict in (("input_", lambda image: image), ("", derain)):
        rows, mean = evaluate_folder(predict, rain100l / "input", rain100l / "target", "y")
        results |= {f"{key}psnr": mean.psnr, f"{key}ssim": mean.ssim, "count": len(rows)}
    return results


def card(folder: Path, name: str, run: Path, log: dict, results: dict, facts: dict[str, str]) -> str:
    "The card, filled in"
    network = DMGN.from_pretrained(folder)
    config = torch.load(run / "checkpoint.pt", weights_only=True)["config"]
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return CARD.format(
        name=name, weights=trained / 1e6, trunk=sum(p.numel() for p in network.head.trunk.parameters()) / 1e6,
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6, minutes=log["seconds"] / 60, best=log["best"],
        **config, **facts, **results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder that `dmgn train` wrote")
    parser.add_argument("name", help="of the bundled network, e.g. tiny-deraining")
    parser.add_argument("--rain100l", type=Path, required=True, help="folder with input/ and target/")
    for fact in ("photographs", "pairs", "command"): parser.add_argument(f"--{fact}", required=True, help="for the card")
    args = parser.parse_args()
    bundle(args.run, args.name, args.rain100l, {fact: getattr(args, fact) for fact in ("photographs", "pairs", "command")})
    print((PRETRAINED / args.name / "README.md").read_text())
