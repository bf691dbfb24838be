"""Nothing lost, nothing misread: a test a fault.

`pytest -k r05` runs those of fault 5; l: the sweep of small ones; f: features."""

import hashlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image, features
from typer.testing import CliRunner, Result

import dmgn
import small_run
from dmgn.commands.main import app
from dmgn.config import DMGNConfig
from dmgn.data import size_of
from dmgn.experiments.preferences import read_votes
from dmgn.experiments.results import add_result, over_seeds, read_results
from dmgn.fetching import fetch
from dmgn.files import PRETRAINED, read_rgb, written_whole
from dmgn.images import to_tensor
from dmgn.metrics import Score
from dmgn.model import DMGN
from dmgn.network_files import bundled
from dmgn.released import read_state
from dmgn.report import Table, write_csv
from dmgn.restore import load_network, read_photograph, restore, restore_file, save_like
from dmgn.training import train
from mutations import (
    EPS,
    HEIC,
    change_config,
    change_header,
    change_tensors,
    deep_colour_png,
    encoded,
    photograph,
    pixels,
    png_of_size,
    raw_file,
    same_weights,
    transparent_bmp,
    with_iptc,
)

pytestmark = pytest.mark.usefixtures("one_thread")
TRAIN = (
    "--steps",
    "2",
    "--batch",
    "1",
    "--crop",
    "16",
    "--validate-every",
    "2",
    "--save-minutes",
    "0",
    "--workers",
    "0",
    "--tracker",
    "none",
)


@pytest.fixture(scope="module")
def network() -> DMGN:
    "The smallest that has every part, for any task"
    return small_run.network().eval()


@pytest.fixture
def folder(network: DMGN, tmp_path: Path) -> Path:
    "Its folder"
    network.save_pretrained(tmp_path / "network")
    return tmp_path / "network"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    '`run("restore", ...)` in a folder of its own; checks that there is no traceback'
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, charset: str = "utf-8") -> Result:
        result = CliRunner(charset=charset).invoke(app, list(map(str, arguments)), prog_name="dmgn")
        assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
        return result

    return call


@pytest.fixture
def trip(tmp_path: Path) -> Path:
    "A folder with two photographs"
    (tmp_path / "trip").mkdir()
    for n in range(2):
        photograph(n).save(tmp_path / f"trip/{n}.png")
    return tmp_path / "trip"


@pytest.fixture
def sunny(tmp_path: Path) -> Path:
    "A folder with six photographs to train on"
    (tmp_path / "sunny").mkdir()
    for n in range(6):
        photograph(n, 40, 48).save(tmp_path / f"sunny/{n}.png")
    return tmp_path / "sunny"


@pytest.fixture
def trainable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[str, ...]:
    "Options of a training that takes a second"
    model = tmp_path / "start"
    small_run.network().save_pretrained(model)
    return ("train", "--task", "deraining", *TRAIN, "--model", str(model))


def refused(result: Result, *words: str) -> bool:
    "Whether a command ended with one line on standard error that has these words"
    lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith("note: ")]
    assert all(word in result.stderr for word in words), result.output
    return result.exit_code == 1 and len(lines) == 1


def one_line(error: pytest.ExceptionInfo) -> bool:
    return "\n" not in str(error.value) and 10 < len(str(error.value)) < 500


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_whole(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
    return True


# 1. Loading is strict


def not_finite(state: dict, name: str) -> dict:
    return state | {name: torch.full_like(state[name], torch.nan)}


FIRST = "refining.to_image.2.weight"
FAULTS = {
    "missing": (lambda state: {k: v for k, v in state.items() if k != FIRST}, FIRST),
    "unexpected": (lambda state: state | {"one.more": torch.zeros(1)}, "one.more"),
    "shape": (lambda state: state | {FIRST: state[FIRST][:, :1]}, FIRST),
    "not_finite": (lambda state: not_finite(state, FIRST), FIRST),
    "half": (lambda state: state | {FIRST: state[FIRST].half()}, FIRST),
    "integer": (lambda state: state | {FIRST: state[FIRST].int()}, FIRST),
    "renamed": (
        lambda state: {k.replace("refining.to_image", "refining.image"): v for k, v in state.items()},
        "refining",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_r01_weights_that_do_not_fit_are_refused_and_the_first_tensor_is_named(folder: Path, fault: str):
    change, name = FAULTS[fault]
    change_tensors(folder, change)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")) as error:
        DMGN.from_pretrained(folder)
    assert one_line(error)


def test_r01_missing_weights_of_a_bundled_network_are_refused_on_the_command_line(
    run: Callable[..., Result], trip: Path, tmp_path: Path
):
    shutil.copytree(PRETRAINED / "small-deraining", tmp_path / "copy")
    change_tensors(tmp_path / "copy", lambda state: {k: v for k, v in state.items() if not k.startswith("background.")})
    assert refused(run("restore", trip, "-o", "out", "--model", tmp_path / "copy"), "background.")
    assert not (tmp_path / "out").exists()


def test_r01_a_checksum_is_written_beside_the_weights(folder: Path):
    words = (folder / "model.safetensors.sha256").read_text().split()
    assert words == [digest(folder / "model.safetensors"), "model.safetensors"]


@pytest.mark.filterwarnings("error")
def test_r01_a_network_with_its_checksum_is_loaded_as_it_was(folder: Path, network: DMGN):
    assert (folder / "model.safetensors.sha256").exists() and same_weights(DMGN.from_pretrained(folder), network)


def test_r01_a_dot_is_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small_run.network().save_pretrained(tmp_path / "run" / "best")
    monkeypatch.chdir(tmp_path / "run" / "best")
    for name in (".", ".."): assert DMGN.from_pretrained(name).config.width == 4


def test_r01_one_flipped_bit_is_refused(folder: Path):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="SHA-256") as error:
        DMGN.from_pretrained(folder)
    assert one_line(error)


def test_r01_a_checksum_that_is_none_is_refused(folder: Path):
    (folder / "model.safetensors.sha256").write_text("a text\n")
    with pytest.raises(ValueError, match="SHA-256"):
        DMGN.from_pretrained(folder)


def test_r01_a_folder_without_a_checksum_is_loaded_with_a_note(
    folder: Path, network: DMGN, run: Callable[..., Result], trip: Path
):
    (folder / "model.safetensors.sha256").unlink(missing_ok=True)
    with pytest.warns(UserWarning, match="SHA-256"):
        assert same_weights(DMGN.from_pretrained(folder), network)
    result = run("restore", trip, "-o", "out", "--model", folder)
    assert (
        result.exit_code == 0 and len([line for line in result.stderr.splitlines() if line.startswith("note: ")]) == 1
    )


def test_r01_the_bundled_networks_have_their_checksums():
    for name in bundled():
        assert (PRETRAINED / name / "model.safetensors.sha256").read_text().split()[0] == digest(
            PRETRAINED / name / "model.safetensors"
        )


# 2. A disk that is full


def in_a_child(what: Callable[[], str], seconds: float = 20) -> str:
    'What a function answers in a process of its own; "hangs" if it does not end'
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(what()))
    child.start()
    child.join(seconds)
    if not child.is_alive():
        return "dies" if answers.empty() else answers.get()
    child.kill()
    child.join()
    return "hangs"


KINDS = {
    "JPEG": "jpg",
    "PNG": "png",
    "TIFF": "tif",
    "BMP": "bmp",
    "PPM": "ppm",
    "WEBP": "webp",
    "TGA": "tga",
    "JPEG2000": "jp2",
    "AVIF": "avif",
}


@pytest.mark.parametrize("kind", KINDS)
def test_r02_a_photograph_that_finds_no_room_raises_and_leaves_nothing(kind: str, tmp_path: Path):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8))
    noisy.format, target = kind, tmp_path / f"out/a.{KINDS[kind]}"
    save_like(noisy, noisy, target)
    whole = target.read_bytes()

    def try_with(room: int) -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # no file may grow beyond: like a full disk
        try:
            save_like(noisy, noisy, target)
        except OSError:
            return "raises"
        return "counts as written"

    for room in (len(whole) // 4, len(whole) // 2, len(whole) - 1):
        assert in_a_child(lambda: try_with(room), 10) == "raises", f"{kind} with room for {room} of {len(whole)} bytes"
        assert target.read_bytes() == whole and list(target.parent.iterdir()) == [target]


def test_r02_a_photograph_is_encoded_before_its_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    image, seen, save = photograph(), [], Image.Image.save
    image.format = "JPEG"

    def look(self, target, *args, **kwargs):
        seen.append(type(target))
        return save(self, target, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", look)
    save_like(image, image, tmp_path / "a.jpg")
    assert seen and all(issubclass(kind, io.BytesIO) for kind in seen)


# 3. The best network stays


def test_r03_a_full_disk_leaves_the_best_network(folder: Path, network: DMGN):
    other = small_run.network()
    with torch.no_grad():
        next(other.refining.parameters()).fill_(0.5)
    limits, room = resource.getrlimit(resource.RLIMIT_FSIZE), (folder / "model.safetensors").stat().st_size // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError):
            other.save_pretrained(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same_weights(DMGN.from_pretrained(folder), network)
    assert [p.name for p in folder.parent.iterdir() if "network" in p.name] == ["network"]


class Moments:
    "Calls `look` at every change of a file system that Python is about to make, as a kill in that moment would find it"

    def __init__(self):
        self.look = None

    def __call__(self, event: str, args: tuple) -> None:
        changes = event in ("os.rename", "os.remove", "os.rmdir", "os.link", "os.mkdir") or (
            event == "open" and args[1] and set(args[1]) & set("wax+")
        )
        if self.look is None or not changes:
            return
        look, self.look = self.look, None
        try:
            look(event)
        finally:
            self.look = look


@pytest.fixture(scope="session")
def moments() -> Moments:
    sys.addaudithook(found := Moments())
    return found


def test_r03_a_kill_at_any_moment_leaves_the_best_network_before_or_after(
    folder: Path, network: DMGN, tmp_path: Path, moments: Moments
):
    other, lost, looked = small_run.network(), [], []
    with torch.no_grad():
        next(other.refining.parameters()).fill_(0.5)

    def look(event: str) -> None:
        shutil.copytree(tmp_path, copy := tmp_path.parent / f"{tmp_path.name}_moment", dirs_exist_ok=False)
        looked.append(event)
        try:
            found = DMGN.from_pretrained(copy / "network")
            if not (same_weights(found, network) or same_weights(found, other)):
                lost.append(f"{event}: another")
        except (ValueError, OSError) as error:
            lost.append(f"{event}: {error}")
        finally:
            shutil.rmtree(copy)

    moments.look = look
    try:
        other.save_pretrained(folder)
    finally:
        moments.look = None
    assert looked and not lost
    assert same_weights(DMGN.from_pretrained(folder), other)


# 4. Any photograph, any exception


def test_r04_an_unforeseen_exception_is_the_line_of_its_photograph(
    run: Callable[..., Result], trip: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    calls, forward = [], DMGN.forward

    def fail_once(self, x):
        calls.append(x)
        if len(calls) == 1:
            raise KeyError("a fault of a library")
        return forward(self, x)

    monkeypatch.setattr(DMGN, "forward", fail_once)
    result = run("restore", trip, "-o", "out", "--model", folder)
    assert result.exit_code == 1 and "1 of 2 photographs restored" in result.stdout
    assert "not restored" in result.stderr and "0.png" in result.stderr and is_whole(Path("out/1.png"))


FORMATS = {"a.avif": "AVIF", "a.webp": "WEBP", "a.jp2": "JPEG2000", "a.jfif": "JPEG", "a": "PNG", "a.ppm": "PPM"}


@pytest.mark.parametrize("name", FORMATS)
def test_r04_every_format_of_a_folder_is_restored(run: Callable[..., Result], trip: Path, folder: Path, name: str):
    if FORMATS[name] == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    (trip / name).write_bytes(encoded(photograph(), FORMATS[name]))
    result = run("restore", trip, "-o", "out", "--model", folder)
    assert result.exit_code == 0 and "3 of 3 photographs restored" in result.stdout, result.output
    with Image.open(Path("out") / name) as image:
        assert (image.format, image.size) == (FORMATS[name], (37, 24))


def test_r04_a_lossless_webp_stays_lossless(network: DMGN, tmp_path: Path):
    for name, lossless in (("a.webp", True), ("b.webp", False)):
        photograph().save(tmp_path / name, lossless=lossless)
        restore_file(tmp_path / name, tmp_path / "out" / name, model=network)
    kinds = [(tmp_path / "out" / name).read_bytes().find(b"VP8L") > 0 for name in ("a.webp", "b.webp")]
    assert kinds == [True, False]
    with Image.open(tmp_path / "out/a.webp") as image:
        assert image.convert("RGB").tobytes() == restore(tmp_path / "a.webp", model=network).background.tobytes()


def test_r04_heic_without_its_reader_says_what_to_install(run: Callable[..., Result], trip: Path, folder: Path):
    if find_spec("pillow_heif"):
        pytest.skip("pillow-heif is installed")
    (trip / "a.heic").write_bytes(HEIC)
    result = run("restore", trip / "a.heic", "-o", "out", "--model", folder)
    assert result.exit_code == 1 and "pillow-heif" in result.stderr and "a.heic" in result.stderr
    result = run("restore", trip, "-o", "out", "--model", folder)
    assert (
        "2 of 2 photographs restored" in result.stdout and "a.heic" in result.stderr and "pillow-heif" in result.stderr
    )


# 5. An original is never overwritten


def test_r05_the_input_folder_mounted_elsewhere_is_seen_as_the_same(
    run: Callable[..., Result], trip: Path, folder: Path, tmp_path: Path
):
    (mounted := tmp_path / "mounted").mkdir()
    if subprocess.run(["mount", "--bind", trip, mounted], capture_output=True).returncode:
        pytest.skip("cannot mount here")
    before = {p: digest(p) for p in trip.iterdir()}
    try:
        results = [run("restore", given, "-o", mounted, "--model", folder) for given in (trip, trip / "0.png")]
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert {p: digest(p) for p in trip.iterdir()} == before
    assert all(result.exit_code == 1 and "overwrit" in result.stderr for result in results)


def test_r05_the_same_file_under_another_spelling_is_seen_as_the_same(
    network: DMGN, trip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    "As on a file system that knows no upper case"
    before = digest(trip / "0.png")
    (tmp_path / "TRIP").symlink_to(trip)
    monkeypatch.setattr(Path, "resolve", lambda self, strict=False: self.absolute())
    monkeypatch.setattr(os.path, "realpath", lambda path, **_: os.path.abspath(path))  # noqa: PTH100
    with pytest.raises(ValueError, match="overwrit"):
        restore_file(trip / "0.png", tmp_path / "TRIP/0.png", model=network)
    assert digest(trip / "0.png") == before


def test_r05_it_is_looked_at_again_in_the_moment_of_writing(
    trip: Path, tmp_path: Path, network: DMGN, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "out").mkdir()
    before, forward = digest(trip / "0.png"), DMGN.forward

    def meanwhile(self, x):
        (tmp_path / "out").rmdir()
        (tmp_path / "out").symlink_to(trip)  # somebody else does
        return forward(self, x)

    monkeypatch.setattr(DMGN, "forward", meanwhile)
    with pytest.raises((ValueError, OSError)):
        restore_file(trip / "0.png", tmp_path / "out/0.png", model=network)
    assert digest(trip / "0.png") == before


# 6. What is left out is said


def test_r06_files_that_are_not_taken_are_counted_and_named(run: Callable[..., Result], trip: Path, folder: Path):
    for name, content in (
        ("a.gif", encoded(photograph(), "GIF")),
        ("b.heic", HEIC),
        ("notes.txt", b"a text"),
        (".hidden.txt", b""),
    ):
        (trip / name).write_bytes(content)
    result = run("restore", trip, "-o", "out", "--model", folder)
    assert result.exit_code == 0 and "2 of 2 photographs restored" in result.stdout
    line = next(line for line in result.stderr.splitlines() if line.startswith("left out: "))
    assert (
        "3 files" in line and all(name in line for name in ("a.gif", "b.heic", "notes.txt")) and ".hidden" not in line
    )


def test_r06_nothing_is_said_where_nothing_is_left_out(run: Callable[..., Result], trip: Path, folder: Path):
    assert "left out" not in run("restore", trip, "-o", "out", "--model", folder).output


@pytest.mark.parametrize("name", ["a.NEF", "a.dng", "a.tif"])
def test_r06_a_raw_file_is_refused_not_answered_with_its_thumbnail(
    run: Callable[..., Result], trip: Path, folder: Path, name: str
):
    (trip / name).write_bytes(raw_file(photograph()))
    result = run("restore", trip / name, "-o", "out", "--model", folder)
    assert result.exit_code == 1 and "RAW" in result.stderr and not Path("out", name).exists()
    result = run("restore", trip, "-o", "out", "--model", folder)
    assert "RAW" in result.stderr and name in result.stderr and not Path("out", name).exists()


def test_r06_folders_behind_links_are_followed_and_loops_are_not(
    run: Callable[..., Result], trip: Path, folder: Path, tmp_path: Path
):
    (tmp_path / "elsewhere").mkdir()
    photograph(3).save(tmp_path / "elsewhere/c.png")
    (trip / "linked").symlink_to(tmp_path / "elsewhere")
    (trip / "loop").symlink_to(trip)
    result = run("restore", trip, "-o", "out", "--model", folder)
    assert "3 of 3 photographs restored" in result.stdout and is_whole(Path("out/linked/c.png")), result.output


# 7. Only plain files are replaced


def test_r07_a_report_does_not_replace_a_fifo_or_a_link(run: Callable[..., Result], trip: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "precious.csv").write_text("precious")
    (tmp_path / "link.csv").symlink_to(tmp_path / "precious.csv")
    for name in ("pipe.csv", "link.csv"):
        result = run("evaluate", "--pred", trip, "--targets", trip, "--csv", name)
        assert refused(result, name, "plain file")
    assert (
        (tmp_path / "pipe.csv").is_fifo()
        and (tmp_path / "link.csv").is_symlink()
        and (tmp_path / "precious.csv").read_text() == "precious"
    )


def test_r07_a_result_does_not_replace_a_fifo_or_a_link(trip: Path, tmp_path: Path, network: DMGN):
    (out := tmp_path / "out").mkdir()
    os.mkfifo(out / "0.png")
    (out / "1.png").symlink_to(tmp_path / "precious.png")
    for name in ("0.png", "1.png"):
        with pytest.raises(OSError, match="plain file"):
            restore_file(trip / name, out / name, model=network)
    assert (out / "0.png").is_fifo() and (out / "1.png").is_symlink() and not (tmp_path / "precious.png").exists()


def test_r07_a_device_is_not_replaced(tmp_path: Path):
    try:
        os.mknod(tmp_path / "null", 0o600 | 0o020000, os.makedev(1, 3))
    except OSError:
        pytest.skip("cannot make a device here")
    with pytest.raises(OSError, match="plain file"), written_whole(tmp_path / "null") as partial:
        partial.write_text("a")
    assert (tmp_path / "null").is_char_device()


def test_r07_two_writers_of_one_file_do_not_meet(tmp_path: Path):
    with written_whole(tmp_path / "a.txt") as one:
        with written_whole(tmp_path / "a.txt") as two:
            assert one != two and one.parent == two.parent == tmp_path and one.name.startswith(".")
            one.write_text("one")
            two.write_text("two")
        assert (tmp_path / "a.txt").read_text() == "two"
    assert (tmp_path / "a.txt").read_text() == "one" and len(list(tmp_path.iterdir())) == 1


def test_r07_a_second_training_in_the_same_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import dmgn.training as training

    step, tried = training.train_step, []

    def meanwhile(*args):
        if not tried:
            tried.append("a second training ran")
            try:
                small_run.run(tmp_path / "run", resume=True, steps=2)
            except OSError as error:
                tried[0] = str(error)
        return step(*args)

    monkeypatch.setattr(training, "train_step", meanwhile)
    small_run.run(tmp_path / "run", steps=2)
    assert "in use" in tried[0] and "\n" not in tried[0]
    small_run.run(tmp_path / "run", resume=True, steps=2)  # it is free again


# 8. log.json and checkpoint.pt belong together


@pytest.mark.parametrize("fault", ["lost", "stale", "broken"])
def test_r08_a_kill_between_checkpoint_and_log_is_repaired(tmp_path: Path, fault: str):
    small_run.run(tmp_path, steps=2, validate_every=2)
    log = tmp_path / "log.json"
    expected = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]
    assert json.loads(log.read_text()) == expected
    if fault == "lost":
        log.unlink()
    else:
        log.write_text("{" if fault == "broken" else json.dumps(expected | {"step": 1, "log": []}))
    small_run.run(tmp_path, resume=True, steps=2, validate_every=2)
    assert json.loads(log.read_text()) == torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]


# 9. A run knows its data


def test_r09_other_data_are_refused_unless_they_are_allowed(
    run: Callable[..., Result], trainable: tuple, sunny: Path, monkeypatch: pytest.MonkeyPatch
):
    import dmgn.training as training

    pairs_of, validated = training.validation_pairs, []

    def keep(photographs, *args, **kwargs):
        validated.append([Path(p).resolve() for p in photographs])
        return pairs_of(photographs, *args, **kwargs)

    monkeypatch.setattr(training, "validation_pairs", keep)
    assert run(*trainable, "--train", sunny, "-o", "run").exit_code == 0
    assert len(json.loads(Path("run/data.json").read_text())["fingerprint"]) == 64
    assert run(*trainable, "--train", sunny, "-o", "run", "--resume").exit_code == 0
    content = (sunny / "3.png").read_bytes()
    photograph(30, 40, 48).save(sunny / "3.png")  # same name, same size
    assert refused(run(*trainable, "--train", sunny, "-o", "run", "--resume"), "--allow-new-data")
    (sunny / "3.png").write_bytes(content)
    for n in range(6):
        photograph(20 + n, 40, 48).save(sunny / f"00{n}.png")
    assert refused(run(*trainable, "--train", sunny, "-o", "run", "--resume"), "--allow-new-data")
    result = run(*trainable, "--train", sunny, "-o", "run", "--resume", "--allow-new-data")
    assert result.exit_code == 0, result.output
    assert validated[0] == validated[-1], "other pictures are validated than before"
    kept = Path("run/data.json").read_text()
    (sunny / "000.png").write_bytes(content)
    again = (*trainable, "--train", sunny, "-o", "run", "--resume", "--allow-new-data")
    assert refused(run(*again, "--steps", 1), "taken 2 steps already")
    assert Path("run/data.json").read_text() == kept, "a run that was refused has changed what it was trained on"
    validated[0][0].unlink()
    assert refused(run(*again), "put it back")


# 10. Upper bounds


@pytest.mark.parametrize(
    "changes",
    [
        dict(width=10**6),
        dict(width=True),
        dict(width=16.0),
        dict(width="16"),
        dict(middle_cells=10**6),
        dict(middle_cells=True),
        dict(refine_dilations=(1, 10**9)),
        dict(refine_dilations=(1,) * 10**4),
        dict(refine_dilations=(True, 2)),
        dict(refine_dilations=5),
        dict(vgg_taps=True),
        dict(vgg_taps=3.0),
        dict(noise_branch="no"),
        dict(noise_branch=1),
        dict(refine="false"),
        dict(vgg_normalise="False"),
        dict(refine_tanh=None),
        dict(alpha=True),
        dict(decay="0.5"),
        dict(cell=["rdmc"]),
        dict(task={}),
    ],
    ids=lambda c: str(c)[:40],
)
def test_r10_sizes_and_types_that_make_no_sense_are_refused(changes: dict, folder: Path):
    name = next(iter(changes))
    with pytest.raises(ValueError, match=f"DMGNConfig: {name}=") as error:
        DMGNConfig(**changes)
    assert one_line(error)
    change_config(folder, **changes)
    with pytest.raises(ValueError, match=name) as error:
        DMGN.from_pretrained(folder)
    assert one_line(error)


def test_r10_sizes_that_make_sense_are_taken():
    for changes in (
        dict(width=256),
        dict(width=1),
        dict(middle_cells=16),
        dict(refine_dilations=[1, 64]),
        dict(alpha=1, decay=0),
    ):
        DMGNConfig(**changes)


def test_r10_photographs_above_a_number_of_pixels_are_refused_before_they_are_decoded(
    run: Callable[..., Result], trip: Path, folder: Path
):
    (trip / "huge.png").write_bytes(png_of_size(20_000, 20_000))
    (trip / "telephone.png").write_bytes(png_of_size(16_320, 12_240))
    with pytest.raises(ValueError, match="pixels") as error:
        read_photograph(trip / "huge.png")
    assert one_line(error)
    assert size_of(trip / "telephone.png") == (16_320, 12_240)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="cannot be read") as error:
            read_rgb(trip / "huge.png")
        assert "attack" not in str(error.value)
    (trip / "telephone.png").unlink()
    result = run("restore", trip, "-o", "out", "--model", folder)
    assert result.exit_code == 1 and "2 of 3" in result.stdout and "--max-pixels" in result.stderr
    (trip / "huge.png").unlink()
    result = run("restore", trip, "-o", "small", "--model", folder, "--max-pixels", 100)
    assert result.exit_code == 1 and "0 of 2" in result.stdout and result.stderr.count("--max-pixels") == 2


def memory(name: str) -> int:  # VmRSS, VmHWM
    "Bytes of this process, now or at most"
    return next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(name)
    )


def stub(self: DMGN, x: torch.Tensor):  # what a network returns that takes no memory
    from dmgn.model import DMGNOutput

    return DMGNOutput(x, x, x, x[:, :1], x[:, :1], [])


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
def test_r10_restoring_takes_20_bytes_a_pixel_beside_the_network(
    run: Callable[..., Result], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(DMGN, "forward", stub)
    photograph(0, 300, 400).save(tmp_path / "warm.jpg")
    assert run("restore", "warm.jpg", "-o", "out", "--model", folder, "--tile", 256).exit_code == 0
    photograph(0, 2000, 2500).save(tmp_path / "big.jpg")
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    assert run("restore", "big.jpg", "-o", "out", "--model", folder, "--tile", 256).exit_code == 0
    a_pixel = (memory("VmHWM") - before) / 5e6
    print(f"{a_pixel:.1f} bytes a pixel")
    assert a_pixel <= 24  # 20, and 20 megabytes for tiles


# 11. Broken training photographs are found before the run


def break_photograph(path: Path) -> None:
    "Cut a file short; its size can still be read"
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 3])


def test_r11_broken_photographs_are_named_together_before_a_run(
    run: Callable[..., Result], trainable: tuple, sunny: Path
):
    for name in ("1.png", "4.png"):
        break_photograph(sunny / name)
    Image.fromarray(pixels(40, 48)[..., 0].astype(np.uint16) * 257).save(sunny / "5.png")  # of 16 bits
    assert refused(run(*trainable, "--train", sunny, "-o", "run"), "1.png", "4.png", "5.png", "--no-check")
    assert not Path("run/checkpoint.pt").exists()


def test_r11_broken_pairs_are_named_before_a_run(
    run: Callable[..., Result], trainable: tuple, sunny: Path, tmp_path: Path
):
    shutil.copytree(sunny, tmp_path / "rainy")
    break_photograph(tmp_path / "rainy/3.png")
    assert refused(run(*trainable, "--pairs", "rainy", sunny, "-o", "run"), "3.png")
    assert not Path("run/checkpoint.pt").exists()


def test_r11_a_photograph_that_breaks_later_is_skipped_and_counted(
    run: Callable[..., Result], trainable: tuple, sunny: Path, tmp_path: Path
):
    (tmp_path / "val").mkdir()
    photograph(9, 40, 48).save(tmp_path / "val/v.png")
    for n in range(3):
        break_photograph(sunny / f"{n}.png")
    result = run(*trainable, "--train", sunny, "--val", "val", "-o", "run", "--no-check", "--steps", "8")
    assert result.exit_code == 0, result.output
    assert "skipped" in result.output and any(f"{n}.png" in result.output for n in range(3))


# 12. The clock, and what Pillow may read


def test_r12_durations_are_measured_by_a_clock_that_nobody_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import dmgn.training as training

    saved, save, now = [], training.save_checkpoint, [2e9]

    def keep(run, path):
        saved.append(run.progress["step"])
        save(run, path)

    def set_back() -> float:
        now[0] -= 3e7
        return now[0]

    monkeypatch.setattr(training, "save_checkpoint", keep)
    monkeypatch.setattr(time, "time", set_back)
    small_run.run(tmp_path, steps=4)
    assert saved == [1, 2, 3, 4] and 0 <= json.loads((tmp_path / "log.json").read_text())["seconds"] < 600


def test_r12_no_module_measures_by_the_wall_clock():
    package = Path(dmgn.__file__).parent
    assert not [p.name for p in package.rglob("*.py") if "time.time()" in p.read_text()]


def test_r12_postscript_under_another_name_never_reaches_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    called = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **kwargs: called.append(args) or photograph())
    (tmp_path / "a.png").write_bytes(EPS)
    with pytest.raises(ValueError, match="cannot be read as a photograph"):
        read_rgb(tmp_path / "a.png")
    assert not called


def test_r12_an_icon_keeps_its_size_or_is_refused(network: DMGN, tmp_path: Path):
    photograph().save(tmp_path / "a.ico", sizes=[(37, 24)])
    try:
        restore_file(tmp_path / "a.ico", tmp_path / "out/a.ico", model=network)
    except ValueError:
        return
    with Image.open(tmp_path / "out/a.ico") as image:
        assert image.size == (37, 24)


def test_r12_a_bmp_keeps_its_transparency(network: DMGN, tmp_path: Path):
    alpha = np.linspace(0, 255, 24 * 37).astype(np.uint8).reshape(24, 37)
    (tmp_path / "a.bmp").write_bytes(transparent_bmp(np.dstack([pixels(), alpha])))
    restore_file(tmp_path / "a.bmp", tmp_path / "out/a.bmp", model=network)
    with Image.open(tmp_path / "out/a.bmp") as image:
        assert (image.format, image.mode) == ("BMP", "RGBA") and (np.asarray(image)[..., 3] == alpha).all()


# 13. Signals and several processes


class NobodyTookIt(Exception):
    pass


@pytest.fixture
def default_signals():
    "Handlers that raise, in place of the end of these tests"

    def nobody(*_):
        raise NobodyTookIt

    before = {s: signal.signal(s, nobody) for s in (signal.SIGTERM,)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield nobody
    for s, handler in before.items():
        signal.signal(s, handler)


def at_step(monkeypatch: pytest.MonkeyPatch, n: int, what: Callable[[], None]) -> None:
    import dmgn.training as training

    step, count = training.train_step, []

    def counted(*args):
        count.append(1)
        if len(count) == n:
            what()
        return step(*args)

    monkeypatch.setattr(training, "train_step", counted)


def test_r13_sigterm_saves_a_checkpoint_and_says_so(
    run: Callable[..., Result], trainable: tuple, sunny: Path, default_signals, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as m:
        at_step(m, 3, lambda: signal.raise_signal(signal.SIGTERM))
        try:
            result = run(*trainable, "--train", sunny, "-o", "run", "--steps", 6, "--save-minutes", 99)
        except AssertionError as error:
            pytest.fail(f"a traceback: {error}")
    assert result.exit_code == 143 and "checkpoint" in result.stderr and "--resume" in result.stderr
    step = torch.load("run/checkpoint.pt", weights_only=True)["progress"]["step"]
    assert 2 <= step <= 4 and json.loads(Path("run/log.json").read_text())["step"] == step
    assert signal.getsignal(signal.SIGTERM) is default_signals
    assert run(*trainable, "--train", sunny, "-o", "run", "--steps", 6, "--save-minutes", 99, "--resume").exit_code == 0


def test_r13_sigint_says_how_to_resume(
    run: Callable[..., Result], trainable: tuple, sunny: Path, default_signals, monkeypatch: pytest.MonkeyPatch
):
    at_step(monkeypatch, 3, lambda: signal.raise_signal(signal.SIGINT))
    result = run(*trainable, "--train", sunny, "-o", "run", "--steps", 6)
    assert result.exit_code == 130 and "--resume" in result.stderr


DIES = """
import os, sys
import dmgn.training as training
step, count = training.train_step, []
def counted(*args):
    count.append(1)
    if len(count) == 2 and os.environ["RANK"] == "1": os._exit(9)
    return step(*args)
training.train_step = counted
from dmgn.commands.main import app
app(sys.argv[1:], prog_name="dmgn")
"""


def test_r13_one_of_several_processes_dies_and_the_others_end_with_a_line(
    trainable: tuple, sunny: Path, tmp_path: Path
):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    (tmp_path / "dies.py").write_text(DIES)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    command = [
        sys.executable,
        tmp_path / "dies.py",
        *trainable,
        "--steps",
        "6",
        "--train",
        sunny,
        "-o",
        tmp_path / "run",
    ]
    processes = [
        subprocess.Popen(
            command, env=environment | {"RANK": str(n), "LOCAL_RANK": str(n)}, stderr=subprocess.PIPE, text=True
        )
        for n in range(2)
    ]
    try:
        said = processes[0].communicate(timeout=60)[1]
    finally:
        for process in processes:
            process.kill()
    assert "Traceback" not in said and [line for line in said.splitlines() if line.startswith("dmgn: ")], said[-500:]


# The sweep


CONFIGS = {
    "nested": "[" * 100_000 + "]" * 100_000,
    "list": "[]",
    "null": "null",
    "text": '"a"',
    "number": "7",
    "lists": '{"width": [[1]]}',
    "null_width": '{"width": null}',
    "dictionary": '{"refine_dilations": {"1": 2}}',
    "null_dilations": '{"refine_dilations": null}',
    "bytes": "\xff\xfe\x00",
    "empty": "",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_l01_a_config_of_any_content_is_one_line(folder: Path, name: str):
    (folder / "config.json").write_bytes(CONFIGS[name].encode("latin-1"))
    with pytest.raises(ValueError) as error:
        DMGN.from_pretrained(folder)
    assert one_line(error)


HEADERS = {
    "empty": lambda header: b"",
    "list": lambda header: b"[]",
    "nested": lambda header: b"[" * 50_000 + b"]" * 50_000,
    "offsets": lambda header: {k: v | {"data_offsets": [0, 2**60]} for k, v in header.items() if k != "__metadata__"},
    "dtype": lambda header: {k: v | {"dtype": "F99"} for k, v in header.items() if k != "__metadata__"},
    "shape": lambda header: {k: v | {"shape": [2**40, 2**40]} for k, v in header.items() if k != "__metadata__"},
}


@pytest.mark.parametrize("name", HEADERS)
def test_l01_a_header_of_any_content_is_one_line(folder: Path, name: str):
    change_header(folder, HEADERS[name])
    with pytest.raises(ValueError) as error:
        DMGN.from_pretrained(folder)
    assert one_line(error)


STATES = {
    "numbers": {1: torch.zeros(1)},
    "list": [1],
    "none": None,
    "nested": {"state_dict": [1]},
    "text": "a",
    "sparse": {"a": torch.zeros(2, 2).to_sparse()},
}


@pytest.mark.parametrize("name", STATES)
def test_l01_a_released_checkpoint_of_any_content_is_one_line(tmp_path: Path, name: str):
    torch.save(STATES[name], tmp_path / "a.pth")
    with pytest.raises(ValueError) as error:
        load_network("deraining", tmp_path / "a.pth")
    assert one_line(error)


@pytest.mark.parametrize(
    "name, content",
    [("progress", None), ("progress", {}), ("rng_state", {}), ("model", {}), ("network", None), ("config", [])],
)
def test_l01_a_checkpoint_of_any_content_is_one_line(tmp_path: Path, name: str, content):
    small_run.run(tmp_path, steps=1, validate_every=1)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save(saved | {name: content}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.pt") as error:
        small_run.run(tmp_path, resume=True, steps=1, validate_every=1)
    assert one_line(error)


@pytest.mark.parametrize("text", ["[]", "null", "{", "7", ""])
def test_l01_settings_of_any_content_are_one_line(run: Callable[..., Result], trainable: tuple, sunny: Path, text: str):
    Path("run").mkdir()
    Path("run/data.json").write_text(text)
    assert refused(run(*trainable, "--train", sunny, "-o", "run", "--resume"), "data.json")


VOTE = {"subject": "s", "sample": "a", "ranking": ["x", "y"], "shown": ["y", "x"], "seconds": 1.0, "date": ""}


@pytest.mark.parametrize(
    "changes",
    [
        dict(ranking=None),
        dict(ranking=5),
        dict(ranking="xy"),
        dict(ranking={"x": 1, "y": 2}),
        dict(subject=["s"]),
        dict(ranking=[["x"], ["y"]]),
        dict(shown=None),
        dict(shown=3),
        dict(seconds="<b>"),
        dict(date=[1]),
    ],
    ids=str,
)
def test_l01_a_vote_of_any_content_is_one_line(tmp_path: Path, changes: dict):
    (tmp_path / "votes.jsonl").write_text(json.dumps(VOTE | changes) + "\n")
    with pytest.raises(ValueError, match="line 1") as error:
        read_votes(tmp_path / "votes.jsonl", ("x", "y"))
    assert one_line(error)


def test_l02_a_result_that_is_there_twice_counts_once(tmp_path: Path):
    result = {"variant": "Base", "test_set": "rain100L", "scale": "small", "seed": 0, "psnr": 30.0}
    for record in (result, result, result | {"seed": 1, "psnr": 32.0}):
        add_result(tmp_path / "a.jsonl", record)
    mean = over_seeds(read_results(tmp_path / "a.jsonl"), "Base", "rain100L")
    assert (mean.count, mean.mean) == (2, 31.0)


class Handler(BaseHTTPRequestHandler):
    "A server with faults"

    def do_GET(self) -> None:
        if "redirect" in self.path:
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/a.png")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        slow = "drip" in self.path
        try:
            for _ in range(1000):
                self.wfile.write(b"x")
                if slow:
                    time.sleep(0.05)
        except OSError:
            pass

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def one_file(name: str) -> dict[str, dict]:
    "A list of a data set of one file, of 1000 letters x"
    entry = {"path": name, "sha256": hashlib.sha256(b"x" * 1000).hexdigest(), "bytes": 1000}
    return {"rain100L": {"repository": "a/b", "commit": "c", "files": {name: entry}}}


def test_l03_a_link_in_place_of_what_was_received_is_not_followed(server: str, tmp_path: Path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "rain100L").mkdir()
    (tmp_path / "rain100L/.a.png.part").symlink_to(tmp_path / "precious")
    with suppress(OSError): fetch("rain100L", tmp_path, server, one_file("a.png"))
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "rain100L/a.png").is_symlink()


def test_l04_a_redirect_to_another_scheme_is_named(server: str, tmp_path: Path):
    with pytest.raises(OSError, match=r"redirect.*ftp"):
        fetch("rain100L", tmp_path, server, one_file("redirect.png"))


def test_l05_a_server_that_drips_is_given_up(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dmgn.fetching.SECONDS_A_FILE", 1, raising=False)
    began = time.monotonic()
    failed = in_a_child(lambda: fetched(server, tmp_path), 8)
    assert "seconds" in failed and time.monotonic() - began < 8


def fetched(server: str, folder: Path) -> str:
    "What is wrong with a fetch"
    try:
        fetch("rain100L", folder, server, one_file("drip.png"))
    except OSError as error:
        return str(error)
    return ""


def test_l06_file_names_are_printed_escaped(run: Callable[..., Result], trip: Path, folder: Path):
    (trip / "a\x1b[31m\nb.png").write_text("no photograph")
    (trip / "c\x1b]0;title\x07.txt").write_text("left out")
    result = run("restore", trip, "-o", "out", "--model", folder)
    assert result.exit_code == 1 and "\x1b" not in result.output and "\x07" not in result.output
    assert (
        len([line for line in result.stderr.splitlines() if line.startswith("not restored: ")]) == 1
        and r"\x1b[31m\nb.png" in result.stderr
    )


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@a"])
def test_l07_cells_that_a_spreadsheet_would_compute_are_quoted(tmp_path: Path, name: str):
    import csv

    write_csv(
        tmp_path / "a.csv",
        {"restored": [Score(name, *[None] * (len(Score._fields) - 1))._replace(psnr=-30.0, ssim=0.9)]},
    )
    rows = list(csv.reader((tmp_path / "a.csv").open(encoding="utf-8")))
    assert rows[1][0] == f"'{name}" and rows[1][1] == "-30.0"  # a number stays one


def test_l08_markup_in_tables_is_escaped():
    from dmgn.experiments.preferences import preferences, simulated_votes

    bad = "<img src=x onerror=alert(1)>|\nb & c"
    for page in (
        Table(["a", bad], [[bad, "1"]])._repr_markdown_(),
        preferences(simulated_votes({bad: 1.0, "b": 2.0}, samples=4, subjects=4), times=50)._repr_markdown_(),
    ):
        assert "<img" not in page and "&lt;img" in page and "\nb " not in page


def test_l09_a_folder_that_cannot_be_read_is_named(
    run: Callable[..., Result], trip: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (trip / "locked").mkdir()
    for name in ("scandir", "listdir"):

        def guarded(path=".", real=getattr(os, name)):  # noqa: B008
            if str(path).rstrip("/").endswith("locked"):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(os, name, guarded)  # root may read everything
    result = run("restore", trip, "-o", "out", "--model", folder)
    assert "2 of 2 photographs restored" in result.stdout and "locked" in result.stderr and result.exit_code == 1


def test_l10_an_empty_file_is_no_result(run: Callable[..., Result], trip: Path, folder: Path):
    Path("out").mkdir()
    Path("out/0.png").touch()
    assert run("restore", trip, "-o", "out", "--model", folder, "--resume").exit_code == 0
    assert is_whole(Path("out/0.png")) and is_whole(Path("out/1.png"))


def test_l11_the_longest_names_work(run: Callable[..., Result], trip: Path, folder: Path):
    name = "é" * 125 + "a.png"
    (trip / "0.png").rename(trip / name)
    result = run("restore", trip, "-o", "out", "--model", folder)
    assert len(os.fsencode(name)) == 255 and result.exit_code == 0 and is_whole(Path("out") / name), result.output


@pytest.mark.parametrize("charset", ["cp1252", "ascii"])
def test_l12_output_in_another_encoding_does_not_fail(
    run: Callable[..., Result], trip: Path, folder: Path, charset: str
):
    (trip / "日本.png").write_text("no photograph")
    Path("\u96e8").mkdir()
    result = run("restore", trip, "-o", "\u96e8/out", "--model", folder, charset=charset)
    assert result.exit_code == 1 and "2 of 3 photographs restored" in result.stdout and "not restored" in result.stderr


def test_l13_the_weights_can_be_read_by_whom_their_neighbours_can(tmp_path: Path, network: DMGN):
    before = os.umask(0o022)
    try:
        network.save_pretrained(tmp_path / "network")
    finally:
        os.umask(before)
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in (tmp_path / "network").iterdir()}
    assert set(modes.values()) == {"0o644"}, modes


# What people ask for


@pytest.mark.parametrize("name, kind", [("clean.jpg", "JPEG"), ("clean.png", "PNG"), ("new/clean.webp", "WEBP")])
def test_f01_one_photograph_goes_into_a_file(
    run: Callable[..., Result], trip: Path, folder: Path, name: str, kind: str
):
    assert run("restore", trip / "0.png", "-o", name, "--model", folder).exit_code == 0
    with Image.open(name) as image:
        assert (image.format, image.size) == (kind, (37, 24))


def test_f01_several_photographs_do_not(run: Callable[..., Result], trip: Path, folder: Path):
    for given in ([trip], [trip / "0.png", trip / "1.png"]):
        assert refused(run("restore", *given, "-o", "clean.jpg", "--model", folder), "clean.jpg")
    before = digest(trip / "0.png")
    result = run("restore", trip / "0.png", "-o", trip / "0.png", "--model", folder)
    assert result.exit_code == 1 and "overwrit" in result.stderr and digest(trip / "0.png") == before


@pytest.mark.parametrize(
    "given, suffix, kind", [("jpeg", "jpg", "JPEG"), ("tif", "tif", "TIFF"), ("WebP", "webp", "WEBP")]
)
def test_f02_a_format_may_be_chosen(
    run: Callable[..., Result], trip: Path, folder: Path, given: str, suffix: str, kind: str
):
    assert run("restore", trip, "-o", "out", "--model", folder, "--format", given).exit_code == 0
    found = sorted(Path("out").iterdir())
    assert [p.stem for p in found] == ["0", "1"] and all(p.suffix[1:].lower() in (suffix, given.lower()) for p in found)
    with Image.open(found[0]) as image:
        assert image.format == kind
    assert refused(run("restore", trip, "-o", "no", "--model", folder, "--format", "exe"), "exe", "png")


def test_f02_a_quality_may_be_chosen(
    run: Callable[..., Result], trip: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(DMGN, "forward", stub)  # of a flat picture every file is small
    photograph(0, 100, 150).save("a.jpg", quality=90)
    for quality in (20, 95):
        assert run("restore", "a.jpg", "-o", f"out{quality}", "--model", folder, "--quality", quality).exit_code == 0
    assert Path("out20/a.jpg").stat().st_size < 0.7 * Path("out95/a.jpg").stat().st_size
    assert run("restore", "a.jpg", "-o", "out", "--model", folder, "--quality", 101).exit_code != 0


@pytest.mark.parametrize("quality, subsampling", [(60, 2), (85, 0), (97, 1)])
def test_f02_a_jpeg_keeps_its_own_quantisation(network: DMGN, tmp_path: Path, quality: int, subsampling: int):
    from PIL import JpegImagePlugin

    photograph().save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling)
    restore_file(tmp_path / "a.jpg", tmp_path / "out/a.jpg", model=network)
    with Image.open(tmp_path / "a.jpg") as before, Image.open(tmp_path / "out/a.jpg") as after:
        assert after.quantization == before.quantization and JpegImagePlugin.get_sampling(
            after
        ) == JpegImagePlugin.get_sampling(before)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_f02_a_tiff_keeps_its_compression(network: DMGN, tmp_path: Path, compression: str):
    photograph().save(tmp_path / "a.tif", compression=compression)
    restore_file(tmp_path / "a.tif", tmp_path / "out/a.tif", model=network)
    with Image.open(tmp_path / "out/a.tif") as image:
        assert image.info["compression"] == compression


def test_f03_noise_coarse_and_map_are_saved_beside_the_result(
    run: Callable[..., Result], trip: Path, folder: Path, network: DMGN
):
    assert run("restore", trip / "0.png", "-o", "out", "--model", folder, "--save", "noise,coarse,map").exit_code == 0
    assert sorted(p.name for p in Path("out").iterdir()) == ["0.png", "0_coarse.png", "0_map.png", "0_noise.png"]
    expected = restore(trip / "0.png", model=network)
    for part in ("noise", "coarse"):
        with Image.open(f"out/0_{part}.png") as image:
            assert image.tobytes() == getattr(expected, part).tobytes()
    with Image.open("out/0_map.png") as image:
        grey = expected.noise_distribution_map[0, 0].numpy() * 255
        assert image.mode == "L" and np.abs(np.asarray(image) - grey).max() <= 1
    assert refused(
        run("restore", trip / "0.png", "-o", "no", "--model", folder, "--save", "noise,mask"),
        "mask",
        "noise, coarse, map",
    )


XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><a>lens</a></x:xmpmeta>"


def test_f04_a_jpeg_keeps_xmp_iptc_and_comment(network: DMGN, tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(with_iptc(encoded(photograph(), "JPEG", xmp=XMP, comment=b"by me"), b"a caption"))
    restore_file(tmp_path / "a.jpg", tmp_path / "out/a.jpg", model=network)
    with Image.open(tmp_path / "a.jpg") as before, Image.open(tmp_path / "out/a.jpg") as after:
        for name in ("xmp", "comment", "photoshop"):
            assert before.info[name] and after.info.get(name) == before.info[name], name


def test_f04_a_png_keeps_xmp_and_texts(network: DMGN, tmp_path: Path):
    from PIL import PngImagePlugin

    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "by me")
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    photograph().save(tmp_path / "a.png", pnginfo=texts)
    restore_file(tmp_path / "a.png", tmp_path / "out/a.png", model=network)
    with Image.open(tmp_path / "out/a.png") as image:
        image.load()
        assert image.text.get("Comment") == "by me" and image.text.get("XML:com.adobe.xmp") == XMP.decode()


def test_f04_webp_and_tiff_keep_xmp_and_iptc(network: DMGN, tmp_path: Path):
    from PIL import TiffImagePlugin

    photograph().save(tmp_path / "a.webp", xmp=XMP)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700], tags.tagtype[700] = XMP, 1
    tags[33723], tags.tagtype[33723] = b"\x1c\x02\x78\0\x02hi", 7
    photograph().save(tmp_path / "a.tif", tiffinfo=tags)
    for name in ("a.webp", "a.tif"):
        restore_file(tmp_path / name, tmp_path / "out" / name, model=network)
    with Image.open(tmp_path / "out/a.webp") as image:
        assert image.info.get("xmp") == XMP
    with Image.open(tmp_path / "out/a.tif") as image:
        assert image.tag_v2.get(700) == XMP and image.tag_v2.get(33723) == b"\x1c\x02\x78\0\x02hi"


def test_f05_ctrl_c_says_what_is_done_and_how_to_go_on(
    run: Callable[..., Result], trip: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (trip / "00.png").write_text("no photograph")
    calls, forward = [], DMGN.forward

    def interrupted(self, x):
        calls.append(x)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return forward(self, x)

    monkeypatch.setattr(DMGN, "forward", interrupted)
    result = run("restore", trip, "-o", "out", "--model", folder)
    assert (
        result.exit_code == 130
        and "1 of 3 photographs restored" in result.output
        and "00.png" in result.stderr
        and "--resume" in result.stderr
    )
    assert [p.name for p in Path("out").iterdir()] == ["0.png"]


def test_f06_the_folder_of_a_run_is_taken_for_its_best_network(network: DMGN, tmp_path: Path):
    network.save_pretrained(tmp_path / "run/best")
    (tmp_path / "run/checkpoint.pt").touch()
    assert same_weights(load_network("deraining", tmp_path / "run"), network) and same_weights(
        load_network("deraining", str(tmp_path / "run")), network
    )


def test_f06_a_file_of_weights_is_loaded_or_explained(network: DMGN, folder: Path):
    assert same_weights(load_network("deraining", folder / "model.safetensors"), network)
    (folder / "config.json").unlink()
    with pytest.raises((ValueError, OSError), match=r"config\.json") as error:
        load_network("deraining", folder / "model.safetensors")
    assert one_line(error)


def test_f06_a_state_dict_within_another_is_unwrapped(tmp_path: Path):
    torch.save({"state_dict": {"module.a.weight": torch.ones(2)}, "epoch": 7}, tmp_path / "a.pth")
    assert list(read_state(tmp_path / "a.pth")) == ["a.weight"] and list(
        read_state({"state_dict": {"b": torch.ones(1)}})
    ) == ["b"]


def test_f07_a_run_can_be_lengthened(run: Callable[..., Result], trainable: tuple, sunny: Path):
    assert run(*trainable, "--train", sunny, "-o", "run").exit_code == 0
    result = run(*trainable, "--train", sunny, "-o", "run", "--resume", "--steps", 4)
    assert result.exit_code == 0 and "schedule" in result.stdout, result.output
    assert torch.load("run/checkpoint.pt", weights_only=True)["progress"]["step"] == 4
    assert refused(run(*trainable, "--train", sunny, "-o", "run", "--resume", "--steps", 1), "step")


def test_f08_folders_below_folders_are_read(run: Callable[..., Result], trainable: tuple, sunny: Path, tmp_path: Path):
    (sunny / "day2").mkdir()
    for n in range(3):
        (sunny / f"{n}.png").rename(sunny / f"day2/{n}.png")
    shutil.copytree(sunny, tmp_path / "rainy")
    assert run(*trainable, "--train", sunny, "-o", "run").exit_code == 0
    assert run(*trainable, "--pairs", "rainy", sunny, "-o", "run2").exit_code == 0


def test_f09_pairs_are_found_by_their_suffixes(
    run: Callable[..., Result], trainable: tuple, sunny: Path, tmp_path: Path
):
    (tmp_path / "rainy").mkdir()
    for path in sorted(sunny.iterdir()):
        shutil.copy(path, tmp_path / f"rainy/{path.stem}_rain.png")
        path.rename(sunny / f"{path.stem}_clean.png")
    result = run(*trainable, "--pairs", "rainy", sunny, "--suffixes", "_rain", "_clean", "-o", "run")
    assert result.exit_code == 0, result.output
    for path in (tmp_path / "rainy").iterdir():
        path.rename(sunny / path.name)
    assert run(*trainable, "--pairs", sunny, sunny, "--suffixes", "_rain", "_clean", "-o", "run2").exit_code == 0


def test_f10_relative_and_absolute_paths_are_one_folder(
    run: Callable[..., Result], trainable: tuple, sunny: Path, tmp_path: Path
):
    assert run(*trainable, "--train", "sunny", "-o", "run").exit_code == 0
    result = run(*trainable, "--train", sunny, "-o", tmp_path / "run", "--resume")
    assert result.exit_code == 0, result.output


def test_f11_a_first_training_without_the_vgg_file_says_what_to_do(
    run: Callable[..., Result], sunny: Path, monkeypatch: pytest.MonkeyPatch
):
    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.setattr("dmgn.training.validation_pairs", lambda *_, **__: pytest.fail("photographs were read before"))
    result = run("train", "--task", "deraining", *TRAIN, "--train", sunny, "-o", "run")
    assert refused(result, "--vgg") and not Path("run").exists()


def test_f12_arrays_of_one_channel_and_of_16_bits_are_taken(network: DMGN):
    grey, colour = pixels()[..., :1], pixels()
    expected = restore(grey[..., 0], model=network).background
    assert (
        restore(grey, model=network).background.tobytes() == expected.tobytes()
        and restore(grey / 255, model=network).background.mode == "L"
    )
    given = restore(colour.astype(np.uint16) * 257, model=network).background
    assert given.convert("RGB").tobytes() == restore(colour, model=network).background.tobytes()


def test_f12_bytes_and_open_files_are_taken(network: DMGN, tmp_path: Path):
    photograph().save(tmp_path / "a.png")
    expected = restore(tmp_path / "a.png", model=network).background.tobytes()
    content = (tmp_path / "a.png").read_bytes()
    with (tmp_path / "a.png").open("rb") as file:
        for given in (content, io.BytesIO(content), file):
            assert restore(given, model=network).background.tobytes() == expected
    with pytest.raises(ValueError) as error:
        restore(b"no photograph", model=network)
    assert one_line(error)


def test_f13_a_tensor_in_the_unit_range_is_asked_about(network: DMGN):
    tensor = to_tensor(photograph())
    unit, expected = (tensor + 1) / 2, np.asarray(restore(tensor, model=network).background, int)
    with pytest.raises(ValueError, match="value_range") as error:
        restore(unit, model=network)
    assert one_line(error)
    for given, value_range in (
        (unit, (0, 1)),
        (tensor, (-1, 1)),
        (unit[0] * 255, (0, 255)),
        (unit[0].permute(1, 2, 0).numpy(), (0, 1)),
        (tensor[0].permute(1, 2, 0).numpy(), (-1, 1)),
    ):
        found = restore(given, model=network, value_range=value_range).background
        assert np.abs(np.asarray(found, int) - expected).max() <= 1
    with pytest.raises(ValueError, match="255"):
        restore(unit * 300, model=network, value_range=(0, 255))


def test_f14_a_script_without_a_main_guard_gets_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        multiprocessing.current_process(), "_inheriting", True, raising=False
    )  # as in a process that spawn is starting
    pairs = [tuple(to_tensor(photograph(n))[0] for n in range(3))]
    with pytest.raises(RuntimeError, match=r"if __name__ == .__main__."):
        train(small_run.network(), small_run.data(), pairs, tmp_path / "run", small_run.config(1))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_f15_grey_of_16_bits_comes_back_as_16_bits(network: DMGN, tmp_path: Path, name: str):
    deep = np.linspace(0, 65535, 24 * 37).astype(np.uint16).reshape(24, 37)
    Image.fromarray(deep).save(tmp_path / name)
    restore_file(tmp_path / name, tmp_path / "out" / name, model=network)
    with Image.open(tmp_path / "out" / name) as image:
        assert image.mode.startswith("I;16"), image.mode
        assert (np.asarray(image) % 257).any(), "only 8 bits are used"


def test_f15_colour_of_16_bits_is_kept_or_the_loss_is_said(run: Callable[..., Result], trip: Path, folder: Path):
    (trip / "deep.png").write_bytes(deep_colour_png(pixels().astype(np.uint16) * 257 + 7))
    result = run("restore", trip / "deep.png", "-o", "out", "--model", folder)
    kept = Path("out/deep.png").read_bytes()[24] == 16
    assert result.exit_code == 0 and (kept or ("8 bits" in result.stderr and "deep.png" in result.stderr)), (
        result.output
    )
