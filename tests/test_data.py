"Data sets of photographs that are not in the package, and a worker that does not inherit memory."
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dmgn.data import (
    PairedFolder,
    PairedPhotographs,
    SyntheticPairs,
    crops,
    depths_in,
    images_in,
    read_bytes,
    read_depth,
    size_of,
)
from dmgn.experiments.definitions import DataConfig
from dmgn.experiments.run import evaluation_pairs, find_pairs, sources
from dmgn.files import EXAMPLES, BrokenPhotograph, read_rgb
from dmgn.haze import middlebury_scenes, write_depths
from dmgn.images import to_pil
from dmgn.rain import read_streaks
from dmgn.tasks import TASKS

def test_middlebury_in_all_its_layouts(shared, tmp_path: Path):
    root = shared("data/middlebury_rgbd")
    scenes = {a.relative_to(root).as_posix(): b.name for a, b in middlebury_scenes(root)}
    expected = {f"{scene}/view{n}.png": f"disp{n}.png" for scene in ("Cloth3", "Reindeer", "Wood2") for n in (1, 5)}
    expected |= {f"{scene}/im{n}.png": f"disp{n}.png" for scene in ("cone", "teddy") for n in (2, 6)}
    assert scenes == expected | {f"2b-t/{name}_left.png": f"{name}_gt.png" for name in ("Adirondack", "cones")}
    depths = write_depths(middlebury_scenes(root), tmp_path)
    assert depths == depths_in(images_in(tmp_path), tmp_path)
    for path in depths.values(): assert 2.5 < read_depth(path).median() < 3.5
    hazy = SyntheticPairs(list(depths), TASKS["dehazing"].synthesise, crops(256, (320, 480)), depths=depths)
    for i in range(len(hazy)):
        mixture, background, light = ((x + 1) / 2 for x in hazy[i])
        assert mixture.shape == (3, 256, 256) and 0 <= mixture.min() and mixture.max() <= 1
        assert (mixture - light <= background + 1e-5).all()


def test_a_folder_of_pairs(shared):
    root = shared("data/rain_heavy_train")
    pairs = PairedFolder(root/"rain", root/"norain", crops(256, (320, 480)))
    assert len(pairs) == 18
    for image in pairs[20]: assert image.shape == (3, 256, 256)


def test_a_worker_that_inherits_nothing_gives_the_same_samples():
    data = PairedPhotographs([(EXAMPLES/f"{name}_rain.png", EXAMPLES/f"{name}.png")
                              for name in ("astronaut", "cat", "coffee")], crops(48, (64, 120)))
    here = torch.stack([data[i][0] for i in range(6)])
    loader = DataLoader(data, 3, sampler=range(6), num_workers=1, multiprocessing_context="spawn")
    assert torch.cat([batch[0] for batch in loader]).equal(here)


def test_an_orientation_in_xmp_turns_the_size_as_it_turns_the_photograph(tmp_path: Path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">' \
          b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    Image.new("RGB", (40, 20)).save(path := tmp_path / "a.jpg", xmp=xmp)
    assert size_of(path) == read_rgb(path).size == (20, 40)


def test_a_layer_of_rain_or_a_depth_map_that_breaks_is_skipped_like_a_photograph(tmp_path: Path):
    (broken := tmp_path / "a.png").write_text("rain")
    for read in (read_bytes, read_streaks, read_depth):
        with pytest.raises(BrokenPhotograph, match=r"a\.png"): read(broken)


def test_scenes_that_are_held_out_are_not_trained_on_under_another_name(tmp_path: Path):
    for folder in ("rainy", "clean"): (tmp_path / folder).mkdir()
    for n in range(6):
        scene = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8, generator=torch.manual_seed(n)), scale_factor=12)
        for copy in "abc":
            for folder in ("rainy", "clean"): to_pil(scene * 2 - 1).save(tmp_path / folder / f"{copy}{n}.png")
    train, validation, test = find_pairs(DataConfig(pairs=("rainy", "clean"), test_pictures=2), tmp_path, [])
    held_out = {target.stem[1:] for _, target in validation + test}
    assert train and held_out and not held_out & {target.stem[1:] for _, target in train}


def test_pairs_beside_photographs_are_held_out_only_if_asked_for(tmp_path: Path):
    for folder, seed, side in (("rainy", 0, 64), ("clean", 10, 64), ("photographs", 20, 224)):
        (tmp_path / folder).mkdir()
        for n in range(9):
            picture = np.random.default_rng(seed + n).integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / folder / f"{n}.png")
    data = DataConfig("photographs", pairs=("rainy", "clean"), test_pictures=2)
    assert [len(part) for part in sources(data, tmp_path).pairs] == [9, 0, 0]
    data = replace(data, test_pairs=4)
    train, validation, test = sources(data, tmp_path).pairs
    assert (len(train), len(validation), len(test)) == (3, 2, 4) and len({*train, *validation, *test}) == 9
    for subset, sides in (("test-split", [224] * 2), ("pairs-split", [64] * 4), ("validation", [224, 64, 64])):
        assert [len(pair[0][0]) for pair in evaluation_pairs(subset, "deraining", data, tmp_path)] == sides
