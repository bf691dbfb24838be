"Makes dmgn/examples: photographs of scikit-image, reduced, and the same with rain of our own: python tools/make_examples.py [FOLDER]"
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from dmgn.images import EXAMPLES
from dmgn.synthesis import RainParameters, add_rain

# name: (photograph, size, seed, rain)
RECIPES = {
    "cat": (data.chelsea, (328, 218), 1, RainParameters(density=0.18, length=22, sigma=0.7, opacity=0.42, angle=-12)),
    "coffee": (data.coffee, (328, 218), 2, RainParameters(density=0.2, length=26, sigma=0.8, opacity=0.45, angle=8, layers=2)),
    "astronaut": (data.astronaut, (272, 272), 3, RainParameters(density=0.2, length=18, sigma=0.65, opacity=0.45, angle=20)),
}
SOURCES = {
    "cat": "`chelsea`: Chelsea the cat. Photographer: Stefan van der Walt. [CC0](https://creativecommons.org/publicdomain/zero/1.0/).",
    "coffee": "`coffee`: a coffee cup, courtesy of Pikolo Espresso Bar. Photographer: Rachel Michetti. "
              "[CC0](https://creativecommons.org/publicdomain/zero/1.0/).",
    "astronaut": "`astronaut`: the astronaut Eileen Collins. Photographer: NASA, from its "
                 "[Great Images](https://flic.kr/p/r9qvLn). Public domain, no known copyright restrictions.",
}
INTRODUCTION = """# The example photographs

Written by `python tools/make_examples.py`, like the photographs themselves.

Each `NAME.png` is a photograph that [scikit-image](https://scikit-image.org/docs/stable/api/skimage.data.html) ships, reduced with Pillow's
Lanczos filter; the licences are those that scikit-image states. Each `NAME_rain.png` is the same with rain drawn by
`dmgn.synthesis.add_rain`, and is under the same terms.
"""


def make(
    name: str, # of a recipe
) -> tuple[Image.Image, Image.Image]: # with rain, without
    "One example"
    photograph, size, seed, rain = RECIPES[name]
    clean = Image.fromarray(photograph()).resize(size, Image.Resampling.LANCZOS)
    background = torch.tensor(np.asarray(clean)).permute(2, 0, 1) / 255
    mixture, _ = add_rain(background, torch.Generator().manual_seed(seed), rain)
    return Image.fromarray((mixture * 255).round().byte().permute(1, 2, 0).numpy()), clean


def terms(
    name: str, # of a recipe
) -> str: # Markdown
    "Source, licence, and how its rain was made"
    _, (width, height), seed, rain = RECIPES[name]
    parameters = ", ".join(f"{key}={value}" for key, value in asdict(rain).items())
    return f"## {name}\n\n- Source: {SOURCES[name]}\n- Reduced to {width} x {height} pixels.\n- Rain: seed {seed}, `RainParameters({parameters})`.\n"


def main(
    folder: Path = EXAMPLES, # where to
) -> None:
    "Write all of them, and LICENSES.md"
    folder.mkdir(parents=True, exist_ok=True)
    for name in RECIPES:
        for suffix, image in zip(("_rain", ""), make(name)):
            image.save(folder / f"{name}{suffix}.png", optimize=True)
    (folder / "LICENSES.md").write_text("\n".join([INTRODUCTION, *map(terms, RECIPES)]), encoding="utf-8")


if __name__ == "__main__": main(*map(Path, sys.argv[1:]))
