"""Public weights from stand-ins with random numbers, since tests have no network."""

import importlib.util
import math
import urllib.error

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file

from ssl4neuro.encoders import ENCODERS, ClipEncoder, FrameEncoder, TubeletViT
from ssl4neuro.encoders.weights import no_public_weights, public_weights
from ssl4neuro.errors import UserError
from ssl4neuro.registry import Component, build

FRAMES = {"dim": 8, "body": "resnet18", "norm": "batch"}
SMALL = {"dim": 12, "depth": 2, "heads": 2, "patch": (2, 16, 16), "positions": "index"}


@pytest.fixture(scope="module")
def resnet18() -> torch.nn.Module:
    torch.manual_seed(5)
    model = torchvision.models.resnet18(weights=None).eval()
    model.bn1.running_mean.normal_()
    return model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and a network that is down."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def down(*arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", down)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_a_name_of_torchvision_is_read_from_the_hub_cache(cache, resnet18):
    torch.save(resnet18.state_dict(), cache / "resnet18-f37072fd.pth")
    encoder = FrameEncoder(**FRAMES, in_channels=3, weights="ResNet18_Weights.IMAGENET1K_V1").eval()
    x = torch.randn(2, 3, 1, 40, 40)
    resnet18.fc = torch.nn.Identity()
    torch.testing.assert_close(encoder(x).levels[-1].mean((3, 4))[:, 0], resnet18(x[:, :, 0]), atol=1e-4, rtol=1e-4)


def test_a_grey_stem_sees_the_sum_of_the_colours(tmp_path, resnet18):
    torch.save({"state_dict": {f"module.{k}": v for k, v in resnet18.state_dict().items()}}, tmp_path / "a.pth")
    colour = FrameEncoder(**FRAMES, in_channels=3, weights=str(tmp_path / "a.pth")).eval()
    grey = FrameEncoder(**FRAMES, weights=str(tmp_path / "a.pth")).eval()
    x = torch.randn(1, 1, 2, 32, 32)
    expected = colour(x.expand(-1, 3, -1, -1, -1)).levels[-1]
    torch.testing.assert_close(grey(x).levels[-1], expected, atol=1e-4, rtol=1e-4)
    options = {**FRAMES, "in_channels": 2, "weights": str(tmp_path / "a.pth")}
    with pytest.raises(UserError, match="in_channels=2"):
        build(ENCODERS, Component("frame", options))


def test_group_norm_keeps_kernels_and_gains(tmp_path, resnet18):
    save_file(resnet18.state_dict(), tmp_path / "a.safetensors")
    encoder = FrameEncoder(**{**FRAMES, "norm": "group"}, in_channels=3, weights=str(tmp_path / "a.safetensors"))
    own, given = encoder.body.state_dict(), resnet18.state_dict()
    assert "bn1.running_mean" not in own
    assert all(torch.equal(value, given[key]) for key, value in own.items())


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_video_weights_fit_the_clip_encoder(tmp_path, norm):
    torch.manual_seed(0)
    state = torchvision.models.video.mc3_18(weights=None).state_dict()
    torch.save(state, tmp_path / "mc3.pth")
    encoder = ClipEncoder(dim=8, body="mc3_18", norm=norm, weights=str(tmp_path / "mc3.pth"))
    own = encoder.body.state_dict()
    torch.testing.assert_close(own["stem.0.weight"], state["stem.0.weight"].sum(1, keepdim=True))
    assert torch.equal(own["layer4.1.conv2.0.weight"], state["layer4.1.conv2.0.weight"])
    with pytest.raises(UserError, match=r"mc3\.pth: 'layer2\.0\.conv1\.0\.weight' is \(128, 64, 1, 3, 3\)"):
        ClipEncoder(dim=8, body="r3d_18", norm=norm, weights=str(tmp_path / "mc3.pth"))


def videomae(seed: int = 0, channels: int = 3, dim: int = 12, depth: int = 2) -> dict[str, torch.Tensor]:
    """Random tensors under the transformers library's names."""
    torch.manual_seed(seed)
    state = {
        "embeddings.patch_embeddings.projection.weight": torch.randn(dim, channels, 2, 16, 16) / 40,
        "embeddings.patch_embeddings.projection.bias": torch.randn(dim),
        "layernorm.weight": torch.randn(dim),
        "layernorm.bias": torch.randn(dim),
    }
    for i in range(depth):
        layer = f"encoder.layer.{i}."
        attention = {f"{p}.weight": (dim, dim) for p in ("query", "key", "value")} | {"q_bias": (dim,), "v_bias": (dim,)}
        state |= {f"{layer}attention.attention.{k}": torch.randn(s) / 3 for k, s in attention.items()}
        sizes = {"attention.output.dense": (dim, dim), "intermediate.dense": (4 * dim, dim), "output.dense": (dim, 4 * dim)}
        for name, size in sizes.items():
            state |= {f"{layer}{name}.weight": torch.randn(size) / 3, f"{layer}{name}.bias": torch.randn(size[0])}
        for name in ("layernorm_before", "layernorm_after"):
            state |= {f"{layer}{name}.weight": torch.randn(dim), f"{layer}{name}.bias": torch.randn(dim)}
    return {f"videomae.{k}": v for k, v in state.items()} | {"decoder.norm.weight": torch.zeros(3)}


def paper_forward(state: dict[str, torch.Tensor], x: torch.Tensor, heads: int = 2) -> torch.Tensor:
    """VideoMAE's encoder written out with the original tensors."""
    s = {k.removeprefix("videomae."): v for k, v in state.items()}

    def linear(name: str, t: torch.Tensor) -> torch.Tensor:
        return F.linear(t, s[f"{name}.weight"], s[f"{name}.bias"])

    def norm(name: str, t: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(t, t.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], 1e-12)

    patch = "embeddings.patch_embeddings.projection"
    h = F.conv3d(x, s[f"{patch}.weight"], s[f"{patch}.bias"], stride=(2, 16, 16)).flatten(2).transpose(1, 2)
    n, dim = h.shape[1:]
    place = [[token / 10000 ** (2 * (j // 2) / dim) for j in range(dim)] for token in range(n)]
    h = h + torch.tensor([[math.cos(a) if j % 2 else math.sin(a) for j, a in enumerate(row)] for row in place])
    for i in range(2):
        layer = f"encoder.layer.{i}"
        y, a = norm(f"{layer}.layernorm_before", h), f"{layer}.attention.attention"
        q = F.linear(y, s[f"{a}.query.weight"], s[f"{a}.q_bias"])
        k, v = F.linear(y, s[f"{a}.key.weight"]), F.linear(y, s[f"{a}.value.weight"], s[f"{a}.v_bias"])
        q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        y = ((q @ k.transpose(2, 3) / (dim / heads) ** 0.5).softmax(3) @ v).transpose(1, 2).flatten(2)
        h = h + linear(f"{layer}.attention.output.dense", y)
        y = linear(f"{layer}.intermediate.dense", norm(f"{layer}.layernorm_after", h))
        h = h + linear(f"{layer}.output.dense", F.gelu(y))
    return norm("layernorm", h)


def test_videomae_weights_compute_what_videomae_computes(tmp_path):
    state = videomae()
    save_file(state, tmp_path / "model.safetensors")
    x = torch.randn(1, 3, 4, 224, 224)
    for name in (f"hub:{tmp_path}", str(tmp_path), str(tmp_path / "model.safetensors")):
        encoder = TubeletViT(**SMALL, in_channels=3, weights=name).eval()
        torch.testing.assert_close(encoder(x).tokens, paper_forward(state, x), atol=1e-3, rtol=1e-3)
    grey = TubeletViT(**SMALL, weights=str(tmp_path)).eval()
    one = x[:, :1]
    torch.testing.assert_close(grey(one).pooled, encoder(one.expand(-1, 3, -1, -1, -1)).pooled, atol=1e-3, rtol=1e-3)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_names_are_those_of_transformers(tmp_path):
    from transformers import VideoMAEConfig, VideoMAEModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    model = VideoMAEModel(VideoMAEConfig(**sizes, use_mean_pooling=False)).eval()
    model.save_pretrained(tmp_path)
    encoder, x = TubeletViT(**SMALL, in_channels=3, weights=f"hub:{tmp_path}").eval(), torch.randn(1, 3, 16, 224, 224)
    expected = model(x.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(encoder(x).tokens, expected, atol=1e-3, rtol=1e-3)


def test_videomae_of_another_size_is_refused(tmp_path):
    save_file(videomae(), tmp_path / "model.safetensors")
    for options, message in (
        ({"patch": (2, 8, 8)}, "preset videomae"),
        ({"depth": 3}, "no tensor 'blocks.2"),
        ({"dim": 24}, "is "),
    ):
        with pytest.raises(UserError, match=message):
            TubeletViT(**{**SMALL, **options}, in_channels=3, weights=str(tmp_path))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not VideoMAE"):
        TubeletViT(**SMALL, weights=str(tmp_path / "other.safetensors"))


def test_what_cannot_be_found_says_where_to_put_it(cache, monkeypatch):
    with pytest.raises(UserError, match=r"R3D_18.*no network.*put the file at .*checkpoints/r3d_18-b3b3357e\.pth"):
        public_weights("R3D_18_Weights.KINETICS400_V1")
    with pytest.raises(UserError, match="neither a file nor"):
        public_weights("ResNet18_Weights.IMAGENET_V9")
    with pytest.raises(UserError, match="no such file"):
        public_weights(str(cache / "missing.pth"))
    with pytest.raises(UserError, match=r"holds neither model\.safetensors nor"):
        public_weights(str(cache))
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def down(*arguments):
        raise OSError("offline\nand a second line")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", down)
    with pytest.raises(UserError, match=r"hub:some/model: .*\(offline\); put model.safetensors into a folder") as caught:
        public_weights("hub:some/model")
    assert "\n" not in str(caught.value)


class _Code:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": _Code()}, "bad.pth")
    for name, content in (("cut.pth", b"PK\3\4"), ("cut.safetensors", b"123"), ("text.pt", b"hello")):
        (tmp_path / name).write_bytes(content)
    torch.save([1, 2], "list.pth")
    for name in ("bad.pth", "cut.pth", "cut.safetensors", "text.pt", "list.pth"):
        with pytest.raises(UserError, match=rf"^{name}: ") as caught:
            public_weights(name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_the_name_of_bad_code_in_the_hub_cache_is_not_run_either(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": _Code()}, cache / "resnet18-f37072fd.pth")
    with pytest.raises(UserError, match="ResNet18"):
        public_weights("ResNet18_Weights.IMAGENET1K_V1")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_is_built_without_the_public_file():
    with no_public_weights():
        for name, weights in (("frame", "gone.pth"), ("clip", "gone.pth"), ("tubelet_vit", "hub:gone/model")):
            assert build(ENCODERS, Component(name, {"preset": "tiny", "weights": weights})).dim > 0
    with pytest.raises(UserError, match=r"gone\.pth"):
        build(ENCODERS, Component("frame", {"preset": "tiny", "weights": "gone.pth"}))
