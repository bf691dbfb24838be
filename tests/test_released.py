"The released network, reproduced: golden tensors against ours, and checkpoints that are something else."

from pathlib import Path

import numpy as np
import pytest
import torch

from dmgn.hypercolumn import plain_mix
from dmgn.model import DMGN
from dmgn.released import procedural_weights

GOLDEN = Path(__file__).parent / "golden"
CASES = {"reflection": "reflection", "reflection_odd": "reflection", "deraining": "deraining", "dehazing": "dehazing"}


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, torch.Tensor]:
    rows = (line.split() for line in (GOLDEN / "released_keys.txt").read_text().splitlines() if line)
    return procedural_weights({name: tuple(map(int, dims)) for name, *dims in rows})


@pytest.mark.parametrize("form", ["factorised", "plain"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_agree_with_the_released_network(case, form, checkpoint):
    kept = np.load(GOLDEN / f"dev_{case}.npz")
    model = DMGN.from_released(checkpoint, task=CASES[case])
    if form == "plain":
        model.head.mix_taps = plain_mix
    with torch.inference_mode():
        o = model(torch.from_numpy(kept["x"]))
    ours = {"R": o.noise, "B_coarse": o.coarse, "B": o.background, "A": o.separator_mask}
    if "A_b" in kept:
        ours["A_b"] = 1 - o.noise_distribution_map
    assert set(ours) == set(kept.files) - {"x"}
    for name, image in ours.items():
        difference = (image - torch.from_numpy(kept[name])).abs().max().item()
        most = 2e-5 if name == "A_b" else 1e-5 # that map is stretched, and its rounding errors with it
        assert difference < most, f"{name} is off by {difference:.1e}"


def test_a_wrong_weight_would_be_noticed(checkpoint):
    kept = np.load(GOLDEN / "dev_deraining.npz")
    swapped = dict(checkpoint)
    first, second = "s_m21.conv1.1.weight", "s_m5.conv1.1.weight"
    swapped[first], swapped[second] = swapped[second], swapped[first]
    with torch.inference_mode():
        coarse = DMGN.from_released(swapped, task="deraining")(torch.from_numpy(kept["x"])).coarse
    assert (coarse - torch.from_numpy(kept["B_coarse"])).abs().max() > 1e-5


def test_data_parallel_prefix_and_a_file(checkpoint, tmp_path):
    torch.save({f"module.{name}": tensor for name, tensor in checkpoint.items()}, tmp_path / "net.pth")
    model = DMGN.from_released(tmp_path / "net.pth", task="reflection")
    assert torch.equal(model.refining.enter[0].weight, checkpoint["refine.conv.1.weight"])
    assert model.dead_parameters == 20_054_016


@pytest.mark.parametrize("change, message", [
    (lambda s: s.pop("up1.up.1.weight"), r"up1\.up\.1\.weight is missing \(1 in all\)"),
    (lambda s: s.update({"refine.conv.1.bias": torch.zeros(3)}),
     r"refine\.conv\.1\.bias is \(3,\), not \(64,\) \(1 in all\)"),
    (lambda s: s.update({"decoder.weight": torch.zeros(3)}), r"decoder\.weight is unexpected \(1 in all\)"),
])
def test_another_checkpoint_is_refused(change, message, checkpoint):
    state = dict(checkpoint)
    change(state)
    with pytest.raises(ValueError, match=message):
        DMGN.from_released(state, task="deraining")


def test_files_that_are_no_checkpoint(tmp_path):
    (tmp_path / "notes.pth").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"notes.pth is not a checkpoint that torch can read safely"):
        DMGN.from_released(tmp_path / "notes.pth", task="deraining")
    with pytest.raises(ValueError, match="task 'snow': expected one of reflection, deraining, dehazing"):
        DMGN.from_released({}, task="snow")
