"Data sets of photographs that are not in the package, and a worker that does not inherit memory."
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from dmgn.data import PairedFolder, PairedPhotographs, SyntheticPairs, crops, depths_in, images_in, read_depth
from dmgn.files import EXAMPLES
from dmgn.haze import middlebury_scenes, write_depths
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
