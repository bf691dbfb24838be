"Training photographs whose scene is in the test set: what is found, what is not, and how far apart the two are."
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image, ImageOps
from typer.testing import CliRunner

from dmgn.benchmarks import benchmark_pairs
from dmgn.commands.data import data_app
from dmgn.commands.shell import OneLineErrors
from dmgn.data import images_in
from dmgn.experiments.definitions import GLASS, SAME_SCENE
from dmgn.experiments.run import sources
from dmgn.leaks import THRESHOLD, distances, find_leaks

def jpeg(image: Image.Image, quality: int) -> Image.Image:
    "A photograph as it comes out of a JPEG file."
    image.save(buffer := io.BytesIO(), "jpeg", quality=quality)
    return Image.open(buffer)


def resize(image: Image.Image, by: float) -> Image.Image:
    "A photograph in another size."
    return image.resize((round(image.width * by), round(image.height * by)))


def crop(image: Image.Image, share: float, x: float, y: float) -> Image.Image:
    "A photograph without a share of each side, from left and top if x and y are 1."
    w, h = image.size
    left, top = round(w * share * x), round(h * share * y)
    return image.crop((left, top, left + round(w * (1 - share)), top + round(h * (1 - share))))


CHANGES = {
    "none": lambda image, rng: image,
    "quality 30": lambda image, rng: jpeg(image, 30),
    "half the size": lambda image, rng: resize(image, 0.5),
    "1.5 of the size": lambda image, rng: resize(image, 1.5),
    "mirrored": lambda image, rng: ImageOps.mirror(image),
    "cropped by a tenth": lambda image, rng: crop(image, 0.1, *rng.random(2)),
    "cropped by a fifth": lambda image, rng: crop(image, 0.2, *rng.random(2)),
    "all but the fifth": lambda image, rng: jpeg(resize(crop(ImageOps.mirror(image), 0.1, *rng.random(2)), 0.5), 30),
}


@pytest.fixture
def rain100l(shared: Callable[[str], Path]) -> list[tuple[Path, Path]]:
    "The pairs of the test set."
    return benchmark_pairs("rain100L", shared("data/rain100L"))


def farthest(changed: dict[Path, Image.Image], folder: Path) -> float:
    "The largest distance of a picture from what became of it."
    found = []
    for path, image in changed.items():
        image.save(folder / path.name, compress_level=1)
        found.append(distances([folder / path.name], [path])[0, 0])
    return max(found)


def test_the_training_photographs_share_no_scene_with_rain100l(shared: Callable[[str], Path],
                                                               rain100l: list[tuple[Path, Path]]):
    train = images_in(shared("data/bsds_train"))
    found = distances(train, [path for pair in rain100l for path in pair])
    assert len(train) == 409 and found.shape == (409, 200)
    print(f"the nearest of {found.size} pairs of different scenes: {found.min():.3f}")
    assert found.min() > THRESHOLD + 0.05


@pytest.mark.parametrize("change", CHANGES)
def test_every_background_of_rain100l_is_found(change: str, rain100l: list[tuple[Path, Path]], tmp_path: Path):
    rng = np.random.default_rng(0)
    most = farthest({target: CHANGES[change](Image.open(target).convert("RGB"), rng) for _, target in rain100l},
                    tmp_path)
    print(f"{change}: the farthest of {len(rain100l)} is at {most:.3f}")
    assert most < THRESHOLD - 0.25


def test_every_rainy_input_of_rain100l_is_close_to_its_background(rain100l: list[tuple[Path, Path]], tmp_path: Path):
    most = farthest({rainy: jpeg(ImageOps.mirror(Image.open(target).convert("RGB")), 30) for rainy, target in rain100l},
                    tmp_path)
    print(f"mirrored, quality 30, against the rainy input: the farthest of {len(rain100l)} is at {most:.3f}")
    assert most < THRESHOLD - 0.05


def test_all_backgrounds_in_a_training_folder_are_found(rain100l: list[tuple[Path, Path]],
                                                        shared: Callable[[str], Path]):
    inputs, targets = zip(*rain100l)
    leaks = find_leaks([*targets, *images_in(shared("data/bsds_train"))[:20]], list(inputs))
    assert {path for path, _, _ in leaks} == set(targets)


def test_heavy_rain_is_seen_through(shared: Callable[[str], Path]):
    folder = shared("data/rain_heavy_train")
    found = find_leaks(images_in(folder / "rain"), images_in(folder / "norain"))
    print(f"{len(found)} of 18 found, the farthest at {found[-1][2]:.3f}")
    assert len(found) >= 17
    assert all(a.name == b.name for a, b, _ in found)


def test_the_command_names_the_leak(rain100l: list[tuple[Path, Path]], shared: Callable[[str], Path], tmp_path: Path):
    app = typer.Typer(cls=OneLineErrors)
    app.add_typer(data_app, name="data")
    train = tmp_path / "train"
    (train / "below").mkdir(parents=True)
    for path in images_in(shared("data/bsds_train"))[:5]: (train / path.name).write_bytes(path.read_bytes())
    command = ["data", "leaks", str(train), "--test", "rain100L", "--root", str(shared("data"))]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0 and "None of 5 training photographs" in result.stdout
    jpeg(Image.open(rain100l[0][1]).convert("RGB"), 30).save(train / "below/holiday.jpg")
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "holiday.jpg shows the scene of" in result.stdout and "1.png" in result.stdout
    assert "1 of 6 training photographs show a scene of rain100L" in result.stderr
    result = CliRunner().invoke(app, ["data", "leaks", str(train), "--test", "rain100M"])
    assert result.exit_code == 1 and len(result.stderr.strip().splitlines()) == 1


def test_the_scenes_that_were_seen_are_those_of_training_pairs(shared: Callable[[str], Path]):
    data = shared("data")
    found = sources(GLASS, data).pairs
    of = {"pairs-split": (found.test, found.train),
          "real20_300": (benchmark_pairs("real20_300", data), benchmark_pairs("plnet_real", data/"plnet_real"))}
    for test_set, (test, train) in of.items():
        twins = SAME_SCENE[test_set]
        assert list(twins) == [pair[0].stem for pair in test]
        assert {twin for twin in twins.values() if twin} <= {pair[0].stem for pair in train}
