"""Peak memory of `dmgn restore` for large photographs.

python tools/peak_memory.py [--megapixels 50 200] [--stub] [--limit 20]
With --stub the network is replaced by one that takes no time and no memory of its own; what is left is reading, tiles,
blending and writing. Bytes a pixel are counted from before the photograph is read; exit code 1 with --stub if they are
more than --limit."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

Image.MAX_IMAGE_PIXELS = None  # what is opened here was made here
ROOT = Path(__file__).resolve().parents[1]
SLACK = 100 * 2**20  # for tiles, libraries that are loaded late, and what malloc keeps
INSIDE = """
import os, sys
from pathlib import Path
from PIL import Image
stub, tile = os.environ["STUB"] == "1", os.environ["TILE"]
from dmgn.commands.main import app
from dmgn.model import DMGN, DMGNOutput
import dmgn.restore
if stub: DMGN.forward = lambda self, x: DMGNOutput(x, x, x, x[:, :1], x[:, :1], [])
def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
given, out = sys.argv[1:]
def restore(photograph, folder):
    try: app(["restore", photograph, "-o", folder, *(["--tile", tile] if tile else [])], prog_name="dmgn")
    except SystemExit as end:
        if end.code: sys.exit(end.code)
Image.new("RGB", (600, 400), "teal").save(Path(out) / "warm.jpg")
restore(str(Path(out) / "warm.jpg"), str(Path(out) / "warm"))
before = memory("VmRSS")
try: Path("/proc/self/clear_refs").write_text("5")
except OSError: pass
restore(given, str(Path(out) / "result"))
print("MEMORY", before, memory("VmHWM"))
"""


def make_photograph(path: Path, megapixels: float) -> tuple[int, int]:  # width and height
    "Smooth, four by three, at little cost: a JPEG"
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    height = round(megapixels * 1e6 / width)
    small = Image.effect_mandelbrot((400, 300), (-2, -1.5, 1, 1.5), 40).convert("RGB")
    small.resize((width, height), Image.Resampling.BILINEAR).save(path, quality=85)
    return width, height


def measure(
    photograph: Path, place: Path, stub: bool, tile: int | None
) -> tuple[int, int]:  # bytes before, and at most
    "Restore in a process of its own"
    environment = os.environ | {
        "STUB": str(int(stub)),
        "TILE": str(tile or ""),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "TQDM_DISABLE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", INSIDE, photograph, place], env=environment, capture_output=True, text=True
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("MEMORY")), None)
    if line is None:
        raise SystemExit(f"{photograph.name} was not restored: {done.stderr.strip()[-300:]}")
    before, peak = map(int, line.split()[1:])
    return before, peak


def main() -> int:  # 1 if more than the limit
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[50, 200])
    parser.add_argument("--stub", action="store_true", help="without the network's own time and memory")
    parser.add_argument("--tile", type=int, help="side of the tiles")
    parser.add_argument("--limit", type=float, default=20, help="bytes a pixel")
    options = parser.parse_args()
    over = False
    for megapixels in options.megapixels:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            width, height = make_photograph(place / "photograph.jpg", megapixels)
            began = time.monotonic()
            before, peak = measure(place / "photograph.jpg", place, options.stub, options.tile)
            with Image.open(place / "result/photograph.jpg") as image:
                assert image.size == (width, height)
        a_pixel = max(0, peak - before - SLACK) / (width * height)
        over |= options.stub and a_pixel > options.limit
        print(
            f"{megapixels:g} megapixels ({width} x {height}){', stub' * options.stub}: "
            f"peak {peak / 2**30:.2f} GiB, {before / 2**30:.2f} before it; "
            f"{a_pixel:.1f} bytes a pixel, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
