"The `dmgn` command, as a user would call it."
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from dmgn import __version__
from dmgn.commands.main import app, plan_outputs
from dmgn.config import DMGNConfig
from dmgn.files import PRETRAINED
from dmgn.images import example
from dmgn.metrics import evaluate_pair
from dmgn.model import DMGN
from dmgn.tasks import TASKS, find_task

BUNDLED = pytest.mark.skipif(not (PRETRAINED / "small-deraining/config.json").is_file(), reason="no bundled network")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    "The folder of a network that learned nothing."
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("network")
    DMGN(DMGNConfig.tiny("deraining"), vgg_weights="random").save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    "`run(\"restore\", ...)` in a folder with a trip's photographs; checks that there is no traceback."
    monkeypatch.chdir(tmp_path)
    piece = example("cat")[0].crop((100, 60, 137, 84))
    for name in ("trip/a.png", "trip/b.jpg", "trip/day2/c.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        piece.save(name)

    def call(*arguments: str) -> Result:
        result = CliRunner().invoke(app, list(arguments), prog_name="dmgn")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result
    return call


def refused(result: Result, message: str) -> bool:
    "Whether a command ended with one line on standard error."
    assert message in result.stderr, result.output
    return result.exit_code == 1 and len(result.stderr.strip().splitlines()) == 1


def files(folder: str) -> list[str]:
    "The files in a folder and below."
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


def test_a_folder_keeps_names_and_subfolders(run: Callable[..., Result], network: str):
    before = {name: Path("trip", name).read_bytes() for name in files("trip")}
    result = run("restore", "trip", "-o", "clean", "--model", network)
    assert result.exit_code == 0 and "3 of 3 photographs restored" in result.stdout
    assert files("clean") == ["a.png", "b.jpg", "day2/c.png"]
    assert before == {name: Path("trip", name).read_bytes() for name in files("trip")}


def test_a_broken_file_does_not_stop_the_rest(run: Callable[..., Result], network: str):
    Path("trip/aa.png").write_text("a text")
    Path("trip/bb.jpg").write_bytes(Path("trip/b.jpg").read_bytes()[:500])
    result = run("restore", "trip", "-o", "clean", "--model", network)
    assert result.exit_code == 1 and "3 of 5 photographs restored" in result.stdout
    assert [line.split(":")[1].strip() for line in result.stderr.strip().splitlines()] == ["trip/aa.png", "trip/bb.jpg"]
    assert files("clean") == ["a.png", "b.jpg", "day2/c.png"]


def test_resume_does_what_is_missing(run: Callable[..., Result], network: str):
    Path("clean").mkdir()
    Path("clean/a.png").write_text("done before")
    result = run("restore", "trip", "-o", "clean", "--model", network, "--resume")
    assert "2 of 3 photographs restored into clean, 1 there already" in result.stdout
    assert Path("clean/a.png").read_text() == "done before"
    assert "0 of 3" in run("restore", "trip", "-o", "clean", "--model", network, "--resume").stdout
    assert "3 of 3" in run("restore", "trip", "-o", "clean", "--model", network).stdout
    assert Image.open("clean/a.png").size == (37, 24)


@pytest.mark.parametrize("arguments, message", [
    (["trip", "-o", "trip"], "trip is an input"), (["trip/a.png", "-o", "trip"], "would be overwritten"),
    (["trip/a.png", "-o", "trip/day2/.."], "would be overwritten"),
    (["trip/day2", "trip/day2/c.png", "-o", "trip/day2"], "is an input"),
    (["nowhere", "-o", "clean"], "no photograph or folder nowhere"),
    (["trip", "nowhere.jpg", "-o", "clean"], "no photograph or folder nowhere.jpg"),
    (["empty", "-o", "clean"], "no photographs in empty"),
    (["trip", "other", "-o", "clean"], "would both become clean/a.png"),
    (["trip/a.png", "trip/b.jpg", "-o", "clean.png"], "expected a folder"),
    (["trip", "-o", "clean.png"], "expected a folder"),
    (["nowhere.png", "-o", "clean.png"], "no photograph or folder nowhere.png"),
    (["trip", "-o", "trip/a.png"], "expected a folder"), (["trip", "-o", "clean", "--task", "snow"], "no task 'snow'"),
    (["trip", "-o", "clean", "--model", "empty"], "empty holds no config.json"),
    (["trip", "-o", "clean", "--model", "trip/a.png", "--task", "rain"], "not a checkpoint"),
    (["trip", "-o", "clean", "--model", "trip/a.png"], "the authors' checkpoints are for one task each: say which"),
    (["trip", "-o", "clean", "--model", "nowhere.onnx"], "no file nowhere.onnx"),
    (["trip", "-o", "clean", "--model", "NETWORK", "--precision", "int8"], "no precision 'int8': expected auto, fp32"),
    (["trip", "-o", "clean", "--model", "NETWORK", "--task", "dehazing"], "not for dehazing")])
def test_refused_before_anything_is_written(run: Callable[..., Result], network: str, arguments: list[str],
                                            message: str):
    Path("empty").mkdir()
    Path("other").mkdir()
    shutil.copy("trip/a.png", "other/a.png")
    assert refused(run("restore", *(network if a == "NETWORK" else a for a in arguments)), message)
    assert not Path("clean").exists() and files("trip") == ["a.png", "b.jpg", "day2/c.png"]


def test_an_output_folder_inside_the_input_is_not_restored_again(run: Callable[..., Result]):
    shutil.copytree("trip", "trip/clean")
    planned = plan_outputs([Path("trip")], Path("trip/clean")).targets
    assert [p.as_posix() for p in planned] == ["trip/a.png", "trip/b.jpg", "trip/day2/c.png"]


def test_an_output_folder_above_the_input(run: Callable[..., Result]):
    assert plan_outputs([Path("trip/day2")], Path("trip")).targets == {Path("trip/day2/c.png"): Path("trip/c.png")}


def test_a_photograph_given_twice_is_restored_once_into_one_file(run: Callable[..., Result]):
    assert len(set(plan_outputs([Path("trip/a.png"), Path("trip")], Path("clean")).targets.values())) == 3


def test_hidden_files_are_left_alone(run: Callable[..., Result]):
    Path("trip/._a.png").write_text("of a file manager")
    plan = plan_outputs([Path("trip")], Path("clean"))
    assert len(plan.targets) == 3 and not plan.left_out


def test_a_useless_device_is_one_line(run: Callable[..., Result], network: str):
    result = run("restore", "trip/a.png", "-o", "clean", "--model", network, "--device", "abacus")
    assert refused(result, "cannot run on 'abacus'") and files(".") == ["trip/a.png", "trip/b.jpg", "trip/day2/c.png"]


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_a_strength_between_the_photograph_and_the_result(run: Callable[..., Result], network: str, precision: str):
    for strength in ("0", "0.5", "1"):
        result = run("restore", "trip/a.png", "-o", strength, "--model", network, "--strength", strength,
                     "--precision", precision)
        assert result.exit_code == 0
    levels = [np.asarray(Image.open(f"{strength}/a.png"), float) for strength in ("0", "0.5", "1")]
    assert np.array_equal(levels[0], np.asarray(Image.open("trip/a.png")))
    assert not np.array_equal(levels[0], levels[2]) and np.abs(levels[1] - (levels[0] + levels[2]) / 2).max() <= 1
    result = run("restore", "trip/a.png", "-o", "clean", "--model", network, "--strength", "2")
    assert result.exit_code == 2 and "--strength" in result.stderr


@BUNDLED
def test_without_a_task_the_network_for_any_noise_restores(run: Callable[..., Result]):
    for out, more in (("a", []), ("b", ["--task", "any"]), ("c", ["--model", "small-any", "--task", "rain"])):
        assert run("restore", "trip/a.png", "-o", out, *more).exit_code == 0
    assert Path("a/a.png").read_bytes() == Path("b/a.png").read_bytes() == Path("c/a.png").read_bytes()


@BUNDLED
def test_demo(run: Callable[..., Result]):
    result = run("demo", "-o", "demo")
    assert result.exit_code == 0 and "deraining by small-deraining, protocol y" in result.stdout
    for task, name in ((t.name, t.network) for t in TASKS.values()):
        assert f"{task} by {name}, protocol " in result.stdout
        lines = [line.split() for line in result.stdout.splitlines() if f"_{TASKS[task].noise}_restored.png" in line]
        assert [line[0] for line in lines] == [f"demo/{name}_{TASKS[task].noise}.png"
                                               for name in ("astronaut", "cat", "coffee")]
        for line in lines:
            if task == "deraining": assert float(line[5]) > float(line[1]) + 1 and float(line[6]) > float(line[2])
    assert len(files("demo")) == 9 * len(TASKS)


@BUNDLED
def test_demo_measures_haze_in_rgb(run: Callable[..., Result]):
    lines = run("demo", "-o", "demo").stdout.splitlines()
    first = lines.index("dehazing by small-dehazing, protocol rgb") + 1
    lines = lines[first : first + 3]
    before = [evaluate_pair(*example(name, "haze"), "rgb") for name in ("astronaut", "cat", "coffee")]
    assert [line.split()[1:3] for line in lines] == [[f"{x.psnr:.2f}", f"{x.ssim:.3f}"] for x in before]


def test_a_task_without_a_network_is_one_line(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch,
                                              tmp_path: Path):
    monkeypatch.setattr("dmgn.network_files.PRETRAINED", tmp_path / "networks")
    for command in (["restore", "trip", "-o", "clean"], ["evaluate", "--inputs", "trip", "--targets", "trip"]):
        assert refused(run(*command), "no network for any") and not Path("clean").exists()
        assert refused(run(*command, "--task", "rain"), "no network for deraining") and not Path("clean").exists()


@pytest.mark.parametrize("name", [name for task in TASKS.values() for name in (task.name, *task.aliases)])
def test_a_task_is_known_by_all_its_names(run: Callable[..., Result], tmp_path: Path, name: str):
    task = find_task(name).name
    DMGN(DMGNConfig(task=task, width=4, vgg_taps=1, middle_cells=1),
         vgg_weights="random").save_pretrained(tmp_path / "net")
    assert run("restore", "trip/a.png", "-o", "clean", "--task", name, "--model", "net").exit_code == 0
    pairs_of_cats(1, 24)
    command = ["evaluate", "--inputs", "rainy", "--targets", "truth", "--model", "net", "--json", "scores.json"]
    result = run(*command, "--task", name)
    assert result.exit_code == 0 and result.stdout.startswith(f"{task}, protocol y, mean of 1 pictures")
    assert json.loads(Path("scores.json").read_text())["settings"]["task"] == task
    other = next(other for other in TASKS.values() if other.name != task)
    assert refused(run(*command, "--task", other.aliases[0]), f"trained for {task}, not for {other.name}")


def pairs_of_cats(count: int, side: int) -> None:
    "Folders `rainy` and `truth`."
    rainy, clean = example("cat")
    for folder, image in (("rainy", rainy), ("truth", clean)):
        Path(folder).mkdir()
        for n in range(count): image.crop((40 * n, 20 * n, 40 * n + side, 20 * n + side)).save(f"{folder}/{n}.png")


def test_evaluate_a_network_on_folders(run: Callable[..., Result], network: str):
    pairs_of_cats(3, 48)
    result = run("evaluate", "--inputs", "rainy", "--targets", "truth", "--model", network, "--protocol", "rgb",
                 "--json", "scores.json", "--csv", "scores.csv")
    assert result.exit_code == 0 and "deraining, protocol rgb, mean of 3 pictures" in result.stdout
    scores = json.loads(Path("scores.json").read_text())
    assert [row["name"] for row in scores["pictures"]] == ["0.png", "1.png", "2.png"]
    for what in ("input", "restored"):
        assert scores["mean"][what]["psnr"] == pytest.approx(np.mean([row[what]["psnr"] for row in scores["pictures"]]))
        assert f"{scores['mean'][what]['psnr']:.2f}" in result.stdout
    assert scores["weights"]["sha256"] == hashlib.sha256(Path(network, "model.safetensors").read_bytes()).hexdigest()
    digest = hashlib.sha256(Path("truth/1.png").read_bytes()).hexdigest()
    assert scores["pictures"][1]["files"]["target"] == {"path": "truth/1.png", "sha256": digest}
    assert scores["settings"]["model"] == network and scores["protocol"]["name"] == "rgb"
    assert "Gaussian" in scores["protocol"]["definition"]
    assert len(Path("scores.csv").read_text().splitlines()) == 4
    assert files(".")[-1].startswith("truth"), "a temporary file was left"


def test_evaluate_saved_pictures(run: Callable[..., Result], network: str):
    pairs_of_cats(3, 48)
    assert run("restore", "rainy", "-o", "results", "--model", network).exit_code == 0
    options = ["--protocol", "rgb-per-channel"]
    restored = run("evaluate", "--inputs", "rainy", "--target", "truth", "--model", network,
                   *options).stdout.splitlines()
    with_inputs = run("evaluate", "--pred", "results", "--inputs", "rainy", "--target", "truth", *options, "--json",
                      "scores.json").stdout.splitlines()
    alone = run("evaluate", "--pred", "results", "--target", "truth", *options).stdout.splitlines()
    assert restored[1].split() == ["PSNR", "SSIM", "LMSE", "NCC"] and restored[1:] == with_inputs[1:]
    assert alone[1:] == [restored[1], restored[3]]
    assert alone[0] == "results, protocol rgb-per-channel, mean of 3 pictures"
    scores = json.loads(Path("scores.json").read_text())
    assert scores["weights"] is None and scores["pictures"][2]["files"]["restored"]["path"] == "results/2.png"


def test_evaluate_a_test_set(run: Callable[..., Result], network: str):
    pairs_of_cats(2, 48)
    Path("sots/hazy").mkdir(parents=True), Path("sots/gt").mkdir()
    for n in (0, 1):
        with Image.open(f"rainy/{n}.png") as image: image.crop((4, 4, 44, 44)).save(f"sots/hazy/{n}_1.png")
        shutil.copy(f"truth/{n}.png", f"sots/gt/{n}.png")
    shutil.copytree("sots/hazy", "results")
    result = run("evaluate", "--benchmark", "sots_indoor", "--root", "sots", "--pred", "results")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and lines[0] == "sots_indoor, protocol rgb, mean of 2 pictures"
    assert lines[2].split()[1:] == lines[3].split()[1:]
    assert "sots holds 2 of sots_indoor's 500 pictures" in result.stderr
    with Image.open("results/0_1.png") as image: image.resize((48, 48)).save("results/0_1.png")
    assert refused(run("evaluate", "--benchmark", "sots_indoor", "--root", "sots", "--pred", "results"),
                   "0_1.png: sizes differ: prediction 48x48, target 40x40")
    assert "protocol y" in run("evaluate", "--benchmark", "sots_indoor", "--root", "sots", "--pred", "sots/hazy",
                               "--protocol", "y").stdout
    assert refused(run("evaluate", "--benchmark", "sots_indoor", "--root", "sots", "--model", network),
                   "not for dehazing")


@BUNDLED
def test_evaluate_takes_task_and_protocol_from_the_test_set(run: Callable[..., Result]):
    pairs_of_cats(2, 48)
    shutil.copytree("rainy", "rain100L/input"), shutil.copytree("truth", "rain100L/target")
    result = run("evaluate", "--benchmark", "rain100L", "--root", "rain100L", "--json", "scores.json")
    assert result.exit_code == 0 and result.stdout.startswith("rain100L, protocol y, mean of 2 pictures")
    assert json.loads(Path("scores.json").read_text())["settings"]["task"] == "deraining"


@pytest.mark.parametrize("change, message", [
    (["--inputs", "nowhere"], "nowhere"), (["--protocol", "z"], "protocol must be one of"),
    (["--targets", "trip"], "trip"), (["--task", "dehazing"], "not for dehazing"),
    (["--pred", "rainy"], "leave out --model"), (["--benchmark", "rain100L"], "--benchmark and --root go together"),
    (["--root", "."], "--benchmark and --root go together"),
    (["--benchmark", "rain100L", "--root", "."], "brings its own pictures"),
    (["--json", "truth/0.png"], "truth/0.png is one of the pictures"), (["--json", "truth"], "cannot write truth"),
    (["--json", "no/scores.json"], "cannot write no/scores.json"), (["--csv", "./scores.json"], "choose another name"),
    (["--device", "abacus"], "cannot run on 'abacus'")])
def test_evaluate_refuses(run: Callable[..., Result], network: str, change: list[str], message: str):
    pairs_of_cats(1, 24)
    before = Path("truth/0.png").read_bytes()
    assert refused(run("evaluate", "--inputs", "rainy", "--targets", "truth", "--model", network, "--json",
                       "scores.json", *change), message)
    assert not Path("scores.json").exists() and Path("truth/0.png").read_bytes() == before


@pytest.mark.parametrize("arguments, message", [
    ([], "nothing to score"), (["--inputs", "rainy"], "nothing to score"), (["--targets", "truth"], "nothing to score"),
    (["--pred", "rainy"], "nothing to score"),
    (["--benchmark", "rain99", "--root", "."], "no data set 'rain99'"),
    (["--benchmark", "rain100L", "--root", "nowhere"], "no folder nowhere"),
    (["--benchmark", "ceilnet_real", "--root", "rainy"], "no ground truth"),
    (["--pred", "trip", "--targets", "truth"], "trip lacks 2 of 2 pictures: 0, 1"),
    (["--pred", "more", "--targets", "truth"], "more has 1 pictures that the test set does not have: 2"),
    (["--pred", "broken", "--targets", "truth"], "broken/1.png cannot be read"),
    (["--pred", "small", "--targets", "truth"], "1.png: sizes differ: prediction 20x24, target 24x24")])
def test_evaluate_refuses_what_has_no_honest_average(run: Callable[..., Result], arguments: list[str], message: str):
    pairs_of_cats(2, 24)
    for name in ("more", "broken", "small"): shutil.copytree("rainy", name)
    shutil.copy("rainy/0.png", "more/2.png")
    Path("broken/1.png").write_text("a text")
    with Image.open("rainy/1.png") as image: image.crop((0, 0, 20, 24)).save("small/1.png")
    assert refused(run("evaluate", *arguments), message)


def noise_photographs(folder: str, count: int = 5, side: int = 224) -> None:
    Path(folder).mkdir()
    for n in range(count):
        squares = np.random.default_rng(n).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(squares).resize((side, side)).save(f"{folder}/{n}.png")


SMALL = ["-o", "run", "--vgg", "random", "--crop", "32", "--batch", "1", "--workers", "0", "--tracker", "none"]


@pytest.mark.parametrize("task", ["reflection", "deraining", "dehazing"])
def test_train_leaves_a_network_for_any_task(run: Callable[..., Result], task: str):
    noise_photographs("sunny")
    result = run("train", "--task", task, "--train", "sunny", "--steps", "1", *SMALL)
    assert result.exit_code == 0
    assert "Starting in run: 4 photographs and 0 pairs to train on, 1 to validate on" in result.stdout
    assert DMGN.from_pretrained("run/best").config.task == task
    assert run("restore", "trip/a.png", "--task", task, "-o", "clean", "--model", "run/best").exit_code == 0


def test_train_continues_in_its_precision(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch):
    noise_photographs("sunny")
    command = ["train", "--task", "deraining", "--train", "sunny", "--steps", "2", *SMALL]
    def precision() -> str: return json.loads(Path("run/train.json").read_text())["precision"]
    for native in (True, False):
        monkeypatch.setattr("dmgn.inference.computes_bfloat16", lambda device, native=native: native)
        assert run(*command, *["--resume"] * (not native)).exit_code == 0 and precision() == "bf16"
    assert refused(run(*command, "--resume", "--precision", "no"), "precision='bf16', not 'no'")
    shutil.rmtree("run")
    assert run(*command).exit_code == 0 and precision() == "no"


def test_train_continues_with_the_same_only(run: Callable[..., Result]):
    noise_photographs("sunny")
    pairs_of_cats(2, 64)
    command = ["train", "--task", "deraining", "--train", "sunny", "--pairs", "rainy", "truth", "--steps", "2", *SMALL]
    first = run(*command)
    assert first.exit_code == 0 and "4 photographs and 2 pairs to train on" in first.stdout
    weights = Path("run/best/model.safetensors").read_bytes()
    assert refused(run(*command), "run holds a run already")
    again = run(*command, "--resume")
    assert again.exit_code == 0 and "Continuing in run" in again.stdout
    assert refused(run(*command, "--resume", "--seed", "1"), "seed=0, not 1")
    assert refused(run(*command, "--resume", "--pair-share", "0.5"), "was started with pair_share=[0.3], not [0.5]")
    assert Path("run/best/model.safetensors").read_bytes() == weights


def test_train_records_what_reflections_are_made_of_and_the_critic(run: Callable[..., Result]):
    noise_photographs("sunny", side=64)
    command = ["train", "--task", "reflection", "--train", "sunny", "--steps", "1", *SMALL]
    assert run(*command, "--preset", "paper", "--short-sides", "40", "48", "--critic", "paper").exit_code == 0
    data, training = (json.loads(Path(f"run/{name}.json").read_text()) for name in ("data", "train"))
    assert (data["synthesis"], training["critic"]) == ("mixed", "paper")
    shutil.rmtree("run")
    assert run(*command, "--synthesis", "plnet").exit_code == 0
    assert json.loads(Path("run/data.json").read_text())["synthesis"] == "plnet"
    assert refused(run(*command, "--resume"), "was started with synthesis=plnet, not wide: resume it with the same")


def test_train_goes_on_with_a_run_from_before_there_was_a_choice_of_synthesis(run: Callable[..., Result]):
    noise_photographs("sunny", side=64)
    command = ["train", "--task", "reflection", "--train", "sunny", "--steps", "1", *SMALL]
    assert run(*command).exit_code == 0
    record = json.loads(Path("run/data.json").read_text())
    assert record.pop("synthesis") == "wide"
    Path("run/data.json").write_text(json.dumps(record))
    assert refused(run(*command, "--resume", "--synthesis", "mixed"), "started with synthesis=wide, not mixed")
    assert run(*command, "--resume").exit_code == 0


def test_train_on_pairs_alone_from_a_network(run: Callable[..., Result], network: str):
    pairs_of_cats(5, 64)
    result = run("train", "--task", "deraining", "--pairs", "rainy", "truth", "--model", network, "--steps", "1",
                 *SMALL)
    assert result.exit_code == 0 and "0 photographs and 4 pairs to train on, 1 to validate on" in result.stdout


def test_train_leaves_out_pairs_that_show_a_scene_of_the_validation_set(run: Callable[..., Result], network: str):
    pairs_of_cats(5, 64)
    command = ["train", "--task", "deraining", "--pairs", "rainy", "truth", "--model", network, "--steps", "1", *SMALL]
    for folder in ("rainy", "truth"): shutil.copy(f"{folder}/0.png", f"{folder}/3.png") # 0 is for validation
    result = run(*command)
    assert result.exit_code == 0
    left_out = "1 pairs left out that show scenes of the validation set"
    assert f"0 photographs and 3 pairs to train on, 1 to validate on; {left_out}" in result.stdout
    for folder in ("rainy", "truth"):
        for n in range(1, 5): shutil.copy(f"{folder}/0.png", f"{folder}/{n}.png")
    shutil.rmtree("run")
    assert refused(run(*command), "nothing is left to train on: every pair shows a scene of the validation set")
    assert not Path("run").exists()


@pytest.mark.parametrize("arguments, message", [
    (["--train", "nowhere"], "nowhere: expected one with photographs"),
    (["--train", "trip/day2"], "expected at least 5"),
    (["--train", "small"], "50x50, is too small for the crop"),
    (["--pairs", "small", "small", "--depth", "small"], "--depth belongs to --train"),
    ([], "nothing to train on"), (["--train", "small", "--task", "denoising"], "no task 'denoising'"),
    (["--train", "small", "--preset", "large"], "no preset 'large'"),
    (["--train", "small", "--synthesis", "plnet"], "--synthesis belongs to --task reflection with --train"),
    (["--train", "small", "--task", "reflection", "--synthesis", "flat"],
     "no synthesis 'flat': expected one of plnet, ceilnet, mixed, wide"),
    (["--train", "small", "--critic", "paper"], "--critic belongs to --preset paper: small has no adversarial term"),
    (["--train", "small", "--preset", "paper", "--critic", "wgan"], "critic='wgan', expected one of 'hinge', 'paper'"),
    (["--train", "small", "--val", "nowhere"], "nowhere: expected one with photographs")])
def test_train_refuses(run: Callable[..., Result], arguments: list[str], message: str):
    noise_photographs("small", side=50)
    assert refused(run("train", "--task", "deraining", "-o", "run", "--vgg", "random", *arguments), message)
    assert not Path("run").exists()


def test_train_on_photographs_smaller_than_the_usual_validation(run: Callable[..., Result], network: str):
    noise_photographs("small", side=50)
    result = run("train", "--task", "deraining", "--train", "small", "--model", network, "--steps", "1", *SMALL)
    assert result.exit_code == 0, result.output
    assert json.loads(Path("run/log.json").read_text())["step"] == 1


def test_version_and_help(run: Callable[..., Result]):
    assert run("--version").stdout == f"dmgn {__version__}\n"
    assert "dmgn restore photo.jpg" in run("--help").stdout
    for command in ("restore", "demo", "evaluate", "train", "experiment", "data", "measure", "measure table3",
                    "measure steps", "measure masks", "measure switches", "measure precision", "benchmark"):
        assert f"Usage: dmgn {command}" in run(*command.split(), "--help").stdout
    assert "Usage" in run().output


@pytest.mark.parametrize("command", ["", "restore", "evaluate", "train", "data", "experiment", "measure table3"])
def test_help_does_not_load_pytorch(command: str):
    code = ("import sys; from dmgn.commands.main import app; sys.argv = ['dmgn', *sys.argv[1:], '--help']\n"
            "try: app()\nfinally: print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("Usage: dmgn") and done.stdout.endswith("[]\n"), done.stderr


def test_the_installed_command_prints_one_line_and_no_traceback(tmp_path: Path):
    program = shutil.which("dmgn", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None: pytest.skip("dmgn is not installed as a command")
    done = subprocess.run([program, "restore", "nowhere.jpg", "-o", "clean"], cwd=tmp_path, capture_output=True,
                          text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "dmgn: no photograph or folder nowhere.jpg\n")


def test_train_takes_several_folders_of_each_kind(run: Callable[..., Result]):
    for name in ("sunny", "cloudy", "streaks"): noise_photographs(name)
    pairs_of_cats(8, 64)
    command = ["train", "--task", "any", "--train", "sunny", "--train", "cloudy",
               "--train-share", "0.75", "--train-share", "0.25",
               "--pairs", "rainy", "truth", "--pairs", "truth", "truth",
               "--pair-share", "0.1", "--pair-share", "0.2"]
    rest = ["--hold-out-pairs", "3", "--streaks", "streaks", "--clean-share", "0.2", "--steps", "2", *SMALL]
    result = run(*command, *rest)
    assert result.exit_code == 0, result.output
    settings = json.loads(Path("run/data.json").read_text())
    assert len(settings["train"]) == len(settings["pairs"]) == 2 and len(settings["validation_pairs"]) == 3
    assert json.loads(Path("run/best/config.json").read_text())["task"] is None
    assert refused(run(*command, *rest, "--pair-share", "0.5", "--out", "other"), "3 of --pair-share for 2 of --pairs")
    for pairs in (["--pairs", "rainy"], ["--pairs=rainy"], ["--pairs=rainy", "truth"]):
        result = run("train", "--task", "any", *pairs, "--out", "other")
        assert result.exit_code == 2 and "--pairs needs two folders" in result.stderr


def test_restoring_imports_no_more_than_it_needs(tmp_path: Path):
    heavy = ("accelerate", "matplotlib", "onnx", "scipy", "skimage", "sympy", "torchvision")
    code = (f"import sys; from dmgn.commands.main import app; sys.argv[1:] = ['restore', 'a.png', '-o', 'clean']\n"
            f"try: app()\nfinally: print([name for name in {heavy} if name in sys.modules])")
    example("cat")[0].crop((0, 0, 32, 32)).save(tmp_path/"a.png")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path/"clean/a.png").exists(), done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_half_as_large_an_export_restores(run: Callable[..., Result], network: str):
    pytest.importorskip("onnxscript", reason="ONNX needs onnx and onnxscript")
    pytest.importorskip("onnxruntime", reason="an ONNX file needs onnxruntime")
    for name, options in (("whole.onnx", []), ("half.onnx", ["--half"])):
        assert run("export", network, "-o", name, "--size", "64", *options).exit_code == 0
    assert Path("half.onnx").stat().st_size < 0.6 * Path("whole.onnx").stat().st_size
    assert run("restore", "trip/a.png", "-o", "clean", "--model", "half.onnx").exit_code == 0
    assert files("clean") == ["a.png"]
