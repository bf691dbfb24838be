"Runs that are killed, shared between processes, out of disk space, or broken."
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import small_run
from dmgn.training import Run, load_checkpoint, make_accelerator, save_checkpoint, train, update, write_log

SCRIPT = Path(small_run.__file__)
pytestmark = pytest.mark.usefixtures("one_thread")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
if torch.accelerator.is_available(): ENVIRONMENT["ACCELERATE_USE_CPU"] = "true" # without one, nobody has to say so
else: ENVIRONMENT.pop("ACCELERATE_USE_CPU", None)


def checkpoint(folder: Path) -> dict: return torch.load(folder/"checkpoint.pt", weights_only=True)


def same(a: dict, b: dict) -> bool:
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list): return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    "No file may grow beyond a size, as if the disk were full."
    resource = pytest.importorskip("resource", reason="needs limits as POSIX has them")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_killed_and_resumed_is_the_same_bit_for_bit(tmp_path: Path):
    small_run.run(tmp_path/"whole")
    step = random.Random().randrange(1, 8)
    process = subprocess.Popen([sys.executable, SCRIPT, "train", tmp_path/"cut"], env=ENVIRONMENT)
    while process.poll() is None:
        time.sleep(0.01)
        if (tmp_path/"cut/checkpoint.pt").exists() and checkpoint(tmp_path/"cut")["progress"]["step"] >= step:
            process.kill()
    reached = checkpoint(tmp_path/"cut")["progress"]["step"]
    assert process.returncode != 0 and reached < 8, f"killed too late, after step {reached}"
    small_run.run(tmp_path/"cut", resume=True)
    whole, cut = checkpoint(tmp_path/"whole"), checkpoint(tmp_path/"cut")
    for state in (whole, cut): state["progress"].pop("seconds")
    assert whole["progress"] == cut["progress"] and whole["progress"]["step"] == 8
    for part in ("model", "average", "discriminator", "generator optimizer", "discriminator optimizer",
                 "generator schedule"):
        assert same(whole[part], cut[part]), f"{part} differs after a kill at step {reached}"


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    subprocess.run([*launch, SCRIPT, "gradients", tmp_path/"two.pt", "2"], env=ENVIRONMENT, check=True, timeout=300)
    small_run.gradients(tmp_path/"one.pt", 4)
    one, two = (torch.load(tmp_path/f"{name}.pt", weights_only=True) for name in ("one", "two"))
    assert (one.pop("processes"), two.pop("processes")) == (1, 2)
    assert one.keys() == two.keys() and len(one) > 20
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6, msg=lambda m: f"{name}: {m}")


def test_a_failed_save_leaves_the_checkpoint_before(tmp_path: Path):
    settings = small_run.config()
    run = Run(small_run.network(), settings, 8, make_accelerator(settings, tmp_path))
    save_checkpoint(run, tmp_path/"checkpoint.pt")
    before = (tmp_path/"checkpoint.pt").read_bytes()
    run.progress["step"] = 5
    with largest_file(len(before) // 2), pytest.raises(OSError, match=r"cannot write .*checkpoint.pt"):
        save_checkpoint(run, tmp_path/"checkpoint.pt")
    assert (tmp_path/"checkpoint.pt").read_bytes() == before and list(tmp_path.glob("*")) == [tmp_path/"checkpoint.pt"]
    load_checkpoint(run, tmp_path/"checkpoint.pt")
    assert run.progress["step"] == 0


def test_a_checkpoint_that_may_not_be_read_is_not_called_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = small_run.config()
    run = Run(small_run.network(), settings, 8, make_accelerator(settings, tmp_path))
    save_checkpoint(run, tmp_path/"checkpoint.pt")
    def forbidden(*_, **__): raise PermissionError(13, "Permission denied", str(tmp_path/"checkpoint.pt"))
    with monkeypatch.context() as m:
        m.setattr(torch, "load", forbidden) # root may read everything
        with pytest.raises(PermissionError, match="Permission denied"): load_checkpoint(run, tmp_path/"checkpoint.pt")
    (tmp_path/"checkpoint.pt").write_text("a text")
    with pytest.raises(ValueError, match="is not a checkpoint of a run"): load_checkpoint(run, tmp_path/"checkpoint.pt")


def test_training_without_validation_pairs_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="at least one validation pair"):
        train(small_run.network(), small_run.data(), [], tmp_path/"run", small_run.config())
    assert not (tmp_path/"run").exists()


def test_mixed_precision_and_accumulation_train(tmp_path: Path):
    model = small_run.run(tmp_path, steps=2, precision="bf16", accumulate=2, validate_every=2)
    progress = checkpoint(tmp_path)["progress"]
    assert (progress["step"], progress["samples"]) == (2, 8)
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in model.parameters())


def test_each_run_of_a_process_has_its_own_precision(tmp_path: Path):
    def precision(name: str | None) -> str: # as Accelerate has it
        return make_accelerator(small_run.config(precision=name), tmp_path).mixed_precision
    assert [precision(name) for name in ("bf16", "no", "bf16", None)] == ["bf16", "no", "bf16", "no"]


def test_a_run_keeps_the_precision_that_the_launcher_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    small_run.run(tmp_path, steps=1, validate_every=1)
    assert json.loads((tmp_path/"train.json").read_text())["precision"] == "bf16"
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    with pytest.raises(ValueError, match="is of a run with precision='bf16', not 'no'"):
        small_run.run(tmp_path, resume=True, steps=2, validate_every=1)
    small_run.run(tmp_path, resume=True, steps=2, validate_every=1, precision="bf16")
    assert checkpoint(tmp_path)["progress"]["step"] == 2


def test_a_network_is_itself_again_after_training_in_16_bits(tmp_path: Path):
    model, image = small_run.run(tmp_path, steps=1, validate_every=1, precision="bf16"), torch.rand(1, 3, 32, 32)
    alike = small_run.network().to(memory_format=torch.channels_last)  # as in training: another kernel rounds otherwise
    alike.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert torch.equal(model.eval()(image).background, alike.eval()(image).background)


def test_another_number_of_processes_is_said(tmp_path: Path, capsys: pytest.CaptureFixture):
    small_run.run(tmp_path, steps=1, validate_every=1)
    state = checkpoint(tmp_path)
    assert state["progress"]["processes"] == 1
    state["progress"]["processes"] = 4
    torch.save(state, tmp_path/"checkpoint.pt")
    small_run.run(tmp_path, resume=True, steps=2, validate_every=1)
    assert "had 4 processes and has 1 now: a step takes 2 samples, not 8" in capsys.readouterr().out


def test_a_run_that_is_longer_than_wanted_is_not_called_done(tmp_path: Path):
    small_run.run(tmp_path, steps=2, validate_every=1)
    state = checkpoint(tmp_path)
    state["progress"]["steps"] = 8
    torch.save(state, tmp_path/"checkpoint.pt")
    with pytest.raises(ValueError, match="has taken 2 steps already: expected more, not 2"):
        small_run.run(tmp_path, resume=True, steps=2, validate_every=1)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_an_infinite_gradient_stops_the_run_before_the_weights(tmp_path: Path, clip: float | None):
    settings = small_run.config(clip=clip)
    run = Run(small_run.network(), settings, 8, make_accelerator(settings, tmp_path))
    weight = next(p for p in run.networks["generator"].parameters() if p.requires_grad)
    before = weight.detach().clone()
    loss = (weight - before).abs().sqrt().sum() # is 0, and has no slope
    with pytest.raises(FloatingPointError, match="step 0: gradient of the generator is nan"):
        update(run, "generator", {"l1": loss})
    assert torch.equal(weight, before)


def test_clipping_one_network_leaves_what_the_other_accumulates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings, unscaled = small_run.config(clip=0.01, accumulate=2), []
    run = Run(small_run.network(), settings, 8, make_accelerator(settings, tmp_path))
    monkeypatch.setattr(run.accelerator, "unscale_gradients", lambda optimizer=None: unscaled.append(optimizer))
    weights = [*run.networks["discriminator"].parameters()]
    update(run, "discriminator", {"discriminator": sum(weight.square().sum() for weight in weights)})
    assert unscaled == [run.optimizers["discriminator"]]


def test_log_is_json_before_the_first_validation(tmp_path: Path):
    settings = small_run.config()
    write_log(Run(small_run.network(), settings, 8, make_accelerator(settings, tmp_path)), tmp_path)
    def forbidden(word: str): raise ValueError(word)
    assert json.loads((tmp_path/"log.json").read_text(), parse_constant=forbidden)["best"] is None
