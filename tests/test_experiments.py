"Experiments that are interrupted, changed, broken, and run by two at once."
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
import torch
from typer.testing import CliRunner, Result

import small_experiment
from dmgn.commands.main import app
from dmgn.experiments import run as experiments
from dmgn.experiments.definitions import Variant
from dmgn.experiments.definitions import experiment as defined
from dmgn.experiments.results import add_result, read_results
from dmgn.experiments.run import dry_run, run_experiment
from dmgn.files import EXAMPLES
from small_experiment import NETWORK, TRAINING, experiment, variants
from test_training import ENVIRONMENT, free_port, largest_file

pytestmark = pytest.mark.usefixtures("one_thread")
SCRIPT = Path(small_experiment.__file__)
KEYS = [(variant, test_set) for variant in ("input", "Base", "DMGN") for test_set in ("real20_300", "test-split")]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with data, and a finished experiment in runs."
    folder = tmp_path_factory.mktemp("experiment")
    small_experiment.make_data(folder/"data")
    torch.set_num_threads(1)
    run(folder)
    return folder


@pytest.fixture
def finished(original: Path, tmp_path: Path) -> Path:
    "A copy of it to spoil."
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def fresh(original: Path, tmp_path: Path) -> Path:
    "The data alone."
    shutil.copytree(original/"data", tmp_path/"data")
    return tmp_path


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    "Fail where something is trained."
    monkeypatch.setattr(experiments, "train", lambda *_, **__: pytest.fail("a network was trained"))


def run(folder: Path, rows: tuple[Variant, ...] = (), **options) -> list[dict]:
    return run_experiment(experiment(*rows), folder/"runs", folder/"data", vgg="random", **options)


def keys(records: list[dict]) -> list[tuple[str, str]]: return [(r["variant"], r["test_set"]) for r in records]


def results(folder: Path) -> Path: return folder/"runs/mini_small.jsonl"


def refused(call: Callable[[], object], message: str) -> bool:
    "Whether a call raises one line."
    with pytest.raises((ValueError, OSError), match=message) as found: call()
    return len(str(found.value).splitlines()) == 1


def test_a_result_says_what_it_depends_on(original: Path):
    records = read_results(results(original))
    assert keys(records) == KEYS
    given, network = records[0], records[4]
    assert given["network"] is given["training"] is given["weights"] is given["steps"] is None
    assert given["psnr"] == pytest.approx(given["psnr"])
    assert (network["steps"], network["training"]["seed"], network["network"]["width"], network["vgg"],
            network["pictures"]) == (3, 0, 4, "random", 1)
    weights = original/"runs/mini_small/dmgn-0/best/model.safetensors"
    assert network["weights"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert set(network["data"]) == {"clean", "real20_300"} and set(records[5]["data"]) == {"clean"}
    assert network["protocol"] == "rgb-per-channel" and 0 < network["ssim"] < 1 and "lmse" in network
    assert {"torch", "torchvision", "dmgn", "python", "processor", "threads", "device"} <= set(network["versions"])
    assert network["parameters"] > records[2]["parameters"]


def test_what_is_there_is_left_alone(finished: Path, no_training: None):
    before = {path: path.read_bytes() for path in (finished/"runs").rglob("*") if path.is_file()}
    assert keys(run(finished)) == KEYS
    assert before == {path: path.read_bytes() for path in (finished/"runs").rglob("*") if path.is_file()}


def test_a_lost_result_is_measured_again_with_the_weights_that_are_there(finished: Path, no_training: None):
    lines = results(finished).read_text().splitlines(keepends=True)
    results(finished).write_text("".join(lines[:3] + lines[4:]))
    again = json.loads(lines[3])
    assert {**run(finished)[-1], "date": ""} == {**again, "date": ""}


def test_killed_and_continued_gives_the_results_of_a_run_left_alone(fresh: Path):
    command = [sys.executable, SCRIPT, fresh/"data", fresh/"runs", "6"]
    checkpoint = fresh/"runs/mini_small/base-0/checkpoint.pt"
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        time.sleep(0.005)
        if checkpoint.exists(): process.kill()
    assert process.returncode == -9 and keys(read_results(results(fresh))) == KEYS[:2]
    reached = torch.load(checkpoint, weights_only=True)["progress"]["step"]
    assert 0 < reached < 6, f"killed at step {reached}"
    rows = variants(steps=6)[:2]
    cut = run(fresh, rows)
    assert keys(cut) == KEYS[:4]
    whole = run_experiment(experiment(*rows), fresh/"whole", fresh/"data", vgg="random")
    def numbers(records: list[dict]) -> list[tuple]:
        return [(r["psnr"], r["ssim"], r["weights"], r["steps"]) for r in records]
    assert numbers(cut) == numbers(whole)


def test_interrupted_between_two_results_keeps_the_first_and_doubles_none(
        finished: Path, monkeypatch: pytest.MonkeyPatch, no_training: None):
    lines, evaluate_method = results(finished).read_text().splitlines(keepends=True), experiments.evaluate_method
    results(finished).write_text("".join(lines[:4]))
    def interrupted(predict, test_set, *rest):
        if test_set == "test-split": raise KeyboardInterrupt
        return evaluate_method(predict, test_set, *rest)
    monkeypatch.setattr(experiments, "evaluate_method", interrupted)
    with pytest.raises(KeyboardInterrupt): run(finished)
    assert keys(read_results(results(finished))) == KEYS[:5]
    monkeypatch.setattr(experiments, "evaluate_method", evaluate_method)
    assert keys(run(finished)) == KEYS


def test_all_variants_learn_from_the_same_samples_and_another_seed_from_others(
        fresh: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    def keep(network, samples, *_, **__):
        seen.append(samples[5][0])
        raise KeyboardInterrupt
    monkeypatch.setattr(experiments, "train", keep)
    for row in (*variants()[1:], replace(variants()[2], seeds=(1,))):
        with pytest.raises(KeyboardInterrupt): run(fresh, (row,))
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_a_broken_line_is_named_before_anything_is_trained(finished: Path, no_training: None):
    text = results(finished).read_text()
    results(finished).write_text(text[:-40])
    assert refused(lambda: run(finished), "mini_small.jsonl: line 6 is broken, delete it")
    add_result(results(finished), {"variant": "another"})
    assert len(results(finished).read_text().splitlines()) == 7
    assert refused(lambda: dry_run(experiment(), finished/"runs", finished/"data", "random"), "line 6 is broken")


@pytest.mark.parametrize("change, message",
                         [(dict(steps=4), "training.steps=3, not 4"),
                          (dict(learning_rate=1e-3), "training.learning_rate=0.002, not 0.001")])
def test_another_training_under_the_same_name_is_refused(finished: Path, no_training: None, change: dict, message: str):
    assert refused(lambda: run(finished, variants(**change)),
                   f"result of Base, seed 0, on real20_300 is of a run with {message}: choose another --out")
    results(finished).unlink()
    assert refused(lambda: run(finished, variants(**change)), f"mini_small/base-0 is of a run with {message}")


def small_vgg(folder: Path) -> Path:
    "A file for --vgg; only its bytes matter here"
    (folder/"vgg.safetensors").write_bytes(b"weights")
    return folder/"vgg.safetensors"


def test_another_network_vgg_or_other_photographs_under_the_same_name_are_refused(finished: Path, no_training: None):
    rows = (Variant("DMGN", replace(NETWORK, decay=0.25), TRAINING),)
    assert refused(lambda: run(finished, rows), "network.decay=0.5, not 0.25")
    # a result that is there, of another VGG
    for vgg, before in ((None, "torchvision"), (small_vgg(finished), "[0-9a-f]{64}")):
        assert refused(lambda: run_experiment(experiment(), finished/"runs", finished/"data", vgg=vgg),
                       f"vgg='random', not '{before}'")
    small_experiment.picture(77, 224).save(finished/"data/clean/0.png")
    assert refused(lambda: run(finished), "data.clean='[0-9a-f]{64}', not '[0-9a-f]{64}'")


def test_another_test_set_under_the_same_name_is_refused(finished: Path, no_training: None):
    small_experiment.picture(77, 48).save(finished/"data/real20_300/blended/3.png")
    assert refused(lambda: run(finished), "result of input, seed 0, on real20_300 is of a run with data.real20_300=")


def test_what_may_change_may_change(finished: Path, no_training: None):
    assert keys(run(finished, variants(save_minutes=9, workers=1))) == KEYS


def test_missing_data_are_one_line_before_anything_is_written(fresh: Path):
    assert refused(lambda: run_experiment(experiment(), fresh/"runs", fresh/"nowhere"),
                   "no folder .*nowhere: expected the folder that holds all data sets")
    shutil.rmtree(fresh/"data/clean")
    assert refused(lambda: run(fresh), "data/clean")
    shutil.rmtree(fresh/"data/real20_300")
    assert refused(lambda: run(fresh), "no folder real20_300 in .*: expected one with blended/ID.png")
    assert not (fresh/"runs").exists()


def test_an_absent_network_is_said_and_the_others_are_tested(fresh: Path):
    rows = (Variant("small-desnowing", method="small-desnowing"), Variant("input", method="input"))
    assert refused(lambda: run(fresh, rows),
                   r"mini: left out small-desnowing \(no network small-desnowing comes with this package")
    assert keys(read_results(results(fresh))) == KEYS[:2]


def test_a_dry_run_says_what_is_done_and_what_is_left_and_writes_nothing(finished: Path):
    shutil.rmtree(finished/"runs/mini_small/dmgn-0")
    lines = results(finished).read_text().splitlines(keepends=True)
    results(finished).write_text("".join(lines[:3]))
    log = finished/"runs/mini_small/base-0/log.json"
    log.write_text(json.dumps(json.loads(log.read_text()) | {"step": 2, "seconds": 600.0}))
    before = sorted((finished/"runs").rglob("*"))
    said = dry_run(experiment(), finished/"runs", finished/"data", "random")
    assert sorted((finished/"runs").rglob("*")) == before
    assert said[1].endswith("done") and "after 2 of 3, then test-split: 5 min at 300 s a step, logged" in said[2]
    assert "3 steps of training, then real20_300 and test-split: 0 min at " in said[3]
    assert said[3].endswith("s a step, measured")
    assert said[4].startswith("in all 5 min of training on ")


def test_two_writers_at_once_lose_nothing(tmp_path: Path):
    def write(writer: int) -> None:
        for n in range(50): add_result(tmp_path/"results.jsonl", {"writer": writer, "n": n, "text": "x" * 5000})
    threads = [Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    records = read_results(tmp_path/"results.jsonl")
    assert sorted((r["writer"], r["n"]) for r in records) == [(writer, n) for writer in range(4) for n in range(50)]


def test_a_full_disk_leaves_the_results_before(tmp_path: Path):
    path = tmp_path/"results.jsonl"
    add_result(path, {"n": 0})
    before = path.read_bytes()
    with largest_file(len(before) + 100):
        assert refused(lambda: add_result(path, {"text": "x" * 1000}), "cannot write .*results.jsonl: is the disk full")
    assert path.read_bytes() == before


def test_of_two_processes_one_evaluates_and_writes(fresh: Path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    done = subprocess.run([*launch, SCRIPT, fresh/"data", fresh/"runs", "2"], env=ENVIRONMENT, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    records = read_results(results(fresh))
    assert keys(records) == KEYS and {r["steps"] for r in records[2:]} == {2}
    assert done.stdout.count("2 steps of training") == 2


def dmgn(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["experiment", *map(str, arguments)], prog_name="dmgn")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("arguments, message", [
    (["table9"], "no experiment 'table9': expected one of table1-rain, table1-reflection, table2"),
    (["table5", "--scale", "huge"], "no scale 'huge': expected one of small, paper"),
    (["table5", "--only", "YW19"], "table5 has no variant 'YW19': expected one of input, small-deraining"),
    (["table5", "--device", "abacus"], "cannot run on 'abacus'"),
    (["table1-rain", "--dry-run"], "bsds_train"), (["table5", "--scale", "paper"], "no folder rain100H in ")])
def test_the_command_says_in_one_line_what_cannot_be_done(original: Path, tmp_path: Path, arguments: list[str],
                                                          message: str):
    result = dmgn(*arguments, "--data", original/"data", "--out", tmp_path/"runs")
    assert result.exit_code == 1 and message in result.stderr, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path/"runs").exists()


def test_the_command_prints_the_table_from_the_results(original: Path, tmp_path: Path):
    result = dmgn("table5", "--data", original/"data", "--out", tmp_path/"runs", "--only", "input")
    records = [json.loads(line) for line in (tmp_path/"runs/table5_small.jsonl").read_text().splitlines()]
    assert result.exit_code == 0 and [record["test_set"] for record in records] == ["rain100L", "gt_rain_dev"]
    assert all(f"{record['psnr']:.2f}" in result.stdout for record in records)
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("small-deraining")]
    assert rows == [["small-deraining", "-", "-", "-", "-"]]


def test_the_module_is_the_command_for_accelerate_launch(original: Path, tmp_path: Path):
    command = [sys.executable, "-m", "dmgn", "experiment", "table5", "--data", original/"data", "--out", tmp_path,
               "--only", "input", "--dry-run"]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and "to be tested on rain100L" in done.stdout, done.stderr


def test_a_test_set_that_can_be_fetched_is_measured_where_it_was(tmp_path: Path):
    (tmp_path / "rain100L").mkdir()
    assert experiments.tests_of(defined("table5"), tmp_path) == ("rain100L", "gt_rain_dev")
    for folder in ("input", "target"): (tmp_path / "rain100H" / folder).mkdir(parents=True)
    assert experiments.tests_of(defined("table5"), tmp_path) == ("rain100L", "gt_rain_dev", "rain100H")


def test_results_that_others_saved_are_a_row_or_the_reason_why_not(tmp_path: Path):
    small_experiment.make_data(tmp_path)
    row = replace(defined("table2"), variants=(Variant("RAGNet", method="RAGNet"),))
    assert "no folder" in "\n".join(dry_run(row, tmp_path / "out", tmp_path))
    shutil.copytree(tmp_path / "real20_300/transmission_layer", tmp_path / "outputs/real20_300_RAGNet")
    (record,) = run_experiment(row, tmp_path / "out", tmp_path)
    assert record["each"]["ssim"] == [1] and "outputs/real20_300_RAGNet" in record["data"]
    (picture,) = (tmp_path / "outputs/real20_300_RAGNet").iterdir()
    picture.write_bytes(picture.read_bytes() + b"x")
    with pytest.raises(ValueError, match="the result of RAGNet, seed 0, on real20_300 is of a run with data"):
        run_experiment(row, tmp_path / "out", tmp_path)


def test_a_test_set_that_was_fetched_is_measured_once(tmp_path: Path):
    small_experiment.make_data(tmp_path)
    table = replace(defined("table5"), variants=(Variant("input", method="input"),), test_sets=("real20_300",),
                    if_there=("rain100H",))
    for folder in ("input", "target"):
        (tmp_path / "rain100H" / folder).mkdir(parents=True)
        shutil.copy(EXAMPLES / "cat.png", tmp_path / "rain100H" / folder / "1.png")
    for _ in range(2): run_experiment(table, tmp_path / "out", tmp_path)
    assert [test_set for _, test_set in keys(read_results(tmp_path / "out/table5_small.jsonl"))] == [
        "real20_300", "rain100H"]
