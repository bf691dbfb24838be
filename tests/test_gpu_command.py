"Everything that waits for a GPU, on a CPU at tiny sizes: resumed, cut off, and told what is wrong."
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmgn.experiments import gpu
from dmgn.training import TrainConfig
from test_training import ENVIRONMENT, free_port

QUICK = ("table3", "restoring")
GOLDEN, TABLE3 = gpu.PIECES[1:3]
RESTORING = gpu.PIECES[-1]


def command(out: Path, *options: str) -> subprocess.CompletedProcess:
    "Call the command as a user would."
    arguments = [sys.executable, "-m", "dmgn.experiments.gpu", "--device", "cpu", "--out", str(out), *options]
    return subprocess.run(arguments, capture_output=True, text=True, env=gpu.alone())


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def rows(name: str, out: Path) -> list[dict]:
    return gpu.read_piece(name, out)["rows"]


def test_the_command_measures_a_piece_once(tmp_path: Path):
    assert command(tmp_path, "--piece", "golden", "--minutes", "0.5").returncode == 0
    found = rows("golden", tmp_path)
    assert found[0]["precision"] == "fp32" and found[0]["within"] and found[0]["largest"] < 1e-5
    gpu.run_piece(GOLDEN, tmp_path, "cpu", 60)
    assert rows("golden", tmp_path)[:len(found)] == found
    assert 1e-5 < rows("golden", tmp_path)[1]["largest"] < 0.1 # bf16
    assert gpu.progress_of(GOLDEN, tmp_path, "cpu") == "golden: 2 of 2 done"


def said_of(out: Path) -> list[str]:
    "What the command should say about each piece and each training."
    pieces = [gpu.progress_of(piece, out, "cpu") for piece in gpu.PIECES]
    return pieces + [gpu.progress_of_training(task, out) for task in ("reflection", "deraining")]


def test_the_whole_command_goes_on_where_it_stopped(tmp_path: Path):
    found = []
    for minutes in ("0.15", "0.4"): # the first is not enough for all, neither for a notebook
        done = command(tmp_path, "--minutes", minutes)
        assert done.returncode == 0, done.stderr
        *lines, last = done.stdout.splitlines()
        assert lines == said_of(tmp_path) and last.endswith("the same command goes on with what is left")
        assert lines[0] == "notebooks: 0 of 1 done; next time: nbs/experiments/01_train_full.ipynb and so on"
        assert "failed" not in done.stdout
        found.append({piece.name: rows(piece.name, tmp_path) for piece in gpu.PIECES})
    first, second = found
    assert all(second[name][:len(done)] == done for name, done in first.items())
    assert sum(map(len, second.values())) > sum(map(len, first.values()))


def test_when_the_time_is_up_nothing_is_begun(tmp_path: Path):
    done = command(tmp_path, "--minutes", "0")
    assert done.returncode == 0 and done.stdout.splitlines()[:-1] == said_of(tmp_path), done.stderr
    assert not list(tmp_path.iterdir())
    assert done.stdout.count("next time") == len(gpu.PIECES) and done.stdout.count("not begun") == 2


def test_an_unknown_piece_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no piece 'silver': expected one of notebooks, golden, table3"):
        gpu.run_alone("silver", tmp_path, "cpu", 1)


def test_pieces_are_done_in_parts_and_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []
    def measured(form: str, **job: object) -> dict:
        calls.append(form)
        if len(calls) == 3: raise KeyboardInterrupt
        return {"seconds": 1.0}
    piece = TABLE3._replace(measure=measured)
    with pytest.raises(KeyboardInterrupt): gpu.run_piece(piece, tmp_path, "cpu", 60)
    assert len(rows("table3", tmp_path)) == 2
    gpu.run_piece(piece, tmp_path, "cpu", 60)
    assert len(rows("table3", tmp_path)) == len(piece.jobs("cpu")) == len(calls) - 1
    assert [path.name for path in tmp_path.iterdir()] == ["table3.json"]


def test_what_fails_is_written_down_and_what_had_no_time_is_left(tmp_path: Path):
    def hopeless(number: int, **_: object) -> dict:
        if number == 1: raise subprocess.TimeoutExpired("a notebook", 1)
        raise RuntimeError("CUDA out of memory\nand more")
    piece = gpu.Piece("numbers", 1.0, lambda device: [{"number": n} for n in range(2)], hopeless)
    gpu.run_piece(piece, tmp_path, "cpu", 60)
    assert rows("numbers", tmp_path) == [{"number": 0, "left_out": "RuntimeError: CUDA out of memory and more"}]
    line = gpu.progress_of(piece, tmp_path, "cpu")
    failed = "1 failed, the first: 0 RuntimeError: CUDA out of memory and more"
    assert line == f"numbers: 1 of 2 done, {failed}; next time: 1 and so on"


def test_results_of_another_machine_are_not_added_to(tmp_path: Path):
    gpu.write_piece({"piece": "table3", "rows": [], "environment": {"device": "a large card"}}, tmp_path)
    with pytest.raises(ValueError, match="holds results of a large card, not cpu"):
        gpu.run_piece(TABLE3, tmp_path, "cpu", 1)
    gpu.write_piece({"piece": "train_reflection", "rows": [], "environment": {"device": "a large card"}}, tmp_path)
    before = (tmp_path/"train_reflection.json").read_bytes()
    with pytest.raises(ValueError, match="holds results of a large card, not cpu: choose another --out"):
        gpu.train_for(9, "reflection", tmp_path, "cpu")
    assert (tmp_path/"train_reflection.json").read_bytes() == before and not (tmp_path/"runs").exists()


def test_only_notebooks_with_a_cell_for_a_gpu_are_run():
    names = [job["notebook"] for job in gpu.marked_notebooks("cuda")]
    assert "nbs/19_training.ipynb" in names and "nbs/experiments/15_gpu.ipynb" not in names


@pytest.mark.parametrize("name", QUICK)
def test_everything_quick_is_measured(name: str, tmp_path: Path):
    gpu.run_alone(name, tmp_path, "cpu", 60)
    piece = next(piece for piece in gpu.PIECES if piece.name == name)
    found = rows(name, tmp_path)
    assert len(found) == len(piece.jobs("cpu")) and not [row for row in found if "left_out" in row]
    assert all(row["seconds"] > 0 for row in found)


def test_a_picture_restored_many_times_stays_beside_a_folder(tmp_path: Path):
    before = {"network": "small-deraining", "precision": "fp32", "width": 96, "height": 64, "pictures": 2, "seconds": 1}
    gpu.write_piece({"piece": "restoring", "rows": [before], "environment": gpu.environment("cpu")}, tmp_path)
    assert gpu.progress_of(RESTORING, tmp_path, "cpu").startswith("restoring: 0 of 1 done; next time: ")
    gpu.run_piece(RESTORING, tmp_path, "cpu", 60)
    first, row = rows("restoring", tmp_path)
    assert first == before and row["pictures_a_second"] == pytest.approx(2 / row["seconds"])
    assert row["megapixels_a_second"] == pytest.approx(2 * 96 * 64 / 1e6 / row["seconds"])
    table = gpu.gpu_table(gpu.read_piece("restoring", tmp_path), ["pictures", "in_folder"])
    assert [cells[:2] for cells in table.rows] == [["2", "-"], ["-", "2"]]


def test_a_gpu_has_more_to_do():
    jobs = {piece.name: piece.jobs("cuda") for piece in gpu.PIECES}
    assert {job["side"] for job in jobs["table3"]} >= {128, 256, 512, 1024, 2048}
    assert {job["batch"] for job in jobs["table3"]} == {1, 8}
    assert {job["form"] for job in jobs["table3"]} == {"plain", "factorised", "compiled", "graphs"}
    assert {(job["preset"], job["precision"]) for job in jobs["steps"]} == {
        (preset, precision) for preset in ("small", "base", "paper") for precision in ("no", "bf16", "fp16")}
    assert {"fp32", "bf16", "fp16"} < {job["precision"] for job in jobs["golden"]}
    assert "nbs/experiments/04_table3_complexity.ipynb" in [job["notebook"] for job in jobs["notebooks"]]


@pytest.fixture
def long(on_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    "A training that nobody waits for."
    monkeypatch.setattr(gpu, "training_config", lambda *asked: TrainConfig.small(
        100_000, batch=1, workers=0, tracker=None))


def test_training_stops_when_the_time_is_up_and_goes_on(tmp_path: Path, long: None):
    steps = []
    for _ in range(2):
        gpu.train_for(2, "reflection", tmp_path, "cpu")
        [row] = rows("train_reflection", tmp_path)
        steps.append(row["step"])
    assert 0 < steps[0] < steps[1] < row["steps"] == 100_000 and row["vgg"] == "random"
    assert gpu.progress_of_training("reflection", tmp_path).startswith(f"train_reflection: step {steps[1]} of 100000")
    assert gpu.progress_of_training("deraining", tmp_path) == "train_deraining: not begun"


def test_a_signal_from_elsewhere_ends_more_than_one_training(tmp_path: Path, long: None):
    threading.Timer(4, signal.raise_signal, [signal.SIGTERM]).start()
    with pytest.raises(SystemExit): gpu.train_for(60, "reflection", tmp_path, "cpu")
    [row] = rows("train_reflection", tmp_path)
    assert 0 < row["step"] < 100_000 and (tmp_path/"runs/reflection/checkpoint.pt").exists()


def test_a_training_goes_on_with_its_own_vgg_and_its_own_samples(tmp_path: Path, long: None):
    gpu.train_for(2, "reflection", tmp_path, "cpu")
    path = tmp_path/"train_reflection.json"
    begun = json.loads(path.read_text())
    for changed in ({"vgg": "0" * 64}, {"epoch": 7}):
        path.write_text(json.dumps(begun | {"rows": [begun["rows"][0] | changed]}))
        with pytest.raises(ValueError, match=r"is of a run with .*: choose another --out"):
            gpu.train_for(2, "reflection", tmp_path, "cpu")


def test_a_shorter_training_does_not_replace_a_longer_one(tmp_path: Path, long: None):
    gpu.train_for(2, "reflection", tmp_path, "cpu")
    path = tmp_path/"train_reflection.json"
    record = json.loads(path.read_text())
    record["rows"][0]["step"] = 90_000
    path.write_text(json.dumps(record))
    shutil.rmtree(tmp_path/"runs") # it was trained elsewhere
    gpu.train_for(2, "reflection", tmp_path, "cpu")
    assert json.loads(path.read_text()) == record


def test_a_piece_that_hangs_is_ended(capfd: pytest.CaptureFixture):
    gpu.measure_in_time([sys.executable, "-c", "import time; time.sleep(60)"], "steps", 1)
    gpu.measure_in_time([sys.executable, "-c", "import sys; sys.exit(3)"], "golden", 60)
    assert capfd.readouterr().out == "steps: ended, as it hung\ngolden: its process ended with 3\n"


def test_results_of_another_place_are_left_alone_from_the_start(tmp_path: Path):
    (tmp_path/"steps.json").write_text(json.dumps({"piece": "steps", "rows": [], "environment": {"device": "a card"}}))
    done = command(tmp_path, "--minutes", "0.5")
    assert done.returncode == 1 and "holds results of a card, not cpu: choose another --out" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["steps.json"] and not done.stdout


def test_several_processes_train_together_after_one_has_measured(tmp_path: Path):
    script = tmp_path/"command.py" # with one piece, for it is one process that measures, as ever
    script.write_text("from dmgn.experiments import gpu\ngpu.PIECES = gpu.PIECES[-1:]\n"
                      "if __name__ == '__main__': gpu.main()\n")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
              "--main_process_port", str(free_port())] # with its --cpu there would be one process, or MPI
    done = subprocess.run([*launch, script, "--device", "cpu", "--minutes", "5", "--out", tmp_path/"out"], timeout=600,
                          env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("restoring: 1 of 1 done") == len(rows("restoring", tmp_path/"out")) == 1
    assert done.stdout.count("the same command goes on with what is left") == 1
    for task in ("reflection", "deraining"):
        [row] = rows(f"train_{task}", tmp_path/"out")
        assert row["step"] == 4 and row["processes"] == 2 and row["samples"] == 8
        assert done.stdout.count(f"train_{task}: step 4 of 4") == 1


def test_data_are_found_under_the_names_of_the_experiments(tmp_path: Path):
    def picture(name: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), len(name), np.uint8)).save(path)
    for name in ("bsds_train/a.png", "bsds_train/b.png", "plnet_real/blended/1.png", "rain_heavy_train/rain/2.png",
                 "plnet_real/transmission_layer/1.png", "rain_heavy_train/norain/2.png"): picture(name)
    assert [path.name for path in gpu.clean_photographs(tmp_path)] == ["a.png", "b.png"]
    assert [a.parent.name for a, _ in gpu.real_pairs("reflection", tmp_path)] == ["blended"]
    assert [a.parent.name for a, _ in gpu.real_pairs("deraining", tmp_path)] == ["rain"]
    assert gpu.real_pairs("deraining", None) == [] and len(gpu.clean_photographs(None)) == 3


def test_a_notebook_is_run_or_left_for_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(subprocess.TimeoutExpired): gpu.run_notebook("nbs/x.ipynb", "cpu", 3)
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    assert gpu.lacks_notebooks() == "needs nbdev: pip install dmgn[dev]"


def test_processes_of_a_group_are_not_inherited(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.setenv(name, "1")
    assert set(os.environ) - set(gpu.alone()) >= {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"}


def test_tables_say_what_is_missing():
    assert gpu.gpu_table({"piece": "steps", "rows": []}, ["seconds"]).rows == [[gpu.COMMAND]]
    record = {"piece": "steps", "environment": {"device": "a card"}, "date": "2026-11-26",
              "rows": [{"preset": "paper", "seconds": 0.123456}, {"preset": "base", "left_out": "no memory"}]}
    table = gpu.gpu_table(json.loads(json.dumps(record)), ["preset", "seconds"])
    assert table.rows == [["paper", "0.123", ""], ["base", "-", "no memory"]]
    assert table.header == ["preset", "seconds", "on a card, 2026-11-26"]
