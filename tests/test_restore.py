"`restore` on every kind of photograph, on everything that is none, and in tiles."
import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms

from dmgn.config import DMGNConfig
from dmgn.files import EXAMPLES, PRETRAINED
from dmgn.images import example, to_tensor
from dmgn.metrics import psnr
from dmgn.model import DMGN, mask_names
from dmgn.photographs import belongings_for
from dmgn.restore import (
    Restoration,
    as_photograph,
    from_array,
    load_network,
    on_whole_blocks,
    pick_tile,
    read_photograph,
    restore,
    restore_file,
    run_tiled,
    tile_weights,
)
from dmgn.tasks import TASKS, find_task
from dmgn.widgets import as_layer, show_restoration

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = pytest.mark.skipif(not (PRETRAINED / "small-deraining/config.json").is_file(), reason="no bundled network")
ORIENTATION, DESCRIPTION, SETTINGS, ISO = 0x0112, 0x010E, 0x8769, 0x8827


@pytest.fixture(scope="module")
def network() -> DMGN:
    "A network that learned nothing."
    torch.manual_seed(0)
    return DMGN(DMGNConfig.tiny("deraining"), vgg_weights="random").eval()


@pytest.fixture
def photograph() -> Image.Image:
    "A small piece of the cat in the rain."
    return example("cat")[0].crop((100, 60, 137, 84))


def one_line(error: pytest.ExceptionInfo) -> bool:
    "Whether a message is a single line of reasonable length."
    return "\n" not in str(error.value) and 10 < len(str(error.value)) < 400


@pytest.mark.parametrize("mode, expected",
                         [("L", "L"), ("1", "L"), ("LA", "LA"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("P", "RGB"),
                                            ("CMYK", "RGB"), ("YCbCr", "RGB"), ("HSV", "RGB"), ("LAB", "RGB")])
def test_modes(network: DMGN, photograph: Image.Image, mode: str, expected: str):
    if mode == "LAB":
        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        given = ImageCms.profileToProfile(photograph, *profiles, outputMode="LAB")
    else: given = photograph.convert(mode)
    result = restore(given, model=network)
    assert (result.background.mode, result.background.size) == (expected, photograph.size)
    assert result.coarse.size == result.noise.size == photograph.size


def test_transparency_is_carried_over(network: DMGN, photograph: Image.Image):
    alpha = Image.linear_gradient("L").resize(photograph.size)
    photograph.putalpha(alpha)
    assert restore(photograph, model=network).background.getchannel("A").tobytes() == alpha.tobytes()
    palette = photograph.convert("RGB").quantize(16)
    palette.info["transparency"] = 0
    assert restore(palette, model=network).background.mode == "RGBA"


def test_greyscale_of_16_bits_stays_so(network: DMGN, photograph: Image.Image, tmp_path: Path):
    grey = np.asarray(photograph.convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    result, expected = (restore(x, model=network).background for x in (tmp_path / "deep.png", photograph.convert("L")))
    assert result.mode == "I;16" and np.abs(np.asarray(result, int) - np.asarray(expected, int) * 257).max() < 300


def test_floating_point_photograph_is_refused(network: DMGN):
    with pytest.raises(ValueError, match="expected 8 or 16 bits") as error:
        restore(Image.new("F", (4, 4)), model=network)
    assert one_line(error)


def test_every_way_to_give_a_photograph_gives_the_same(network: DMGN, photograph: Image.Image, tmp_path: Path):
    photograph.save(tmp_path / "a.png")
    array, tensor = np.asarray(photograph), to_tensor(photograph)
    given = [tmp_path / "a.png", str(tmp_path / "a.png"), photograph, array, array / 255,
             (array / 255).astype(np.float32), tensor, tensor[0]]
    assert len({restore(g, model=network).background.tobytes() for g in given}) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3), (17, 16)])
def test_tiny_sizes(network: DMGN, size: tuple[int, int]):
    result = restore(Image.new("RGB", size, "teal"), model=network)
    assert result.background.size == size
    assert result._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(network: DMGN, photograph: Image.Image, tmp_path: Path, orientation: int):
    exif = Image.Exif()
    exif[ORIENTATION], exif[DESCRIPTION] = orientation, "a cat"
    photograph.save(tmp_path / "a.png", exif=exif)
    seen = read_photograph(tmp_path / "a.png")
    expected = restore(seen.copy(), model=network).background
    restore_file(tmp_path / "a.png", tmp_path / "out/a.png", model=network)
    with Image.open(tmp_path / "out/a.png") as written:
        assert written.size == (photograph.size if orientation < 5 else photograph.size[::-1])
        assert written.getexif().get(ORIENTATION, 1) == 1 and written.getexif()[DESCRIPTION] == "a cat"
        assert written.convert("RGB").tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.bmp", "a.gif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_formats_keep_exif_and_profile(network: DMGN, photograph: Image.Image, tmp_path: Path, name: str, mode: str):
    exif = Image.Exif()
    exif[ORIENTATION], exif[DESCRIPTION] = 6, "a cat"
    exif[SETTINGS] = {ISO: 400}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    given, target = tmp_path / name, tmp_path / "out" / name
    photograph.convert(mode).save(given, exif=exif.tobytes(), icc_profile=profile)
    restore_file(given, target, model=network)
    with Image.open(given) as before, Image.open(target) as after:
        assert after.format == before.format
        assert after.getexif().get(ORIENTATION, 1) == 1
        assert after.getexif().get(DESCRIPTION) == before.getexif().get(DESCRIPTION)
        assert after.getexif().get_ifd(SETTINGS) == before.getexif().get_ifd(SETTINGS)
        assert name[2:] in ("bmp", "gif") or before.getexif().get_ifd(SETTINGS) == {ISO: 400}
        assert after.info.get("icc_profile") == before.info.get("icc_profile")
        assert after.size == ((24, 37) if ORIENTATION in before.getexif() else (37, 24))
    assert [p.name for p in target.parent.iterdir()] == [name]


def test_a_colour_picture_gets_no_profile_of_grey(photograph: Image.Image):
    grey = photograph.convert("L")
    grey.info["icc_profile"] = b"...a profile's size"[:16] + b"GRAY" + b" and more"
    assert belongings_for("TIFF", photograph.convert("RGB"), grey).get("icc_profile") is None
    assert belongings_for("TIFF", grey, grey)["icc_profile"] == grey.info["icc_profile"]


def test_pictures_of_16_bits_are_shown_as_bright_as_they_are():
    grey = Image.fromarray(np.full((32, 32), 20000, np.uint16))
    shown = show_restoration(Restoration(grey, grey, None, None, None, None, {}))
    assert np.asarray(shown.before).max() == np.asarray(as_layer(grey, (32, 32))).max() == 78


def test_floats_of_16_bits_become_the_levels_that_those_of_64_become():
    halves = np.linspace(0, 1, 4096).reshape(64, 64).astype(np.float16)
    assert np.array_equal(from_array(halves), from_array(halves.astype(np.float64)))


def with_thumbnail(exif: bytes, thumbnail: bytes) -> bytes:
    "Add a second directory, which Pillow reads but does not write"
    tiff = bytearray(exif[6:])
    order = "<" if tiff[:2] == b"II" else ">"
    first = struct.unpack_from(f"{order}L", tiff, 4)[0]
    struct.pack_into(f"{order}L", tiff, first + 2 + 12 * struct.unpack_from(f"{order}H", tiff, first)[0], len(tiff))
    second = struct.pack(f"{order}H 2H2L 2H2L L", 2, 0x0201, 4, 1, len(tiff) + 30, 0x0202, 4, 1, len(thumbnail), 0)
    return exif[:6] + bytes(tiff) + second + thumbnail


def test_a_jpeg_loses_the_thumbnail_and_the_sizes_that_no_longer_fit(network: DMGN, photograph: Image.Image,
                                                                     tmp_path: Path):
    small, width, height = io.BytesIO(), 0xA002, 0xA003
    photograph.save(small, "JPEG")
    exif = Image.Exif()
    exif[ORIENTATION], exif[DESCRIPTION] = 6, "a cat"
    exif[SETTINGS] = {ISO: 400, width: photograph.width, height: photograph.height}
    photograph.save(tmp_path / "a.jpg", exif=with_thumbnail(exif.tobytes(), small.getvalue()))
    restore_file(tmp_path / "a.jpg", tmp_path / "out/a.jpg", model=network)
    with Image.open(tmp_path / "a.jpg") as before, Image.open(tmp_path / "out/a.jpg") as after:
        assert before.getexif().get_ifd(ExifTags.IFD.IFD1)[0x0202] == len(small.getvalue())
        assert width in before.getexif().get_ifd(SETTINGS)
        assert not after.getexif().get_ifd(ExifTags.IFD.IFD1)
        assert after.getexif().get_ifd(SETTINGS) == {ISO: 400} and after.getexif()[DESCRIPTION] == "a cat"
    assert small.getvalue() in (tmp_path / "a.jpg").read_bytes()
    assert small.getvalue() not in (tmp_path / "out/a.jpg").read_bytes()


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_tiff_files_that_lie_on_their_side_are_read_upright(photograph: Image.Image, tmp_path: Path, mode: str,
                                                            orientation: int):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    for name in ("a.tif", "a.png"): photograph.convert(mode).save(tmp_path / name, exif=exif.tobytes())
    a, b = (read_photograph(tmp_path / name) for name in ("a.tif", "a.png"))
    assert a.size == b.size and a.tobytes() == b.tobytes()


def test_cmyk_jpeg_loses_the_profile_that_no_longer_fits(network: DMGN, photograph: Image.Image, tmp_path: Path):
    photograph.convert("CMYK").save(tmp_path / "a.jpg", icc_profile=b"a profile of CMYK")
    restore_file(tmp_path / "a.jpg", tmp_path / "out.jpg", model=network)
    with Image.open(tmp_path / "out.jpg") as image: assert image.mode == "RGB" and "icc_profile" not in image.info


def broken_files(folder: Path) -> dict[str, Path]:
    "Files that are no photographs."
    whole = (EXAMPLES / "cat.png").read_bytes()
    content = {"text.png": b"a cat", "empty.jpg": b"", "truncated.png": whole[:20_000], "header.png": whole[:40],
               "flipped.png": whole[:60] + b"\0" * 900}
    Image.open(EXAMPLES / "cat.png").save(folder / "whole.jpg")
    content["truncated.jpg"] = (folder / "whole.jpg").read_bytes()[:5000]
    for name, data in content.items(): (folder / name).write_bytes(data)
    return {name: folder / name for name in content}


@pytest.mark.parametrize("name", ["text.png", "empty.jpg", "truncated.png", "truncated.jpg", "header.png",
                                  "flipped.png"])
def test_broken_files(network: DMGN, tmp_path: Path, name: str):
    path = broken_files(tmp_path)[name]
    with pytest.raises(ValueError, match="cannot be read as a photograph") as error:
        restore_file(path, tmp_path / "out" / name, model=network)
    assert one_line(error) and name in str(error.value)
    assert not (tmp_path / "out").exists()


def test_missing_photograph_and_folder(network: DMGN, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no photograph .*nowhere.jpg"):
        restore(tmp_path / "nowhere.jpg", model=network)
    with pytest.raises(FileNotFoundError, match="it is a folder"): restore(tmp_path, model=network)


def test_a_failed_write_leaves_nothing(network: DMGN, photograph: Image.Image, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch):
    photograph.save(tmp_path / "a.png")
    def fail(*args, **kwargs): raise OSError("no space left on device")
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        restore_file(tmp_path / "a.png", tmp_path / "out/a.png", model=network)
    assert not list((tmp_path / "out").iterdir())


def test_a_file_is_not_written_over_itself(network: DMGN, photograph: Image.Image, tmp_path: Path):
    photograph.save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    for target in (tmp_path / "a.png", tmp_path / "link.png"):
        with pytest.raises(ValueError, match="overwrite its own input"):
            restore_file(tmp_path / "a.png", target, model=network)


@pytest.mark.filterwarnings("error")
def test_large_photographs_do_not_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("1", (300, 300)).save(tmp_path / "a.png")
    for limit in (60_000, 10_000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_photograph(tmp_path / "a.png").size == (300, 300)
    with pytest.raises(ValueError, match="more than 80,000") as error:
        read_photograph(tmp_path / "a.png", max_pixels=80_000)
    assert one_line(error)


@pytest.mark.parametrize("image, message", [
    (np.zeros((4, 4, 3), np.int64), "uint8, uint16 or floats"), (np.zeros((4, 4, 2), np.uint8), "of shape"),
    (np.zeros(4, np.uint8), "of shape"),
    (np.zeros((0, 4, 3), np.uint8), "of shape"), (np.full((4, 4, 3), 255.0), r"in \[0, 1\]"),
    (np.full((4, 4, 3), np.nan), r"in \[0, 1\]"),
    (torch.zeros(2, 3, 4, 4), "a tensor must be"), (torch.zeros(4, 4, 3), "a tensor must be"),
    (torch.zeros(3, 4, 4, dtype=torch.uint8), "a tensor must be"),
    (torch.full((3, 4, 4), 255.0), r"in \[-1, 1\]"), (torch.full((3, 4, 4), torch.nan), r"in \[-1, 1\]"),
    (torch.zeros(3, 0, 4), "a tensor must be"),
    ([1, 2], "not list"), (None, "not NoneType")])
def test_what_is_no_photograph(image, message: str):
    with pytest.raises(ValueError, match=message) as error: as_photograph(image)
    assert one_line(error)


def test_networks_that_do_not_fit(network: DMGN, tmp_path: Path):
    network.save_pretrained(tmp_path / "rain")
    assert load_network("deraining", tmp_path / "rain").config == network.config
    assert load_network("deraining", str(tmp_path / "rain")).config == network.config
    (tmp_path / "text.pth").write_text("not a checkpoint")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "empty").mkdir()
    for task, model, message in [("dehazing", network, "trained for deraining, not for dehazing"),
                                 ("dehazing", tmp_path / "rain", "trained for deraining"),
                                 ("snow", None, "no task 'snow'"),
                                 ("deraining", tmp_path / "text.pth", "not a checkpoint"),
                                 ("deraining", tmp_path / "other.pth", "not a released DMGN"),
                                 ("deraining", tmp_path / "empty", "holds no config.json"),
                                 ("deraining", tmp_path / "none", "no network")]:
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error: load_network(task, model)
        assert one_line(error)


def test_bundled_networks_are_found_by_their_task(network: DMGN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dmgn.network_files.PRETRAINED", tmp_path)
    with pytest.raises(FileNotFoundError, match="only none") as error: load_network("deraining")
    assert one_line(error)
    network.save_pretrained(tmp_path / "small-deraining")
    DMGN(DMGNConfig(task="reflection", width=4, vgg_taps=1, middle_cells=1),
         vgg_weights="random").save_pretrained(tmp_path / "small-dereflection")
    assert load_network("reflection").config.task == "reflection"
    assert load_network("deraining").config == network.config
    for task, asked in (("dehazing", "dehazing"), ("any", None)):
        message = rf"no network for {task} comes with this package \(only small-deraining, small-dereflection\)"
        with pytest.raises(FileNotFoundError, match=message) as error: load_network(asked)
        assert one_line(error)


def test_a_mistyped_repository_fails_at_once_without_a_connection(monkeypatch: pytest.MonkeyPatch):
    asked = []
    def fail(*args, **kwargs): raise asked.append(args) or ConnectionError("no route to the Hub")
    monkeypatch.setattr("dmgn.restore.file_exists", fail)
    monkeypatch.setattr("dmgn.network_files.PyTorchModelHubMixin.from_pretrained",
                        lambda *args, **kwargs: pytest.fail("asked again"))
    with pytest.raises(FileNotFoundError, match="no network nobody/nothing: there is no such folder") as error:
        load_network("deraining", "nobody/nothing")
    assert one_line(error) and len(asked) == 1


def test_a_network_for_any_task_fits_all():
    torch.manual_seed(0)
    anything = DMGN(DMGNConfig.tiny(), vgg_weights="random")
    assert load_network("dehazing", anything) is anything


def test_a_network_without_noise_branch(photograph: Image.Image):
    config = DMGNConfig(width=4, vgg_taps=1, middle_cells=1, refine=False, noise_branch=False, ndm=None,
                        source_regularisation=False)
    result = restore(photograph, model=DMGN(config, vgg_weights="random"), tile=64)
    assert result.noise is None and result.noise_distribution_map is None
    assert result.background.tobytes() == result.coarse.tobytes()


def test_broken_weights_are_noticed(photograph: Image.Image):
    broken = DMGN(DMGNConfig.tiny("deraining"), vgg_weights="random")
    with torch.no_grad(): next(broken.refining.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="not numbers"): restore(photograph, model=broken)


def test_masks_are_named_and_there_for_one_tile_only(network: DMGN, photograph: Image.Image):
    result = restore(photograph, model=network)
    assert list(result.masks) == mask_names(network.config)
    assert result.separator_mask.shape == result.noise_distribution_map.shape == (1, 1, *photograph.size[::-1])
    tiled = restore(photograph.resize((100, 20)), model=network, tile=64)
    assert tiled.masks == {} and tiled.separator_mask.shape == (1, 1, 20, 100)


@pytest.mark.parametrize("side, overlap", [(64, 32), (96, 32), (256, 32), (512, 64)])
def test_tile_weights_add_up_to_one(side: int, overlap: int):
    for length in [*range(1, 700, 7), side, side + 1, 2 * side - overlap, 2 * side - overlap + 1, 4000]:
        total = torch.zeros(length)
        for start, weight in tile_weights(length, side, overlap):
            assert 0 < len(weight) <= side and weight.min() >= 0
            total[start : start + len(weight)] += weight
        torch.testing.assert_close(total, torch.ones(length))


def test_tile_sizes():
    assert pick_tile((700, 700), DMGNConfig.tiny()) >= 700
    assert pick_tile((4000, 3000), DMGNConfig.tiny()) == 512
    with pytest.raises(ValueError, match="expected at least 64"): pick_tile((700, 700), DMGNConfig.tiny(), 0)


def in_fresh_python(code: str) -> str:
    "What a program of its own prints."
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("first", ["from dmgn import restore", "import dmgn; restore = dmgn.restore",
                                   "import dmgn.restore; from dmgn import restore",
                                   "from dmgn import restore; import dmgn.restore; from dmgn import restore",
                                   "from dmgn.restore import restore_file; from dmgn import restore"])
def test_the_package_offers_restore_whatever_was_imported_before(first: str):
    code = f"{first}; from dmgn.images import example; print(restore(example('cat')[0].resize((40, 30))).image.size)"
    assert in_fresh_python(code) == "(40, 30)"


def test_the_package_offers_network_and_configuration_and_imports_nothing_heavy():
    code = "import sys, dmgn; print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    assert in_fresh_python(code) == "[]"
    assert in_fresh_python("from dmgn import DMGN, DMGNConfig; print(DMGN.__name__, DMGNConfig().width)") == "DMGN 64"


@pytest.mark.parametrize("name", [name for task in TASKS.values() for name in (task.name, *task.aliases)])
def test_a_task_is_known_by_all_its_names(network: DMGN, photograph: Image.Image, name: str):
    anything = DMGN(DMGNConfig.tiny(), vgg_weights="random").eval()
    assert load_network(name, anything) is anything
    if find_task(name).name != "deraining":
        with pytest.raises(ValueError, match=f"not for {find_task(name).name}"): load_network(name, network)
    else: assert restore(photograph, name, network).background.size == photograph.size


def in_tiles(network: DMGN, photograph: Image.Image, side: int) -> torch.Tensor: # (3, H, W)
    "A restored background in grey levels"
    strips = run_tiled(network, photograph, side, torch.device("cpu"))
    return torch.cat([strip.background[0] for strip in strips], 1) * 127.5


@pytest.mark.parametrize("size", [(170, 150), (64, 200), (200, 64), (65, 65), (30, 20)])
def test_strips_are_what_a_sum_over_the_whole_photograph_gives(network: DMGN, size: tuple[int, int]):
    (W, H), pixels = size, np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    expected = torch.zeros(3, H, W)
    for y, down in tile_weights(H, 64, 32):
        for x, across in tile_weights(W, 64, 32):
            tile = pixels[y : y + len(down), x : x + len(across)]
            given = to_tensor(tile).to(memory_format=torch.channels_last)
            with torch.inference_mode(): part = on_whole_blocks(network, given).background[0]
            expected[:, y : y + len(down), x : x + len(across)] += part * (down[:, None] * across)
    assert (in_tiles(network, Image.fromarray(pixels), 64) == expected * 127.5).all()


@BUNDLED
def test_tiling_adds_no_visible_seam():
    network = load_network("deraining")
    ramp = (torch.linspace(0, 3, 272).sin() * 80 + 100)[:, None].expand(272, 272)
    smooth = Image.fromarray(torch.stack([ramp, ramp.T, (ramp + ramp.T) / 2], -1).byte().numpy())
    tiled, whole = (in_tiles(network, smooth, side) for side in (112, 272))
    added = tiled - whole
    own = float(whole.diff(dim=-1).abs().mean())
    step = max(float(added.diff(dim=axis).abs().max()) for axis in (1, 2))
    print(f"largest step added {step:.3f} grey levels, the photograph's own mean step {own:.3f}")
    assert step < 0.5 and float(added.abs().max()) < 1


@BUNDLED
def test_blended_tiles_meet_in_smaller_steps_than_pasted_ones(monkeypatch: pytest.MonkeyPatch):
    network, photograph, side = load_network(), example("cat", "rain")[0].crop((60, 40, 236, 152)), 112
    whole, blended = (in_tiles(network, photograph, side) for side in (176, side))
    monkeypatch.setattr("dmgn.restore.tile_weights",
                        lambda *where: [(start, weight.round()) for start, weight in tile_weights(*where)])
    pasted = in_tiles(network, photograph, side)
    (_, first), (second, _) = tile_weights(176, side, 32)
    seam = (len(first) + second) // 2
    steps = [(x - whole).diff(dim=2).abs()[..., seam - 1] for x in (blended, pasted)]
    print(f"where tiles meet: {steps[0].mean():.2f} blended, {steps[1].mean():.2f} pasted")
    assert steps[0].mean() < 0.9 * steps[1].mean() and steps[0].max() < steps[1].max()


@BUNDLED
@pytest.mark.parametrize("name", ["cat", "coffee", "astronaut"])
def test_bundled_network_removes_rain_from_the_examples(name: str):
    rainy, clean = example(name)
    assert psnr(restore(rainy).background, clean) > psnr(rainy, clean) + 1


def test_examples_are_what_the_tool_makes(tmp_path: Path):
    subprocess.run([sys.executable, ROOT / "tools/make_examples.py", tmp_path], check=True, timeout=120)
    for made in sorted(tmp_path.glob("*.png")):
        a, b = (np.asarray(Image.open(p), int) for p in (made, EXAMPLES / made.name))
        assert np.abs(a - b).max() <= 1, made.name
    assert (tmp_path / "LICENSES.md").read_text() == (EXAMPLES / "LICENSES.md").read_text()
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in EXAMPLES.iterdir()}
    assert sum(p.stat().st_size for p in EXAMPLES.iterdir()) < 1_600_000


@pytest.mark.parametrize("noise", [task.noise for task in TASKS.values()])
def test_every_example_has_every_noise_in_moderation(noise: str):
    for name in ("astronaut", "cat", "coffee"):
        noisy, clean = example(name, noise)
        assert noisy.size == clean.size and 12 < psnr(noisy, clean, "rgb") < 27


@BUNDLED
@pytest.mark.skipif(not os.environ.get("DMGN_SLOW"), reason="takes minutes: set DMGN_SLOW=1")
def test_12_megapixels_in_4_gib(tmp_path: Path):
    Image.open(EXAMPLES / "coffee_rain.png").resize((4000, 3000)).save(tmp_path / "big.jpg")
    code = ("import resource, sys; from dmgn.restore import restore_file; restore_file(*sys.argv[1:]);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "big.jpg", tmp_path / "out.jpg"], capture_output=True,
                          text=True, check=True)
    peak = int(done.stdout) / 2**20
    print(f"peak memory {peak:.2f} GiB")
    assert peak < 4
