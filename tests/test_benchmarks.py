"Public data sets: miniature trees of every layout, and downloads from servers that do not behave."
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

import dmgn.fetching
from dmgn.benchmarks import BENCHMARKS, benchmark_inputs, benchmark_pairs, convert_dcpdn, open_pair
from dmgn.commands.data import data_app
from dmgn.commands.shell import OneLineErrors
from dmgn.fetching import fetch, inside, known_files, manifest, verify
from dmgn.metrics import PROTOCOLS

TREES = {  # by data set: trees, each as input > target, or > alone where there is no target
    "plnet_real": ["plnet_real/blended/1.jpg > plnet_real/transmission_layer/1.jpg",
                   "real_train/blended/1.png > real_train/transmission_layer/1.png"],
    "real20": ["blended/3.jpg > transmission_layer/3.jpg", "real20/I_test/4.jpg > real20/T_test/4.jpg"],
    "real20_300": ["real20_300/blended/3.png > real20_300/transmission_layer/3.png"],
    "real20_420": ["real20_420/blended/3.jpg > real20_420/transmission_layer/3.jpg"],
    "nature20": ["1-2_31_real_I_00.png > 1-2_31_real_T_00.png",
                 "Nature/blended/2_34.jpg > Nature/transmission_layer/2_34.jpg"],
    "solid": ["SIR2/SolidObjectDataset/17/m.jpg > SIR2/SolidObjectDataset/17/g.jpg",
              "solidobject/blended/1.png > solidobject/transmission_layer/1.png"],
    "postcard": ["PostcardDataset/Focus/1/m.png > PostcardDataset/Focus/1/g.png",
                 "postcard/blended/1.png > postcard/transmission_layer/1.png"],
    "wild": ["WildSceneDataset/1_m.png > WildSceneDataset/1_g.png",
             "wild/blended/1.png > wild/transmission_layer/1.png"],
    "ceilnet_table2": ["ceilnet/testdata_reflection_synthetic_table2/2012_1-input.png > "
                       "ceilnet/testdata_reflection_synthetic_table2/2012_1-label1.png"],
    "ceilnet_real": ["CEILNet/testdata_reflection_real/new2-1-input.jpg >", "19-input.png >"],
    "errnet_unaligned": ["refined_unaligned_data/unaligned300/blended/1.jpg >", "blended/1.jpg >"],
    "rain100L": ["rain100L/input/1.png > rain100L/target/1.png",
                 "Rain100L/rain-001.png > Rain100L/norain-001.png",
                 "rain-001.png > norain-001.png",
                 "rainy/rain-001.png > norain-001.png",
                 "rainy/rain-001.png > norain/norain-001.png",
                 "rain/rain-001.png > norain/norain-001.png",
                 "rain_data_test_Light/rain/X2/norain-001x2.png > rain_data_test_Light/norain/norain-001.png"],
    "rain100H": ["rain100H/inputcrop/1.png > rain100H/cleancrop/1.png",
                 "Rain100H/rainy/rain-001.png > Rain100H/norain-001.png"],
    "gt_rain_dev": ["gt_rain_dev/input/Road-R-001.png > gt_rain_dev/target/Road-R-001.png"],
    "its": ["ITS_v2/hazy/1_1_0.90179.png > ITS_v2/clear/1.png"],
    "ots": ["OTS_BETA/hazy/part1/0005_0.8_0.04.jpg > OTS_BETA/clear/0005.jpg",
            "hazy/0005_0.8_0.04.jpg > clear/0005.jpg"],
    "sots_indoor": ["SOTS/indoor/nyuhaze500/hazy/1400_1.png > SOTS/indoor/nyuhaze500/gt/1400.png",
                    "indoor/hazy/1400_10.png > indoor/clear/1400.png"],
    "sots_indoor_50": ["sots_indoor_50/hazy/1400_1.png > sots_indoor_50/gt/1400.png"],
    "sots_outdoor": ["SOTS/outdoor/hazy/0001_0.8_0.2.jpg > SOTS/outdoor/gt/0001.png",
                     "outdoor/hazy/0001_0.8_0.2.jpg > outdoor/clear/0001.png"],
    "ohaze": ["# O-HAZY NTIRE 2018/hazy/01_outdoor_hazy.jpg > # O-HAZY NTIRE 2018/GT/01_outdoor_GT.jpg",
              "ohaze/hazy/01.jpg > ohaze/GT/01.jpg"],
    "ihaze_small": ["ihaze_small/hazy/01.jpg > ihaze_small/GT/01.jpg"],
    "dcpdn_testa": ["TestA/hazy/1.png > TestA/gt/1.png"],
    "bsds500": ["BSDS500/train/100075.jpg >"],
    "kodak24": ["kodak24/01.png >", "kodim01.png >"],
}


def make(root: Path, *names: str) -> Path:
    "A folder with empty files."
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_every_data_set_has_a_miniature():
    assert TREES.keys() == BENCHMARKS.keys()
    assert {b.protocol for b in BENCHMARKS.values() if b.has_targets} == set(PROTOCOLS)


@pytest.mark.parametrize(("name", "tree"), [(name, tree) for name, trees in TREES.items() for tree in trees])
def test_a_miniature_is_read(name: str, tree: str, tmp_path: Path):
    source, target = (part.strip() for part in tree.split(">"))
    make(tmp_path, source, "readme.txt", *([target] if target else []))
    assert benchmark_inputs(name, tmp_path) == [tmp_path / source]
    assert BENCHMARKS[name].has_targets == bool(target)
    if target: assert benchmark_pairs(name, tmp_path) == [(tmp_path / source, tmp_path / target)]
    else:
        with pytest.raises(ValueError, match=f"{name} has no ground truth"): benchmark_pairs(name, tmp_path)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_another_layout_is_answered_with_the_tree_and_the_address(name: str, tmp_path: Path):
    make(tmp_path, "foo/a.png", "bar/a.png")
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError) as error: benchmark_inputs(name, root)
        assert BENCHMARKS[name].tree in str(error.value) and BENCHMARKS[name].source in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name, row in BENCHMARKS.items() if row.has_targets])
def test_an_input_without_its_target_is_an_error(name: str, tmp_path: Path):
    make(tmp_path, *(part.strip() for part in TREES[name][0].split(">")))
    source = tmp_path / TREES[name][0].split(">")[0].strip()
    renamed = source.with_name(source.name.translate(str.maketrans("1345", "7777")))
    other = source.parents[1] / "9/m.jpg" if source.stem == "m" else renamed
    make(other.parent, other.name)
    with pytest.raises(FileNotFoundError, match="1 inputs have no target"): benchmark_pairs(name, tmp_path)


def test_a_target_without_input_is_an_error_in_a_test_set(tmp_path: Path):
    make(tmp_path, "rain100L/input/1.png", "rain100L/target/1.png", "rain100L/target/2.png", "its/hazy/1_1_0.9.png",
         "its/clear/1.png", "its/clear/2.png")
    with pytest.raises(FileNotFoundError, match="1 targets have no input: target/2"):
        benchmark_pairs("rain100L", tmp_path)
    assert len(benchmark_pairs("its", tmp_path)) == 1


def test_inputs_are_in_the_order_of_their_numbers(tmp_path: Path):
    make(tmp_path, *(f"{folder}/{i}.png" for folder in ("input", "target") for i in (10, 9, 1, 100)))
    assert [a.stem for a, _ in benchmark_pairs("rain100L", tmp_path)] == ["1", "9", "10", "100"]


def test_two_pictures_of_one_name_are_an_error(tmp_path: Path):
    make(tmp_path, "input/1.png", "input/1.jpg", "target/1.png")
    with pytest.raises(ValueError, match=r"two pictures named 1: 1.jpg and 1.png"):
        benchmark_pairs("rain100L", tmp_path)


@pytest.mark.parametrize(("name", "count"), [("rain100L", 100), ("real20_300", 20), ("ihaze_small", 15),
                                                ("gt_rain_dev", 19), ("sots_indoor_50", 50)])
def test_the_data_beside_the_project_are_read(name: str, count: int, shared: Callable[[str], Path]):
    root = shared(f"data/{name}")
    pairs = benchmark_pairs(name, root)
    assert len(pairs) == count == BENCHMARKS[name].count and pairs == benchmark_pairs(name, root.parent)
    for pair in pairs[:3]: assert len({image.size for image in open_pair(name, pair)}) == 1


def test_real20_is_not_taken_for_the_same_pictures_at_another_size(tmp_path: Path):
    make(tmp_path, "real20_420/blended/3.jpg", "real20_420/transmission_layer/3.jpg")
    assert len(benchmark_pairs("real20_420", tmp_path)) == 1
    with pytest.raises(FileNotFoundError, match="not laid out as real20"): benchmark_pairs("real20", tmp_path)


def test_a_test_set_is_not_taken_for_another_beside_it(tmp_path: Path):
    make(tmp_path, "PostcardDataset/1/m.png", "PostcardDataset/1/g.png")
    assert len(benchmark_pairs("postcard", tmp_path)) == 1
    with pytest.raises(FileNotFoundError, match=r"no folder solid in .*, which holds PostcardDataset"):
        benchmark_pairs("solid", tmp_path)


def test_ceilnets_two_sets_lie_side_by_side(tmp_path: Path):
    synthetic = "CEILNet/testdata_reflection_synthetic_table2/1"
    make(tmp_path, f"{synthetic}-input.png", f"{synthetic}-label1.png", "CEILNet/testdata_reflection_real/9-input.png")
    assert [a.stem for a, _ in benchmark_pairs("ceilnet_table2", tmp_path)] == ["1-input"]


def test_raised_digits_are_no_numbers(tmp_path: Path):
    make(tmp_path, *(f"{folder}/{name}.png" for folder in ("input", "target") for name in ("x1²", "x1")))
    assert len(benchmark_pairs("gt_rain_dev", tmp_path)) == 2


def test_the_list_leads_to_files_that_the_reader_finds(tmp_path: Path):
    for name in ("real20", "nature20", "rain100L", "rain100H", "ceilnet_table2", "ceilnet_real", "bsds500", "kodak24"):
        make(tmp_path / name, *known_files(name))
        assert len(benchmark_inputs(name, tmp_path)) == BENCHMARKS[name].count
        if BENCHMARKS[name].has_targets:
            assert len(benchmark_pairs(name, tmp_path)) == BENCHMARKS[name].count - (name == "real20")


def test_hdf5_files_become_pairs(tmp_path: Path):
    h5py = pytest.importorskip("h5py")
    with pytest.raises(FileNotFoundError, match=r"no .h5 files in"): convert_dcpdn(tmp_path, tmp_path / "dcpdn_testa")
    rng, haze, clear = np.random.default_rng(0), *np.random.default_rng(1).random((2, 6, 8, 3))
    with h5py.File(tmp_path / "1.h5", "w") as file:
        file["haze"], file["gt"], file["trans"] = haze, clear, rng.random((6, 8, 3))
    assert convert_dcpdn(tmp_path, tmp_path / "dcpdn_testa") == 1
    [pair] = benchmark_pairs("dcpdn_testa", tmp_path)
    for image, array in zip(open_pair("dcpdn_testa", pair), (haze, clear)):
        assert np.abs(np.asarray(image) / 255 - array).max() <= 0.5 / 255 + 1e-6


# From here on: fetching, from a server on this machine.

class Server(SimpleHTTPRequestHandler):
    "Serves files, and does to those in `faults` what it says there; knows Range; notes what was asked for."
    faults: ClassVar[dict[str, str]] = {}
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        self.asked.append((path.name, self.headers.get("Range", "")))
        fault = self.faults.get(path.name, "")
        if not path.is_file() or fault == "gone": return self.send_error(404)
        body = path.read_bytes()
        if fault == "corrupt": body = bytes([body[0] ^ 1]) + body[1:]
        if fault == "endless": body *= 50
        start = 0
        if "Range" in self.headers and fault != "no range":
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        if start: self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        sent = body[start : start + 100_000 if fault in ("drop", "short") else None]
        if fault != "endless":
            self.send_header("Content-Length", str(len(sent) if fault == "short" else len(body) - start))
        self.end_headers()
        with suppress(ConnectionError): self.wfile.write(sent)

    def log_message(self, *arguments: object) -> None: pass


class Served:
    "A data set of three files of 200 kB on a server."
    def __init__(self, folder: Path, url: str):
        self.url, self.root = url, folder / "data"
        self.files = {name: np.random.default_rng(i).bytes(200_000)
                      for i, name in enumerate(("01.png", "02.png", "03.png"))}
        commit = folder / "served/owner/pictures" / ("0" * 40)
        (commit / "a (b)").mkdir(parents=True)
        for name, body in self.files.items(): (commit / "a (b)" / name).write_bytes(body)
        entries = {name: {"path": f"a (b)/{name}", "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
                   for name, body in self.files.items()}
        self.sets = {"kodak24": {"repository": "owner/pictures", "commit": "0" * 40, "files": entries}}

    def fetch(self) -> int: return fetch("kodak24", self.root, self.url, self.sets)[1]

    def there(self) -> list[str]: return sorted(p.name for p in (self.root / "kodak24").iterdir())

    def right(self) -> bool:
        return all((self.root / "kodak24" / name).read_bytes() == body for name, body in self.files.items())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    "The data set, while its server runs."
    Server.faults, Server.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=tmp_path / "served"))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Served(tmp_path, f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def test_files_are_fetched_once(served: Served):
    assert served.fetch() == 3 and served.right() and served.there() == list(served.files)
    assert served.fetch() == 0 and len(Server.asked) == 3
    (served.root / "kodak24/02.png").write_bytes(b"x" * 200_000)
    assert served.fetch() == 1 and served.right() and Server.asked[-1][0] == "02.png"


@pytest.mark.parametrize(("fault", "reason"),
                         [("corrupt", "wrong SHA-256, not kept"), ("gone", "the server answered 404"),
                          ("drop", "the connection failed or broke off"),
    ("short", "100000 of 200000 bytes received")])
def test_a_bad_file_does_not_stop_the_others(served: Served, fault: str, reason: str):
    Server.faults = {"02.png": fault}
    with pytest.raises(OSError, match=f"1 of 3 files of kodak24 were not fetched, the first 02.png: {reason}"):
        served.fetch()
    parts = {".02.png.part"} if fault in ("drop", "short") else set()
    assert set(served.there()) == {"01.png", "03.png"} | parts
    assert verify("kodak24", served.root, served.sets) == {"02.png": "missing"}
    Server.faults = {}
    assert served.fetch() == 1 and served.right() and served.there() == list(served.files)
    name, wanted = Server.asked[-1]
    assert name == "02.png" and bool(wanted) == bool(parts) and wanted != "bytes=0-"


def test_a_server_that_does_not_stop_is_cut_off(served: Served):
    Server.faults = {"02.png": "endless"}
    assert served.fetch() == 3 and served.right()


def test_a_server_that_knows_no_range_starts_again(served: Served):
    Server.faults = {"02.png": "drop"}
    with pytest.raises(OSError, match="1 of 3"): served.fetch()
    Server.faults = {"02.png": "no range"}
    assert served.fetch() == 1 and served.right()


def test_a_wrong_beginning_is_thrown_away(served: Served):
    make(served.root / "kodak24", ".02.png.part")
    for rest in (b"x" * 1000, b"x" * 200_000, b"x" * 300_000):
        (served.root / "kodak24/.02.png.part").write_bytes(rest)
        if len(rest) < 200_000:
            with pytest.raises(OSError, match=r"02.png: wrong SHA-256"): served.fetch()
        assert served.fetch() in (0, 1) and served.right() and served.there() == list(served.files)
        (served.root / "kodak24/02.png").unlink()


def test_no_server_is_one_line(served: Served):
    with pytest.raises(OSError,
                       match=r"3 of 3 files of kodak24 were not fetched, the first 01.png: the connection failed"):
        fetch("kodak24", served.root, "http://127.0.0.1:1", served.sets)


@pytest.mark.parametrize("name", ["../out.png", "a/../../../out.png", "/tmp/out.png", "C:/out.png", "C:out.png",
                                  "..\\out.png", "\\\\host\\out.png", "a//out.png", ""])
def test_nothing_is_written_outside_the_folder(served: Served, name: str):
    files = served.sets["kodak24"]["files"]
    files[name] = files.pop("02.png")
    before = sorted(served.root.parent.rglob("*"))
    with pytest.raises(ValueError, match="expected a path below the folder"): served.fetch()
    assert sorted(served.root.parent.rglob("*")) == before and not Server.asked


def test_no_link_is_followed_out_of_the_folder(served: Served, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/02.png").write_bytes(b"precious")
    files, folder = served.sets["kodak24"]["files"], served.root / "kodak24"
    folder.mkdir(parents=True)
    (folder / "02.png").symlink_to(tmp_path / "elsewhere/02.png")
    with pytest.raises(ValueError, match="leads out of"): served.fetch()
    (folder / "02.png").unlink()
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    files["sub/02.png"] = files.pop("02.png")
    with pytest.raises(ValueError, match="leads out of"): served.fetch()
    assert (tmp_path / "elsewhere/02.png").read_bytes() == b"precious" and not Server.asked


def test_the_packaged_list_stays_inside(tmp_path: Path):
    for known in manifest().values():
        assert len(known["commit"]) == 40
        assert all(set(entry) == {"path", "sha256", "bytes"} for entry in known["files"].values())
        for name in known["files"]: assert inside(tmp_path, name).is_relative_to(tmp_path)


def test_the_packaged_list_is_the_one_of_the_facts(shared: Callable[[str], Path]):
    assert manifest() == json.loads(shared("facts/benchmarks.json").read_text(encoding="utf-8"))


def test_the_test_set_beside_the_project_is_the_listed_one(shared: Callable[[str], Path]):
    assert verify("rain100L", shared("data/rain100L")) == {}


@pytest.fixture
def run(served: Served, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    "`run(\"fetch\", ...)`: `dmgn data fetch ...` from the server on this machine."
    monkeypatch.setattr(dmgn.fetching, "manifest", lambda: served.sets)
    monkeypatch.setattr(dmgn.fetching.fetch, "__defaults__", (served.url, None))
    app = typer.Typer(cls=OneLineErrors)
    app.add_typer(data_app, name="data")
    return lambda *arguments: CliRunner().invoke(app, ["data", *map(os.fspath, arguments)])


def test_the_commands_fetch_and_verify(run: Callable[..., Result], served: Served):
    Server.faults = {"02.png": "corrupt"}
    result = run("fetch", "kodak24", "--root", served.root)
    assert result.exit_code == 1 and "the first 02.png: wrong SHA-256, not kept" in result.stderr
    assert "Traceback" not in result.output
    result = run("verify", "kodak24", served.root)
    assert result.exit_code == 1 and "02.png: missing" in result.stderr and "2 of 3 files are right" in result.stdout
    Server.faults = {}
    result = run("fetch", "kodak24", "--root", served.root)
    assert result.exit_code == 0 and "1 of 3 files fetched into" in result.stdout and "2 there already" in result.stdout
    assert run("verify", "kodak24", served.root).exit_code == 0


@pytest.mark.parametrize(("arguments", "message"),
                         [(("fetch", "ohaze"), "ohaze cannot be fetched: it is to be had from data.vision"),
                          (("fetch", "rain100M"), "no data set 'rain100M'"),
    (("verify", "kodak24", "nowhere"), "no folder nowhere"),
    (("leaks", "nowhere", "--test", "rain100L"), "no folder nowhere")])
def test_what_cannot_be_done_is_one_line(run: Callable[..., Result], arguments: tuple[str, ...], message: str):
    result = run(*arguments)
    assert result.exit_code == 1 and message in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_the_list_names_every_data_set():
    result = CliRunner().invoke(data_app, ["list"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == list(BENCHMARKS)
