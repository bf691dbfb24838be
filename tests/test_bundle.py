"`tools/bundle_network.py`: a miniature run and a miniature test set become a bundled network with a card."
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from dmgn.commands.main import app
from dmgn.commands.train import Given, record_settings
from dmgn.config import DMGNConfig
from dmgn.files import PRETRAINED, read_rgb
from dmgn.images import example
from dmgn.metrics import evaluate_pair
from dmgn.model import DMGN
from dmgn.restore import restore
from dmgn.tasks import TASKS
from dmgn.training import TrainConfig, train, validation_pairs
from small_run import PHOTOGRAPHS, data

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
from bundle_network import WORDS, bundle, command, noisy_squares

@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The folder of two steps of training for reflections."
    folder = tmp_path_factory.mktemp("data") / "it's mine"
    folder.mkdir()
    for n in range(5): example("cat")[1].crop((n, 0, n + 30, 30)).save(folder / f"{n}.png")
    torch.manual_seed(0)
    network = DMGN(DMGNConfig(task="reflection", width=4, vgg_taps=1, middle_cells=1, refine_dilations=(1, 2)),
                   vgg_weights="random")
    config = TrainConfig.small(2, batch=2, validate_every=1, workers=0, tracker=None, protocol="rgb")
    out = folder.parent / "run"
    given = Given("reflection", train=(folder,), crop=24, short_sides=(32, 48), vgg=str(out / "vgg.safetensors"))
    record_settings(asdict(given), out, False)
    train(network, data(), validation_pairs(PHOTOGRAPHS[:1], TASKS["reflection"].synthesise, 64), out, config)
    return out


@pytest.fixture(scope="module")
def test_set(run: Path) -> Path:
    "Two pairs laid out as Real20."
    root = run.parent
    mixture, clean = example("coffee", "reflection")
    for folder, image in (("blended", mixture), ("transmission_layer", clean)):
        (root / "real20_300" / folder).mkdir(parents=True)
        for n in (3, 4): image.crop((40 * n, 30, 40 * n + 48, 80)).save(root / "real20_300" / folder / f"{n}.png")
    return root


def test_a_run_becomes_a_bundled_network(run: Path, test_set: Path, tmp_path: Path):
    into = tmp_path / "package/pretrained"
    names = {"README.md", "config.json", "failures.png", "gains.png", "log.json", "model.safetensors",
             "model.safetensors.sha256", "results.json"}
    (into / "tiny").mkdir(parents=True)
    (into / "tiny/old.txt").write_text("of the network before")
    bundle(run, "tiny", test_set, ("real20_300",), into)
    folder = into / "tiny"
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in into.parent.rglob("*")
            if path.parent in (into, into.parent)] == ["pretrained", "tiny"]
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644
    network, best = DMGN.from_pretrained(folder), DMGN.from_pretrained(run / "best")
    for name, value in best.state_dict().items():
        assert torch.equal(network.state_dict()[name], value.half().float()), name
    with Image.open(folder / "failures.png") as picture: assert picture.mode == "P"
    assert (folder / "failures.png").stat().st_size < 150_000
    results = json.loads((folder / "results.json").read_text())["test_sets"]
    assert [(row["benchmark"], row["protocol"], row["count"])
            for row in results] == [("real20_300", "rgb-per-channel", 2), ("real20_300", "rgb", 2)]
    pairs = [tuple(read_rgb(test_set / f"real20_300/{kind}/{n}.png") for kind in ("blended", "transmission_layer"))
             for n in (3, 4)]
    for row in results:
        for what, predict in (("input", lambda x: x),
                              ("restored", lambda x: restore(x, "reflection", network).background)):
            scores = [evaluate_pair(predict(a), b, row["protocol"]) for a, b in pairs]
            assert row[what] == pytest.approx({"psnr": np.mean([s.psnr for s in scores]),
                                               "ssim": np.mean([s.ssim for s in scores])})
    card, log = (folder / "README.md").read_text(), json.loads((run / "log.json").read_text())
    command = "dmgn train --task reflection --preset small --train 'DATA/it'\"'\"'s mine' --crop 24 --short-sides 32 48"
    assert f"{command} --vgg vgg.safetensors" in card
    assert f"real20_300, 2 of 20 pictures | rgb | {results[1]['input']['psnr']:.2f} dB" in card
    assert WORDS["reflection"]["limits"] in card
    assert [f"{row['psnr']:.2f}" in card for row in log["log"] if "psnr" in row] == [True, True] and "| 2 | " in card
    assert "4 photographs with synthetic noise" in card and "1 others" in card and "2 of 2 crops of 24 x 24" in card
    assert "{" not in card
    assert str(run.parent) not in card


def test_the_command_of_a_card_is_one_that_dmgn_takes(run: Path):
    settings, learnt = (json.loads((run / f"{name}.json").read_text()) for name in ("train", "data"))
    learnt |= {"pairs": [["/d/rain", "/d/clean"], ["/d/a", "/d/b"]], "pair_share": [0.2, 0.1], "model": "a/b",
               "depth": "/d/depth", "clean_share": 0.1}
    words = shlex.split(command(settings | {"precision": "bf16", "learning_rate": 0.1, "compile": True}, learnt,
                                Path("/d")))
    options = typer.main.get_command(app).commands["train"].make_context("train", words[2:]).params
    expected = {"task": "reflection", "pairs": [Path("DATA/rain"), Path("DATA/clean"), Path("DATA/a"), Path("DATA/b")],
                "pair_share": [0.2, 0.1], "clean_share": 0.1, "model": "a/b", "depth": Path("DATA/depth"), "steps": 2,
                "epochs": None, "batch": 2, "accumulate": None, "crop": 24, "short_sides": (32, 48),
                "learning_rate": 0.1, "validate_every": 1, "seed": 0,
                "precision": "bf16", "compiled": True, "preset": "small", "val": None}
    assert {name: options[name] for name in expected} == expected
    assert "--learning-rate" not in command(settings, learnt)
    assert "--depth DEPTH " in command(settings, learnt, Path("/elsewhere"))


def test_nothing_is_left_of_a_network_that_cannot_be_measured(run: Path, test_set: Path, tmp_path: Path):
    into = tmp_path / "package/pretrained"
    for name, root, message in [("rain100L", test_set, "rain100L"), ("real20_300", tmp_path / "none", "no folder")]:
        with pytest.raises((ValueError, FileNotFoundError), match=message): bundle(run, "tiny", root, (name,), into)
        assert [path.name for path in into.parent.rglob("*")] == ["pretrained"]


@pytest.mark.parametrize("task", WORDS)
def test_failures_are_looked_for_in_noise_that_is_the_same_at_every_call(task: str):
    found, again = (noisy_squares(task, 40, 2) for _ in range(2))
    assert len(found) == 6 and len({noisy.tobytes() for noisy, _ in found}) == 6
    assert [noisy.tobytes() for noisy, _ in found] == [noisy.tobytes() for noisy, _ in again]


def test_every_bundled_network_has_numbers_and_a_card():
    for folder in (path.parent for path in PRETRAINED.glob("*/config.json")):
        card = (folder / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: dmgn\n")
        limits = card.partition("## Limits")[2].partition("\n## ")[0]
        for row in json.loads((folder / "results.json").read_text())["test_sets"]:
            gain = row["restored"]["psnr"] - row["input"]["psnr"]
            assert gain > 0 or row["benchmark"] in limits, "a loss that no word explains"
        assert (folder / "model.safetensors").stat().st_size < 4_000_000
