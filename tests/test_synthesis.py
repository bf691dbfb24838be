"Synthesis on real photographs and depth maps, and in worker processes."
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader

from dmgn.data import SyntheticPairs, crops, images_in, read_bytes
from dmgn.files import EXAMPLES
from dmgn.haze import add_haze, depth_from_disparity
from dmgn.reflection import SYNTHESES
from dmgn.synthesis import Scene, check_photograph
from dmgn.tasks import TASKS

VIEWS = {"disp1.png": "view1.png", "disp5.png": "view5.png", "disp2.png": "im2.png", "disp6.png": "im6.png"}


def seeded(seed: int) -> torch.Generator:
    "A generator."
    return torch.Generator().manual_seed(seed)


def view_of(disparity: Path) -> Path:
    "The photograph that a disparity map belongs to."
    return disparity.with_name(VIEWS.get(disparity.name) or disparity.name.replace("_gt", "_left"))


def test_stereo_scenes_become_depth_in_metres_and_haze(shared: Callable[[str], Path]):
    folder = shared("data/middlebury_rgbd")
    found = sorted([*folder.glob("*/disp*.png"), *folder.glob("2b-t/*_gt.png")])
    assert len(found) >= 11
    for path in found:
        disparity = torch.from_numpy(np.array(Image.open(path)).astype(np.float32))[None]
        depth = depth_from_disparity(disparity, focal_baseline=200)
        assert depth.isfinite().all() and depth.min() > 0, path
        assert (depth[disparity == 0] == depth.max()).all(), path
        near, far = disparity == disparity.max(), disparity == disparity[disparity > 0].min()
        assert (depth[near] == depth.min()).all() and (depth[far] == depth.max()).all(), path
        photograph = read_bytes(view_of(path)) / 255
        mixture, layer = add_haze(photograph, seeded(0), depth)
        check_photograph(mixture)
        assert (layer[:, near[0]].amax(1) < layer[:, far[0]].amin(1)).all(), path


@pytest.mark.parametrize("task", TASKS)
def test_photographs_of_every_size_can_be_used_whole(task: str, shared: Callable[[str], Path]):
    by_shape = {}
    for path in images_in(shared("data/bsds_train"))[:60]:
        photograph = read_bytes(path) / 255
        by_shape.setdefault(photograph.shape, []).append(photograph)
    assert len(by_shape) >= 2
    for shape, photographs in by_shape.items():
        for i in range(3):
            scene = Scene(photographs[i], photographs[i + 1])
            mixture, layer = TASKS[task].synthesise(scene, seeded(i))
            check_photograph(mixture)
            assert mixture.shape == shape and layer.shape[1:] == shape[1:]
            assert not torch.equal(mixture, scene.background)
            assert torch.equal(mixture, TASKS[task].synthesise(scene, seeded(i))[0])


def test_worker_processes_started_afresh_draw_what_this_process_draws():
    photographs = [path for path in images_in(EXAMPLES) if "_" not in path.stem]
    data = ConcatDataset([SyntheticPairs(photographs, synthesise, crops(48), seed=3)
                          for synthesise in (*(task.synthesise for task in TASKS.values()), SYNTHESES["plnet"])])
    loader = DataLoader(data, batch_size=1, num_workers=2, multiprocessing_context="spawn")
    for here, there in zip([data[i] for i in range(len(data))], loader, strict=True):
        for a, b in zip(here, there, strict=True): assert torch.equal(a, b[0])
