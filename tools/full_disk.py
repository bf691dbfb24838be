"""Restores 30 photographs of every kind, broken ones in between, onto a disk that fills.

python tools/full_disk.py [--free KILOBYTES]
What is reported as restored must be readable and complete, nothing partial may be left, no original may change, and
the command must end by itself. The disk is a small tmpfs where that may be mounted, else a bound on the size of files.
Exit code 1 if not."""

import argparse
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, features

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import small_run  # noqa: E402

SECONDS = 150
KINDS = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "bmp": "BMP", "ppm": "PPM", "webp": "WEBP", "jp2": "JPEG2000"}
if features.check("avif"):
    KINDS["avif"] = "AVIF"
BROKEN = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "text": lambda data: b"no photograph",
    "head": lambda data: data[:40],
    "noise": lambda data: data[:60] + os.urandom(len(data)),
}


def noisy(seed: int, width: int, height: int) -> Image.Image:  # RGB
    "A photograph that does not compress well"
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def make_photographs(folder: Path, count: int = 30) -> None:
    "Of every kind in turn; every fifth is broken"
    folder.mkdir()
    kinds, faults = list(KINDS.items()), list(BROKEN.items())
    for n in range(count):
        suffix, kind = kinds[n % len(kinds)]
        data, name = encoded(noisy(n, 160 + 7 * n, 120 + 5 * n), kind), f"{n:02}"
        if n % 5 == 4:
            fault, change = faults[n // 5 % len(faults)]
            data, name = change(data), f"{name}_{fault}"
        (folder / f"{name}.{suffix}").write_bytes(data)


@contextmanager
def small_disk(folder: Path, kilobytes: int):  # yields the words that the command starts with
    "A place with so much room"
    folder.mkdir()
    if (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], capture_output=True
        ).returncode
        == 0
    ):
        try:
            yield []
        finally:
            subprocess.run(["umount", folder], check=True)
    else:
        print("no tmpfs may be mounted: a bound on the size of each file instead")
        yield ["bash", "-c", f'ulimit -f {max(8, kilobytes // 16)}; exec "$@"', "bash"]


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def complete(path: Path, like: Path) -> str:  # what is wrong; empty: nothing
    "Is a result readable to its end, of its photograph's format and size?"
    try:
        with Image.open(path) as image, Image.open(like) as original:
            image.load()
            if (image.format, image.size) != (original.format, original.size):
                return f"is {image.format} of {image.size}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def run_to_its_end(command: list, environment: dict) -> subprocess.CompletedProcess | None:  # None: it did not end
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return None


def inspect(done: subprocess.CompletedProcess, given: Path, out: Path) -> list[str]:
    "What is wrong with what a command said and left"
    faults = [f"a traceback: {done.stderr.strip().splitlines()[-1]}"] if "Traceback" in done.stderr else []
    found = {p.name for p in out.rglob("*") if p.is_file()} if out.is_dir() else set()
    failed = {
        name
        for name in digests(given)
        if re.search(rf"^(not restored|left out): .*{re.escape(name)}", done.stderr, re.MULTILINE)
    }
    reported = set(digests(given)) - failed
    said = re.search(r"(\d+) of (\d+) photographs restored", done.stdout)
    if said is None:
        faults.append(f"no summary: {done.stdout.strip()[-200:]!r} {done.stderr.strip()[-200:]!r}")
    elif int(said[1]) != len(reported):
        faults.append(
            f"{said[1]} are said to be restored, but {len(reported)} of {len(digests(given))} are not named as failed "
            "or left out"
        )
    faults += [f"{name} counts as restored and is not there" for name in sorted(reported - found)]
    faults += [
        f"{name} counts as restored, but {wrong}"
        for name in sorted(reported & found)
        if (wrong := complete(out / name, given / name))
    ]
    faults += [f"{name} is left over" for name in sorted(found - reported)]
    if done.returncode != int(bool(failed)):
        faults.append(f"exit code {done.returncode}")
    return faults


def arguments() -> argparse.Namespace:
    "What was typed"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--free",
        type=int,
        nargs="+",
        default=[200, 290, 380, 700, 1500, 4000],
        help="room in kilobytes, one trial each",
    )
    parser.add_argument("--named", action="store_true", help="give the files by name, not their folder")
    return parser.parse_args()


def main() -> int:  # 1 if something was lost
    options, faults, paths = arguments(), [], f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_photographs(place / "photographs")
        small_run.network().save_pretrained(place / "network")
        before = digests(place / "photographs")
        inputs = sorted((place / "photographs").iterdir()) if options.named else [place / "photographs"]
        for kilobytes in options.free:
            disk = place / f"disk{kilobytes}"
            with small_disk(disk, kilobytes) as start:
                command = [*start, sys.executable, "-m", "dmgn", "restore", *inputs]
                command += ["-o", disk / "out", "--model", place / "network"]
                done = run_to_its_end(command, environment)
                if done is None:
                    found = [f"did not end within {SECONDS} s"]
                else:
                    found = inspect(done, place / "photographs", disk / "out")
                if digests(place / "photographs") != before:
                    found.append("an original has changed")
            summary = done.stdout.strip().splitlines()[-1:] if done else []
            print(f"{kilobytes} KB: {''.join(summary)}; {len(found)} faults", flush=True)
            for fault in found:
                print(f"  {fault}"[:300], flush=True)
            faults += found
    print(f"{len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
