"""Public weights by name or file; loaded only when the user names them, and never by running what is in a file.

A name is one of torchvision's (`ResNet18_Weights.IMAGENET1K_V1`, found in torch's hub cache or downloaded), a hub repository
(`hub:MCG-NJU/videomae-base`), a folder that holds `model.safetensors` or `pytorch_model.bin`, or a state dict in a .pth, .pt,
.bin or .safetensors file.
"""

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ssl4neuro.errors import UserError

if TYPE_CHECKING:
    from ssl4neuro.encoders.tubelet import TubeletViT

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")

_wanted: ContextVar[bool] = ContextVar("public_weights_wanted", default=True)


@contextlib.contextmanager
def no_public_weights(unwanted: bool = True) -> Iterator[None]:
    """Encoders built inside ignore their option `weights`: a checkpoint brings its own, the public file may be elsewhere."""
    token = _wanted.set(_wanted.get() and not unwanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def public_weights(name: str) -> dict[str, Tensor] | None:
    """The tensors that `name` stands for (see above), on the CPU; None inside `no_public_weights`.

    Raises:
        UserError: unknown name, missing or unreadable file, or not downloadable.
    """
    if not _wanted.get():
        return None
    if name.startswith("hub:"):
        return _read(_hub_file(name))
    path = Path(name)
    if path.is_dir():
        return _read(_in_folder(path, name))
    if path.suffix in SUFFIXES or path.is_file():
        return _read(path)
    return _torchvision(name)


def fit_channels(kernel: Tensor, channels: int) -> Tensor:
    """A stem kernel for colour, [out, 3, ...], for `channels` channels: one channel sees the sum over the colours.

    Raises:
        ValueError: neither 1 channel nor the kernel's own number.
    """
    if kernel.shape[1] == channels:
        return kernel
    if channels == 1:
        return kernel.sum(1, keepdim=True)
    raise ValueError(f"in_channels={channels}, but the weights are for {kernel.shape[1]}: use {kernel.shape[1]} or 1")


def load_into(module: nn.Module, state: Mapping[str, Tensor], name: str, ignore: tuple[str, ...] = ()) -> None:
    """Load `state`, in which nothing may be missing and nothing left over but keys that start or end with one of `ignore`.

    Raises:
        UserError: a tensor is missing, left over or of another shape.
    """
    own = module.state_dict()
    given = {k: v for k, v in state.items() if not (k.startswith(ignore) or k.endswith(ignore))} if ignore else dict(state)
    needed = [k for k in own if not (ignore and (k.startswith(ignore) or k.endswith(ignore)))]
    advice = "these are weights of another network; name the matching body and preset"
    for key in needed:
        if key not in given:
            raise UserError(f"{name}: no tensor '{key}'; {advice}")
        if given[key].shape != own[key].shape:
            raise UserError(f"{name}: '{key}' is {tuple(given[key].shape)}, not {tuple(own[key].shape)}; {advice}")
    if left := sorted(set(given) - set(own)):
        raise UserError(f"{name}: '{left[0]}' has no place in the encoder; {advice}")
    module.load_state_dict({k: given.get(k, v) for k, v in own.items()})


def load_videomae(encoder: "TubeletViT", name: str) -> None:
    """VideoMAE's encoder (Tong et al., NeurIPS 2022; names as in the transformers library) into a `TubeletViT`.

    The decoder and classifier are left aside; fine-tuned weights, which have no last norm, leave that one as it is.

    Raises:
        UserError: the weights cannot be found, or are not VideoMAE's of this size.
    """
    state = public_weights(name)
    if state is None:
        return
    prefix = "videomae." if any(k.startswith("videomae.") for k in state) else ""
    state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    projection = state.get("embeddings.patch_embeddings.projection.weight")
    if projection is None or projection.ndim != 5:
        raise UserError(f"{name}: not VideoMAE weights (no patch projection); name a VideoMAE checkpoint")
    if tuple(projection.shape[2:]) != encoder.patch:
        raise UserError(
            f"{name}: tubelets of {tuple(projection.shape[2:])}, the encoder's are {encoder.patch}; use preset videomae"
        )
    mapped = {
        "embed.weight": fit_channels(projection, encoder.in_channels).flatten(1),
        "embed.bias": state.get("embeddings.patch_embeddings.projection.bias"),
        "norm.weight": state.get("layernorm.weight", encoder.norm.weight.detach()),
        "norm.bias": state.get("layernorm.bias", encoder.norm.bias.detach()),
    }
    depth = 1 + max((int(k.split(".")[2]) for k in state if k.startswith("encoder.layer.")), default=-1)
    for i in range(depth):
        mapped |= _videomae_block(state, i)
    load_into(encoder, {k: v for k, v in mapped.items() if v is not None}, name)


def _videomae_block(state: dict[str, Tensor], i: int) -> dict[str, Tensor | None]:
    """One block under our names. Keys have no bias in VideoMAE: softmax would not see it."""
    old, new = f"encoder.layer.{i}.", f"blocks.{i}."
    attention = f"{old}attention.attention."
    matrices = [state.get(f"{attention}{part}.weight") for part in ("query", "key", "value")]
    q, v = (
        state.get(f"{attention}{p}_bias", state.get(f"{attention}{long}.bias")) for p, long in (("q", "query"), ("v", "value"))
    )
    out: dict[str, Tensor | None] = {
        f"{new}attention.qkv.weight": None
        if any(m is None for m in matrices)
        else torch.cat([m for m in matrices if m is not None]),
        f"{new}attention.qkv.bias": None if q is None or v is None else torch.cat([q, torch.zeros_like(q), v]),
    }
    names = {
        "attention.output.dense": "attention.out",
        "intermediate.dense": "mlp.0",
        "output.dense": "mlp.2",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
    }
    return out | {f"{new}{b}.{k}": state.get(f"{old}{a}.{k}") for a, b in names.items() for k in ("weight", "bias")}


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of one file; nested under `state_dict` or `model` as training scripts like to save them."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give the path of a state dict or a name of public weights") from error
    except Exception as error:  # both parsers fail in many ways on what is no tensor file, KeyError and IndexError among them
        raise UserError(f"{path}: cannot be read as tensors only ({_first_line(error)}); save a plain state dict") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise UserError(f"{path}: not a state dict (names and tensors); save model.state_dict()")
    return {str(k).removeprefix("module."): v for k, v in loaded.items()}


def _in_folder(folder: Path, name: str) -> Path:
    for file in HUB_FILES:
        if (folder / file).is_file():
            return folder / file
    raise UserError(f"{name}: holds neither {' nor '.join(HUB_FILES)}; put one of them there")


def _hub_file(name: str) -> Path:
    """`hub:FOLDER` or `hub:organisation/model`, from the hub's cache or downloaded."""
    target = name.removeprefix("hub:")
    if Path(target).is_dir():
        return _in_folder(Path(target), name)
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise UserError(f'{name}: needs the package huggingface_hub; pip install "ssl4neuro[hub]"') from error
    reason: Exception | None = None
    for file in HUB_FILES:
        try:
            return Path(hf_hub_download(target, file))
        except EntryNotFoundError as error:  # the other format may be there; without a network this one is raised, too
            reason = error
        except Exception as error:  # the hub's client raises errors of several libraries
            reason = error
            break
    why = _first_line(reason) if reason else "not found"
    raise UserError(f"{name}: cannot be downloaded ({why}); put {HUB_FILES[0]} into a folder and name the folder") from reason


def _torchvision(name: str) -> dict[str, Tensor]:
    from torchvision.models import get_weight

    try:
        weights = get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        raise UserError(
            f"{name}: neither a file nor torchvision's name of weights; name one such as ResNet18_Weights.IMAGENET1K_V1"
        ) from error
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:  # of the network, of the file system, or of a file that holds something else
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
        raise UserError(f"{name}: cannot be downloaded or read ({_first_line(error)}); put the file at {place}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:120]
