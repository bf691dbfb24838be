"Makes dmgn/examples, photographs of scikit-image without and with noise: python tools/make_examples.py [FOLDER]"
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from skimage import data
from torchvision.transforms.v2.functional import pil_to_tensor

from dmgn.data import to_unit_range
from dmgn.files import EXAMPLES
from dmgn.haze import HazeParameters, add_haze, smooth_depth
from dmgn.rain import RainParameters, add_rain
from dmgn.reflection import ReflectionParameters, add_reflection

@dataclass(frozen=True)
class Recipe:
    "What an example is made of"
    photograph: Callable[[], np.ndarray] # of scikit-image
    size: tuple[int, int] # width and height
    rain: tuple[int, RainParameters] # seed, kind of rain
    reflection: tuple[str, ReflectionParameters] # example that is reflected, window
    haze: tuple[int, HazeParameters] # seed of the depth, kind of haze


RECIPES = {
    "cat": Recipe(data.chelsea, (328, 218),
        rain=(1, RainParameters(density=0.18, length=22, sigma=0.7, opacity=0.42, angle=-12)),
        reflection=("coffee", ReflectionParameters(sigma=2.0, strength=0.42, spread=0.5, centre=(0.4, 0.65))),
        haze=(59, HazeParameters(beta=0.14, airlight=(0.8, 0.82, 0.85)))),
    "coffee": Recipe(data.coffee, (328, 218),
        rain=(2, RainParameters(density=0.2, length=26, sigma=0.8, opacity=0.45, angle=8, layers=2)),
        reflection=("astronaut", ReflectionParameters(sigma=1.5, strength=0.35, ghost=0.3, ghost_shift=(2, 5),
                                                      tint=(0.95, 1.0, 1.05))),
        haze=(59, HazeParameters(beta=0.11, airlight=(0.82, 0.82, 0.82)))),
    "astronaut": Recipe(data.astronaut, (272, 272),
        rain=(3, RainParameters(density=0.2, length=18, sigma=0.65, opacity=0.45, angle=20)),
        reflection=("cat", ReflectionParameters(sigma=1.8, strength=0.5, transmission=0.92, spread=0.7,
                                                centre=(0.6, 0.7))),
        haze=(52, HazeParameters(beta=0.12, airlight=(0.8, 0.81, 0.83)))),
}
SOURCES = {
    "cat": "`chelsea`: Chelsea the cat. Photographer: Stefan van der Walt. "
           "[CC0](https://creativecommons.org/publicdomain/zero/1.0/).",
    "coffee": "`coffee`: a coffee cup, courtesy of Pikolo Espresso Bar. Photographer: Rachel Michetti. "
              "[CC0](https://creativecommons.org/publicdomain/zero/1.0/).",
    "astronaut": "`astronaut`: the astronaut Eileen Collins. Photographer: NASA, from its "
                 "[Great Images](https://flic.kr/p/r9qvLn). Public domain, no known copyright restrictions.",
}
INTRODUCTION = """# The example photographs

Written by `python tools/make_examples.py`, like the photographs themselves.

Each `NAME.png` is a photograph that [scikit-image](https://scikit-image.org/docs/stable/api/skimage.data.html) ships, \
reduced with Pillow's
Lanczos filter; the licences are those that scikit-image states. `NAME_rain.png`, \
`NAME_reflection.png` and `NAME_haze.png` are the same with
noise drawn by `dmgn.synthesis`, and are under the same terms; \
in a `NAME_reflection.png` that goes for the reflected photograph, too.
"""


def reduced(
    name: str, # of a recipe
    size: tuple[int, int], # width and height
) -> Image.Image: # without noise
    "A photograph, cut to the size's shape and reduced to it"
    return ImageOps.fit(Image.fromarray(RECIPES[name].photograph()), size, Image.Resampling.LANCZOS)


def make(
    name: str, # of a recipe
) -> dict[str, Image.Image]: # by the ending of the file's name
    "A photograph without noise and with each kind of it"
    recipe = RECIPES[name]
    clean = Image.fromarray(recipe.photograph()).resize(recipe.size, Image.Resampling.LANCZOS)
    other, window = recipe.reflection
    background, reflected = (to_unit_range(pil_to_tensor(image)) for image in (clean, reduced(other, recipe.size)))
    def seeded(seed: int) -> torch.Generator: return torch.Generator().manual_seed(seed)
    depth = smooth_depth(clean.height, clean.width, seeded(recipe.haze[0]))
    mixtures = {"_rain": add_rain(background, seeded(recipe.rain[0]), recipe.rain[1]),
                "_reflection": add_reflection(background, reflected, seeded(0), window),
                "_haze": add_haze(background, seeded(0), depth, recipe.haze[1])}
    drawn = {ending: Image.fromarray((mixture * 255).round().byte().permute(1, 2, 0).numpy())
             for ending, (mixture, _) in mixtures.items()}
    return {"": clean} | drawn


def settings(
    parameters: RainParameters | ReflectionParameters | HazeParameters, # of a recipe
) -> str: # as Python
    "The call that makes them"
    return f"`{type(parameters).__name__}({', '.join(f'{key}={value}' for key, value in asdict(parameters).items())})`"


def terms(
    name: str, # of a recipe
) -> str: # Markdown
    "Source, licence, and how its noise was made"
    recipe = RECIPES[name]
    (width, height), (rain_seed, rain) = recipe.size, recipe.rain
    (other, window), (haze_seed, haze) = recipe.reflection, recipe.haze
    return f"""## {name}

- Source: {SOURCES[name]}
- Reduced to {width} x {height} pixels.
- Rain: seed {rain_seed}, {settings(rain)}.
- Reflection: of `{other}`, {settings(window)}.
- Haze: `smooth_depth` of seed {haze_seed}, {settings(haze)}.
"""


def main(
    folder: Path = EXAMPLES, # where to
) -> None:
    "Write all of them, and LICENSES.md"
    folder.mkdir(parents=True, exist_ok=True)
    for name in RECIPES:
        for ending, image in make(name).items(): image.save(folder / f"{name}{ending}.png", optimize=True)
    (folder / "LICENSES.md").write_text("\n".join([INTRODUCTION, *map(terms, RECIPES)]), encoding="utf-8")


if __name__ == "__main__": main(*map(Path, sys.argv[1:]))
