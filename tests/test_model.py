"Loading and keeping networks: what is downloaded when, and what a broken folder says."

import json

import pytest
import torch
from torchvision.models import vgg

from dmgn.config import DMGNConfig
from dmgn.hypercolumn import VGGTrunk
from dmgn.model import DMGN

@pytest.fixture(scope="module")
def tiny() -> DMGN:
    return DMGN(DMGNConfig.tiny("deraining"), vgg_weights="random").eval()


@pytest.fixture
def saved(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def test_vgg_weights_are_fetched_once_and_on_first_use(monkeypatch):
    torch.manual_seed(0)
    state, calls = {f"features.{k}": v for k, v in VGGTrunk(1, "random").features.state_dict().items()}, []
    monkeypatch.setattr(vgg.VGG19_Weights, "get_state_dict", lambda self, **_: calls.append(self) or state)
    trunk = VGGTrunk(taps=1)
    assert not calls
    for _ in range(2):
        trunk(torch.zeros(1, 3, 8, 8))
    assert calls == [vgg.VGG19_Weights.IMAGENET1K_V1]
    assert torch.equal(trunk.features[0].weight, state["features.0.weight"])


def test_a_loaded_network_fetches_nothing(monkeypatch, saved):
    monkeypatch.setattr(vgg.VGG19_Weights, "get_state_dict", lambda *_, **__: pytest.fail("tried to download"))
    DMGN.from_pretrained(saved)(torch.zeros(1, 3, 20, 20))
    DMGN.from_pretrained("small-deraining")(torch.zeros(1, 3, 20, 20))


def test_vgg_weights_from_a_local_file(shared):
    trunk = VGGTrunk(taps=3, weights=shared("weights/vgg19_conv1_1_to_conv3_4.safetensors"), normalise=True)
    assert all(tap.isfinite().all() and tap.amax((0, 2, 3)).gt(0).any()
               for tap in trunk(torch.rand(1, 3, 64, 64) * 2 - 1))
    with pytest.raises(ValueError, match=r"is not VGG-19 down to relu4_1: features\.19\.bias is missing"):
        VGGTrunk(taps=4, weights=shared("weights/vgg19_conv1_1_to_conv3_4.safetensors"))


def test_saved_networks_restore_alike(tiny, saved):
    image = torch.rand(1, 3, 33, 47) * 2 - 1
    with torch.inference_mode():
        assert torch.allclose(tiny(image).background, DMGN.from_pretrained(saved)(image).background, atol=1e-5)
    assert not list(saved.glob("*.partial"))


@pytest.mark.parametrize("spoil, message", [
    (lambda f: (f / "model.safetensors").unlink(), "holds no model.safetensors"),
    (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000]),
     "SHA-256"),
    (lambda f: (f / "config.json").write_text("{"), "config.json is not a DMGN's"),
    (lambda f: (f / "config.json").write_text("[]"), "config.json is not a DMGN's"),
    (lambda f: (f / "config.json").write_text(json.dumps({"architectures": ["Bert"]})), "it has no 'architectures'"),
    (lambda f: (f / "config.json").write_text(DMGNConfig(width=24, vgg_taps=3).to_json()), "does not fit config.json"),
])
def test_a_broken_folder_is_refused_in_one_line(spoil, message, saved):
    spoil(saved)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        DMGN.from_pretrained(saved)
    assert "\n" not in str(caught.value)


def test_batches_do_not_mix(tiny):
    torch.manual_seed(0)
    pair = torch.rand(2, 3, 24, 40) * 2 - 1
    with torch.inference_mode():
        assert torch.allclose(tiny(pair).background[1:], tiny(pair[1:]).background, atol=1e-5)


def test_bfloat16_autocast_runs(tiny):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        out = tiny(torch.rand(1, 3, 32, 32) * 2 - 1)
    assert out.background.isfinite().all()
