"""Nested Python state (optimiser, schedule, random number generators, counters) as named tensors and JSON, and back.

Lossless for dictionaries with any simple keys, lists, tuples, numbers, text, bytes, None, tensors and numpy arrays: types,
order and bits come back. Reading cannot run code, which is why neither pickle nor `torch.save` is used.

JSON holds scalars and lists as they are. Everything else is an object with one tag:
`{"dict": [[key, value], ...]}`, `{"tuple": [...]}`, `{"float": "nan"}`, `{"bytes": base64}`, `{"tensor": name}`,
`{"array": name, "dtype": "<u4", "shape": [...]}`, `{"scalar": name, "dtype": ...}`, `{"complex": name}`.
"""

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_DEPTH = 100


class Damaged(ValueError):
    """The stored form is not one that `flatten` writes."""


def flatten(state: Any) -> tuple[dict[str, Tensor], Any]:
    """Tensors by name, and the rest ready for JSON.

    Raises:
        TypeError: an object that is none of the types above; the message says where in `state` it is.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _encode(state, "", tensors, 0)


def unflatten(tensors: Mapping[str, Tensor], tree: Any) -> Any:
    """What `flatten` was given.

    Raises:
        Damaged: `tree` refers to what is not there, or has another form.
    """
    return _decode(tree, tensors, 0)


def _encode(value: Any, path: str, tensors: dict[str, Tensor], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise TypeError(f"training state nested deeper than {MAX_DEPTH} at {path[:80]}")
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, Tensor):
        return _encode_tensor(value, path, tensors)
    if isinstance(value, np.ndarray | np.generic):
        return _encode_array(value, path, tensors)
    if isinstance(value, Mapping):
        pairs = [
            [_encode(k, f"{path}/key", tensors, depth + 1), _encode(v, f"{path}/{k}", tensors, depth + 1)]
            for k, v in value.items()
        ]
        return {"dict": pairs}
    if isinstance(value, list | tuple):
        items = [_encode(v, f"{path}/{i}", tensors, depth + 1) for i, v in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    raise TypeError(f"training state at {path or '/'}: a {type(value).__name__} cannot be stored without pickle")


def _encode_tensor(value: Tensor, path: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if value.layout is not torch.strided or value.is_quantized:
        raise TypeError(f"training state at {path}: a {value.layout} tensor cannot be stored")
    value = value.detach()
    if value.is_complex():  # safetensors knows complex64 only
        return {"complex": _add(torch.view_as_real(value.resolve_conj()), path, tensors)}
    return {"tensor": _add(value, path, tensors)}


def _encode_array(value: Any, path: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"training state at {path}: a numpy array of {array.dtype} cannot be stored without pickle")
    raw = np.frombuffer(array.tobytes(), dtype=np.uint8).copy()  # as bytes: safetensors lacks some of numpy's types
    name = _add(torch.from_numpy(raw), path, tensors)
    if isinstance(value, np.generic):
        return {"scalar": name, "dtype": array.dtype.str}
    return {"array": name, "dtype": array.dtype.str, "shape": list(array.shape)}


def _add(value: Tensor, path: str, tensors: dict[str, Tensor]) -> str:
    readable = path[:200].encode("ascii", "replace").decode()
    name = f"{len(tensors):06d}{readable}"  # numbered: the keys 0 and "0" would get the same path
    # A copy of its own, since safetensors refuses tensors that share memory.
    tensors[name] = value.to("cpu", copy=True).contiguous()
    return name


def _decode(node: Any, tensors: Mapping[str, Tensor], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Damaged("nested too deeply")
    if node is None or isinstance(node, bool | int | float | str):
        return node
    if isinstance(node, list):
        return [_decode(item, tensors, depth + 1) for item in node]
    if not isinstance(node, dict) or not node:
        raise Damaged("an object without a tag")
    tag = next(iter(node))
    content = node[tag]
    if tag == "dict" and isinstance(content, list):
        return _decode_dict(content, tensors, depth)
    if tag == "tuple" and isinstance(content, list):
        return tuple(_decode(item, tensors, depth + 1) for item in content)
    if tag == "float" and content in ("nan", "inf", "-inf"):
        return float(content)
    if tag == "bytes" and isinstance(content, str):
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Damaged(f"bytes that are not base64 ({error})") from error
    if tag in ("tensor", "complex", "array", "scalar") and isinstance(content, str) and content in tensors:
        return _decode_tensor(tag, tensors[content], node)
    raise Damaged(f"'{str(tag)[:40]}' with unknown content")


def _decode_dict(pairs: list[Any], tensors: Mapping[str, Tensor], depth: int) -> dict[Any, Any]:
    decoded = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise Damaged("a dictionary that is not made of pairs")
        key = _decode(pair[0], tensors, depth + 1)
        try:
            decoded[key] = _decode(pair[1], tensors, depth + 1)
        except TypeError as error:
            raise Damaged(f"a dictionary key that cannot be one ({error})") from error
    return decoded


def _decode_tensor(tag: str, stored: Tensor, node: dict[str, Any]) -> Any:
    if tag == "tensor":
        return stored
    try:
        if tag == "complex":
            return torch.view_as_complex(stored)
        dtype = np.dtype(str(node.get("dtype")))
        if dtype.kind not in "biufc":
            raise Damaged(f"numpy type {dtype} is not allowed")
        array = np.frombuffer(stored.numpy().tobytes(), dtype=dtype).copy()
        return array[0] if tag == "scalar" else array.reshape(tuple(node["shape"]))
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise Damaged(f"a {tag} whose type, shape and size disagree ({error})") from error
