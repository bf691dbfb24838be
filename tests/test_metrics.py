"Metrics against values known in closed form, against a slow definition, and against torchmetrics."
import csv
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from dmgn import metrics
from dmgn.benchmarks import benchmark_pairs
from dmgn.files import read_rgb
from dmgn.images import example
from dmgn.metrics import (
    PROTOCOLS,
    Score,
    as_float64,
    crop_centre,
    evaluate_pair,
    evaluate_pairs,
    lmse,
    lpips,
    mean_of,
    names_of,
    ncc,
    psnr,
    rgb_to_y,
    saved_predictions,
    ssim,
)
from dmgn.report import report, table, write_csv, write_json

@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    "A rainy photograph and the same without rain, as floats."
    return tuple(as_float64(image.crop((60, 40, 200, 131))) for image in example("cat"))


def batch(array: np.ndarray) -> torch.Tensor:
    "(H, W, C) or (H, W) as torchmetrics takes it."
    return torch.from_numpy(np.atleast_3d(array).transpose(2, 0, 1)[None])


def saved(folder: Path, images: dict[str, Image.Image]) -> list[Path]:
    "Pictures as files of a new folder."
    folder.mkdir(parents=True)
    for name, image in images.items(): image.save(folder / name)
    return [folder / name for name in images]


@pytest.mark.parametrize("low, high", [(0, 255), (16, 235), (100, 101)])
def test_flat_pictures_have_scores_in_closed_form(low: int, high: int):
    a, b = (np.full((24, 24, 3), value, np.uint8) for value in (low, high))
    difference, (x, y) = (high - low) / 255, (low / 255, high / 255)
    for protocol in ("rgb", "rgb-per-channel"): assert psnr(a, b, protocol) == pytest.approx(-20 * np.log10(difference))
    assert psnr(a, b, "y") == pytest.approx(-20 * np.log10(difference * 219 / 255))
    assert ssim(a, b, "rgb-per-channel") == pytest.approx((2 * x * y + 1e-4) / (x * x + y * y + 1e-4))
    x, y = (float(rgb_to_y(z)[0, 0]) for z in (a, b))
    assert ssim(a, b, "y") == pytest.approx((2 * x * y + 1e-4) / (x * x + y * y + 1e-4))


def test_psnr_agrees_with_torchmetrics(pair: tuple[np.ndarray, np.ndarray]):
    peak = pytest.importorskip("torchmetrics.functional.image").peak_signal_noise_ratio
    a, b = map(batch, pair)
    assert psnr(*pair, "rgb") == pytest.approx(float(peak(a, b, data_range=1.0)), abs=1e-4)
    assert psnr(*pair, "rgb-per-channel") == pytest.approx(
        np.mean([float(peak(a[:, c], b[:, c], data_range=1.0)) for c in range(3)]), abs=1e-4)
    assert psnr(*pair, "y") == pytest.approx(float(peak(*(batch(rgb_to_y(x)) for x in pair), data_range=1.0)), abs=1e-4)


def test_gaussian_ssim_agrees_with_torchmetrics(pair: tuple[np.ndarray, np.ndarray]):
    similarity = pytest.importorskip("torchmetrics.functional.image").structural_similarity_index_measure
    _, full = similarity(*(batch(rgb_to_y(x)) for x in pair), data_range=1.0, return_full_image=True)
    expected = float(full[..., 5:-5, 5:-5].mean())  # torchmetrics mirrors at the border, which is cut off here
    assert ssim(*pair, "y") == pytest.approx(expected, abs=1e-6)
    _, full = similarity(*(batch(np.pad(x, ((10, 10), (10, 10), (0, 0)))) for x in pair), data_range=1.0,
                         return_full_image=True)
    assert ssim(*pair, "rgb") == pytest.approx(float(full[..., 10:-10, 10:-10].mean()), abs=1e-6)


def test_studio_range_is_worth_1_32_decibels(pair: tuple[np.ndarray, np.ndarray]):
    full_range = -10 * np.log10(np.square((pair[0] - pair[1]) @ [65.481 / 219, 128.553 / 219, 24.966 / 219]).mean())
    assert psnr(*pair, "y") - full_range == pytest.approx(1.32, abs=0.005)


def slow_lmse(prediction: np.ndarray, target: np.ndarray) -> float:
    "LMSE window by window, each scaled by least squares."
    lost = whole = 0
    for c in range(3):
        for top in range(0, target.shape[0] - 19, 10):
            for left in range(0, target.shape[1] - 19, 10):
                x, y = (z[top : top + 20, left : left + 20, c].ravel() for z in (target, prediction))
                factor = np.linalg.lstsq(y[:, None], x, rcond=None)[0]
                lost, whole = lost + np.square(x - factor * y).sum(), whole + np.square(x).sum()
    return lost / whole


def test_lmse_is_what_its_definition_says(pair: tuple[np.ndarray, np.ndarray]):
    assert lmse(*pair) == pytest.approx(slow_lmse(*pair), rel=1e-9)
    a = pair[0].copy()
    a[20:60, 30:80] = 0
    assert lmse(a, pair[1]) == pytest.approx(slow_lmse(a, pair[1]), rel=1e-9), "black windows"
    assert lmse(*pair) != pytest.approx(lmse(*pair[::-1]), rel=1e-3), "it is the prediction that is scaled"
    assert lmse(np.zeros_like(a), pair[1]) == 1


def test_lmse_lets_every_window_have_its_own_exposure(pair: tuple[np.ndarray, np.ndarray]):
    target = np.tile(pair[1][:20, :20], (1, 2, 1))
    halves = np.repeat([0.9, 0.3], 20)[:, None] * target
    assert lmse(0.5 * target, target) == pytest.approx(0, abs=1e-12)
    expected = pytest.approx(slow_lmse(halves, target))
    assert 0 < lmse(halves, target) == expected, "one of three windows has both exposures"


def test_ncc_is_a_correlation(pair: tuple[np.ndarray, np.ndarray]):
    assert ncc(*pair) == pytest.approx(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1])
    assert ncc(0.25 + pair[1] / 2, pair[1]) == pytest.approx(1) and ncc(1 - pair[1], pair[1]) == pytest.approx(-1)
    assert np.isnan(ncc(np.full_like(pair[1], 0.5), pair[1]))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_says_which_numbers_there_are(pair: tuple[np.ndarray, np.ndarray], protocol: str):
    score = evaluate_pair(*pair, protocol, "cat")
    assert score[:3] == ("cat", psnr(*pair, protocol), ssim(*pair, protocol))
    assert score[3:] == ((lmse(*pair), ncc(*pair), None) if protocol == "rgb-per-channel" else (None, None, None))
    equal = evaluate_pair(pair[1], pair[1], protocol)
    assert (equal.psnr, equal.ssim) == (float("inf"), pytest.approx(1)) and equal.lmse in (None, pytest.approx(0))
    assert equal.ncc in (None, pytest.approx(1))


@pytest.fixture
def alexnet(monkeypatch: pytest.MonkeyPatch) -> None:
    "Random weights in place of those that would be downloaded."
    models = pytest.importorskip("torchvision.models")
    pytest.importorskip("torchmetrics.image.lpip")
    torch.manual_seed(0)
    state = models.alexnet().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: state)
    metrics.lpips_network.cache_clear()
    yield
    metrics.lpips_network.cache_clear()


def test_lpips(pair: tuple[np.ndarray, np.ndarray], alexnet: None):
    assert lpips(pair[1], pair[1]) == pytest.approx(0, abs=1e-7)
    half = (pair[0] + pair[1]) / 2
    assert 0 < lpips(half, pair[1]) < lpips(pair[0], pair[1])
    assert evaluate_pair(*pair, "y", with_lpips=True).lpips == lpips(*pair)
    from torchmetrics.functional.image.lpips import _LPIPS
    by_hand = _LPIPS(net="alex")(*(batch(x).float() * 2 - 1 for x in pair))
    assert lpips(*pair) == pytest.approx(float(by_hand), rel=1e-5), "pictures must be in [-1, 1] inside"
    with pytest.raises(ValueError, match="at least 32x32 pixels, not 40x31"):
        lpips(pair[0][:31, :40], pair[1][:31, :40])


def test_lpips_without_package_or_weights_is_one_line(pair: tuple[np.ndarray, np.ndarray], alexnet: None,
                                                      monkeypatch: pytest.MonkeyPatch):
    def no_network(*args, **kwargs): raise URLError("no network")
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(OSError, match=r"could not download .*no network.*checkpoints"): lpips(*pair)
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    with pytest.raises(ValueError, match="pip install torchmetrics"): lpips(*pair)


def test_the_mean_is_the_mean_of_pictures_not_of_pixels():
    rows = [Score("a", 20, 0.5, 0.1, 0.9), Score("b", 40, 0.7, 0.3, 0.5)]
    assert mean_of(rows) == ("mean of 2", 30, pytest.approx(0.6), pytest.approx(0.2), pytest.approx(0.7), None)
    with pytest.raises(ValueError, match="no pictures"): mean_of([])


def test_pairs_are_cropped_only_where_asked(tmp_path: Path):
    rainy, clean = (image.crop((0, 0, 61, 50)) for image in example("cat"))
    inputs = saved(tmp_path / "hazy", {"1_2.png": rainy.crop((10, 5, 51, 45)), "2_2.png": rainy})
    pairs = list(zip(inputs, saved(tmp_path / "clear", {"1.png": clean, "2.png": clean})))
    rows, mean = evaluate_pairs(lambda image: image, pairs, "rgb", crop_target=True)
    expected = psnr(rainy.crop((10, 5, 51, 45)), clean.crop((10, 5, 51, 45)), "rgb")
    assert [row.psnr for row in rows] == pytest.approx([expected, psnr(rainy, clean, "rgb")])
    assert mean.psnr == pytest.approx(np.mean([row.psnr for row in rows]))
    with pytest.raises(ValueError, match=r"1_2.png: sizes differ: prediction 41x40, target 61x50"):
        evaluate_pairs(lambda image: image, pairs, "rgb")
    with pytest.raises(ValueError, match=r"1_2.png: sizes differ: prediction 9x9, target 41x40"):
        evaluate_pairs(lambda image: image.resize((9, 9)), pairs, "rgb", crop_target=True)


def test_a_smaller_target_is_not_padded():
    small = Image.new("RGB", (30, 50))
    assert crop_centre(small, (40, 40)) is small and crop_centre(small, (20, 21)).size == (20, 21)


def test_pictures_are_read_upright_and_in_8_bits(tmp_path: Path):
    image = example("cat")[0].crop((0, 0, 30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "lying.png", exif=exif)
    assert read_rgb(tmp_path / "lying.png").size == (20, 30)
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("a text")
    image.save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-200])
    for name, message in {"deep.png": "more than 8 bits", "text.png": "cannot be read",
                          "half.jpg": "cannot be read"}.items():
        with pytest.raises(ValueError, match=f"{name} .*{message}|{name} {message}"): read_rgb(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"no photograph .*none.png"): read_rgb(tmp_path / "none.png")


def test_saved_predictions_are_complete_or_an_error(tmp_path: Path):
    image = Image.new("RGB", (4, 4))
    sources = saved(tmp_path / "in", {f"{n}.bmp": image for n in (1, 2, 10)})
    found = saved(tmp_path / "out", {f"{n}.png": image for n in (1, 2, 10)})
    assert saved_predictions(tmp_path / "out", sources) == found
    image.save(tmp_path / "out/2.jpg")
    with pytest.raises(ValueError, match="two photographs named 2"): saved_predictions(tmp_path / "out", sources)
    for name in ("2.jpg", "2.png"): (tmp_path / "out" / name).unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of 3 pictures: 2"):
        saved_predictions(tmp_path / "out", sources)
    image.save(tmp_path / "out/2.png"), image.save(tmp_path / "out/mask.png")
    with pytest.raises(ValueError, match="1 pictures that the test set does not have: mask"):
        saved_predictions(tmp_path / "out", sources)


def test_scenes_in_folders_of_their_own(tmp_path: Path):
    image = Image.new("RGB", (4, 4))
    sources = [path for scene in ("1", "2") for path in saved(tmp_path / "wild" / scene, {"m.png": image})]
    assert names_of(sources) == ["1/m.png", "2/m.png"] and names_of([]) == []
    found = [path for scene in ("1", "2") for path in saved(tmp_path / "out" / scene, {"m.jpg": image})]
    assert saved_predictions(tmp_path / "out", sources) == found
    found[1].rename(found[1].with_name("n.jpg"))
    with pytest.raises(FileNotFoundError, match="lacks 1 of 2 pictures: 2/m"):
        saved_predictions(tmp_path / "out", sources)


def test_a_report_can_be_checked(tmp_path: Path):
    image = example("cat")[1].crop((0, 0, 40, 30))
    paths = saved(tmp_path / "truth", {"a.png": image, "b.png": image})
    rows = [evaluate_pair(image, image, "rgb-per-channel", "a.png"),
            evaluate_pair(image.rotate(180), image, "rgb-per-channel", "b.png")]
    write_json(tmp_path / "r.json", report({"restored": rows}, {"target": paths}, "rgb-per-channel", {"pred": "out"},
                                           paths[0]))
    stored = json.loads((tmp_path / "r.json").read_text())
    digest = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    assert stored["pictures"][0]["files"] == {"target": {"path": str(paths[0]), "sha256": digest}}
    assert stored["weights"]["sha256"] == digest
    assert stored["pictures"][0]["restored"]["psnr"] is None and stored["mean"]["restored"]["psnr"] is None, "infinite"
    assert stored["pictures"][1]["restored"] == {name: pytest.approx(getattr(rows[1], name))
                                                 for name in ("psnr", "ssim", "lmse", "ncc")}
    assert stored["protocol"]["name"] == "rgb-per-channel"
    assert {"dmgn", "python", "torch", "scikit-image"} <= stored["versions"].keys()
    write_csv(tmp_path / "r.csv", {"input": rows, "restored": rows[::-1]})
    with (tmp_path / "r.csv").open(newline="") as file: lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == ["a.png", "b.png"] and float(lines[1]["input_ncc"]) == rows[1].ncc
    assert lines[0]["input_psnr"] == "inf"
    assert "restored_lmse" in lines[0] and "input_lpips" not in lines[0]
    shown = table({"input": rows[1], "restored": rows[0]}).splitlines()
    assert shown[0].split() == ["PSNR", "SSIM", "LMSE", "NCC"]
    assert shown[1].split()[:2] == ["input", f"{rows[1].psnr:.2f}"]


@pytest.mark.parametrize("name, protocol, expected",
                         [("rain100L", "y", 26.90), ("real20_300", "rgb", 18.88),
                          ("real20_300", "rgb-per-channel", 19.12),
                                                      ("ihaze_small", "rgb", 14.51)])
def test_inputs_of_test_sets_have_their_known_psnr(shared: Callable[[str], Path], name: str, protocol: str,
                                                   expected: float):
    pairs = benchmark_pairs(name, shared(f"data/{name}"))
    assert np.mean([psnr(*map(read_rgb, pair), protocol) for pair in pairs]) == pytest.approx(expected, abs=0.006)
