"""What each ONNX operator does, as a differentiable torch function: ``FUNCTIONS[op](attributes, *inputs)``.

Each function takes the node's attributes as a dict of plain values and its inputs as tensors, None for one left out,
and gives a tensor, or a tuple of tensors. The meaning is that of the ONNX operator specification, opset 13 to 18.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

Attributes = Mapping[str, Any]

_DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.BOOL: torch.bool,
}


class Unsupported(ValueError):
    """An attribute or a combination of inputs that is not written here; the interpreter adds the node's name."""


def _ints(tensor: Tensor) -> List[int]:
    return [int(v) for v in tensor.reshape(-1).tolist()]


def _axes(attributes: Attributes, given: Optional[Tensor]) -> Optional[List[int]]:
    """Axes are an attribute in older operator sets and an input in newer ones."""
    return _ints(given) if given is not None else attributes.get("axes")


def padded(attributes: Attributes, x: Tensor, value: float) -> Tuple[Tensor, List[int]]:
    """``x`` padded where begin and end differ, and what is left for torch's own symmetric padding."""
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Unsupported(f"auto_pad={attributes['auto_pad']}")
    rank = x.dim() - 2
    pads = attributes.get("pads", [0] * 2 * rank)
    begins, ends = pads[:rank], pads[rank:]
    if begins == ends:
        return x, begins
    both = [amount for pair in reversed(list(zip(begins, ends))) for amount in pair]
    return F.pad(x, both, value=value), [0] * rank


def _conv(attributes: Attributes, x: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    rank = weight.dim() - 2
    x, padding = padded(attributes, x, 0.0)
    function = {1: F.conv1d, 2: F.conv2d}[rank]
    ones = [1] * rank
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    return function(x, weight, bias, strides, padding, dilations, attributes.get("group", 1))


def _conv_transpose(attributes: Attributes, x: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    if weight.dim() != 4 or "output_shape" in attributes:
        raise Unsupported("only two dimensions, without output_shape")
    pads = attributes.get("pads", [0, 0, 0, 0])
    if pads[:2] != pads[2:]:
        raise Unsupported(f"uneven pads {pads}")
    strides, extra = attributes.get("strides", [1, 1]), attributes.get("output_padding", [0, 0])
    dilations = attributes.get("dilations", [1, 1])
    return F.conv_transpose2d(x, weight, bias, strides, pads[:2], extra, attributes.get("group", 1), dilations)


def _batch_norm(
    attributes: Attributes, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    if attributes.get("training_mode"):
        raise Unsupported("training_mode")
    return F.batch_norm(x, mean, variance, scale, shift, eps=attributes.get("epsilon", 1e-5))


def _gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Optional[Tensor] = None) -> Tensor:
    a = a.T if attributes.get("transA") else a
    b = b.T if attributes.get("transB") else b
    product = attributes.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + attributes.get("beta", 1.0) * c


def _divide(attributes: Attributes, a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _prelu(attributes: Attributes, x: Tensor, slope: Tensor) -> Tensor:
    if slope.numel() in (1, x.shape[1]) and slope.numel() == max(slope.shape, default=1):
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x >= 0, x, x * slope)


def _clip(attributes: Attributes, x: Tensor, low: Optional[Tensor] = None, high: Optional[Tensor] = None) -> Tensor:
    return torch.clamp(x, low, high) if low is not None or high is not None else x


def _gelu(attributes: Attributes, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=attributes.get("approximate", "none"))


def _layer_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    axis = attributes.get("axis", -1) % x.dim()
    return F.layer_norm(x, x.shape[axis:], scale, bias, attributes.get("epsilon", 1e-5))


def _slice(
    attributes: Attributes,
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Optional[Tensor] = None,
    steps: Optional[Tensor] = None,
) -> Tensor:
    first, last = _ints(starts), _ints(ends)
    over = _ints(axes) if axes is not None else list(range(len(first)))
    stride = _ints(steps) if steps is not None else [1] * len(first)
    for begin, end, axis, step in zip(first, last, over, stride):
        begin, end, step = slice(begin, end, step).indices(x.shape[axis])
        if step == 1:
            x = x.narrow(axis, begin, max(end - begin, 0))
        else:
            x = x.index_select(axis, torch.arange(begin, end, step, device=x.device))
    return x


def _split(attributes: Attributes, x: Tensor, sizes: Optional[Tensor] = None) -> Tuple[Tensor, ...]:
    axis = attributes.get("axis", 0)
    if sizes is not None or "split" in attributes:
        return torch.split(x, _ints(sizes) if sizes is not None else attributes["split"], axis)
    parts = attributes.get("num_outputs") or attributes["outputs"]
    return torch.split(x, -(-x.shape[axis] // parts), axis)


def _pad(
    attributes: Attributes, x: Tensor, pads: Tensor, value: Optional[Tensor] = None, axes: Optional[Tensor] = None
) -> Tensor:
    amounts = _ints(pads)
    over = [axis % x.dim() for axis in _ints(axes)] if axes is not None else list(range(x.dim()))
    begins, ends = [0] * x.dim(), [0] * x.dim()
    for position, axis in enumerate(over):
        begins[axis], ends[axis] = amounts[position], amounts[position + len(over)]
    both = [amount for axis in reversed(range(x.dim())) for amount in (begins[axis], ends[axis])]
    mode = attributes.get("mode", "constant")
    if mode == "constant":
        return F.pad(x, both, value=0.0 if value is None else float(value))
    used = max((axis for axis in over if begins[axis] or ends[axis]), default=None)
    if used is None:
        return x
    if mode not in ("reflect", "edge") or x.dim() != 4 or any(both[4:]):
        raise Unsupported(f"mode={mode} with pads {amounts}")
    return F.pad(x, both[:4], mode={"reflect": "reflect", "edge": "replicate"}[mode])


def _depth_to_space(attributes: Attributes, x: Tensor) -> Tensor:
    block = attributes["blocksize"]
    if attributes.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, block, block, channels // block**2, height, width)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * block, width * block)


def _space_to_depth(attributes: Attributes, x: Tensor) -> Tensor:
    block = attributes["blocksize"]
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, height // block, block, width // block, block)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // block, width // block)


def _reshape(attributes: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    wanted = _ints(shape)
    if not attributes.get("allowzero"):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted)


def _resize(
    attributes: Attributes,
    x: Tensor,
    region: Optional[Tensor] = None,
    scales: Optional[Tensor] = None,
    sizes: Optional[Tensor] = None,
) -> Tensor:
    """The cases where torch and ONNX mean the same: spatial axes of a picture, no antialiasing."""
    mode, place = attributes.get("mode", "nearest"), attributes.get("coordinate_transformation_mode", "half_pixel")
    if sizes is not None and sizes.numel():
        size = _ints(sizes)[2:]
    elif scales is not None:
        size = [int(side * float(scale)) for side, scale in zip(x.shape[2:], scales.tolist()[2:])]
    else:
        raise Unsupported("neither sizes nor scales")
    if x.dim() != 4 or attributes.get("antialias"):
        raise Unsupported("only pictures, without antialias")
    if mode == "nearest":
        if place != "asymmetric" or attributes.get("nearest_mode") != "floor":
            raise Unsupported(f"nearest with {place}, {attributes.get('nearest_mode')}")
        return F.interpolate(x, size, mode="nearest")
    if place not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise Unsupported(f"{mode} with {place}")
    if mode == "cubic" and abs(attributes.get("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
        raise Unsupported("cubic with a coefficient other than -0.75")
    names = {"linear": "bilinear", "cubic": "bicubic"}
    return F.interpolate(x, size, mode=names[mode], align_corners=place == "align_corners")


def _max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    x, padding = padded(attributes, x, float("-inf"))
    kernel = attributes["kernel_shape"]
    ones = [1] * len(kernel)
    ceil = bool(attributes.get("ceil_mode", 0))
    return F.max_pool2d(x, kernel, attributes.get("strides", ones), padding, attributes.get("dilations", ones), ceil)


def _average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    pads = attributes.get("pads", [0, 0, 0, 0])
    if pads[:2] != pads[2:]:
        raise Unsupported(f"uneven pads {pads}")
    counted = bool(attributes.get("count_include_pad", 0))
    ceil = bool(attributes.get("ceil_mode", 0))
    return F.avg_pool2d(x, attributes["kernel_shape"], attributes.get("strides"), pads[:2], ceil, counted)


def _reduced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(attributes: Attributes, x: Tensor, given: Optional[Tensor] = None) -> Tensor:
        axes = _axes(attributes, given)
        return function(x, tuple(range(x.dim())) if axes is None else tuple(axes), bool(attributes.get("keepdims", 1)))

    return reduce


def _gather(attributes: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    axis = attributes.get("axis", 0) % x.dim()
    indices = torch.where(indices < 0, indices + x.shape[axis], indices).to(x.device)
    picked = x.index_select(axis, indices.reshape(-1).long())
    return picked.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def _unsqueeze(attributes: Attributes, x: Tensor, given: Optional[Tensor] = None) -> Tensor:
    axes = _axes(attributes, given) or []
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(attributes: Attributes, x: Tensor, given: Optional[Tensor] = None) -> Tensor:
    axes = _axes(attributes, given)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _shape(attributes: Attributes, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[attributes.get("start", 0) : attributes.get("end")], dtype=torch.int64)


def _range(attributes: Attributes, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _constant_of_shape(attributes: Attributes, shape: Tensor) -> Tensor:
    value = attributes.get("value", torch.zeros(1))
    return value.reshape(-1)[:1].expand(shape.numel() and int(shape.prod()) or 1).reshape(_ints(shape)).clone()


def _expand(attributes: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(_ints(shape))))


def _scatter_nd(attributes: Attributes, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    if attributes.get("reduction", "none") != "none":
        raise Unsupported(f"reduction={attributes['reduction']}")
    return x.index_put(tuple(indices.long().unbind(-1)), updates)


def _constant(attributes: Attributes) -> Tensor:
    if "value" in attributes:
        return attributes["value"]
    for name, dtype in (("value_float", torch.float32), ("value_int", torch.int64)):
        for key in (name, name + "s"):
            if key in attributes:
                return torch.tensor(attributes[key], dtype=dtype)
    raise Unsupported("a constant that is not a number")


def _of(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operator without attributes."""
    return lambda attributes, *inputs: function(*inputs)


FUNCTIONS: Dict[str, Callable[..., Any]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "BatchNormalization": _batch_norm,
    "MatMul": _of(torch.matmul),
    "Gemm": _gemm,
    "Add": _of(torch.add),
    "Sub": _of(torch.sub),
    "Sum": _of(lambda *xs: sum(xs[1:], xs[0])),
    "Mul": _of(torch.mul),
    "Div": _divide,
    "Pow": _of(lambda x, power: torch.pow(x, power.to(x.dtype))),
    "Mod": lambda attributes, a, b: torch.fmod(a, b) if attributes.get("fmod") else torch.remainder(a, b),
    "Min": _of(lambda *xs: torch.stack(torch.broadcast_tensors(*xs)).amin(0)),
    "Max": _of(lambda *xs: torch.stack(torch.broadcast_tensors(*xs)).amax(0)),
    "Sqrt": _of(torch.sqrt),
    "Abs": _of(torch.abs),
    "Neg": _of(torch.neg),
    "Exp": _of(torch.exp),
    "Log": _of(torch.log),
    "Erf": _of(torch.erf),
    "Reciprocal": _of(torch.reciprocal),
    "Floor": _of(torch.floor),
    "Ceil": _of(torch.ceil),
    "Round": _of(torch.round),
    "Sin": _of(torch.sin),
    "Cos": _of(torch.cos),
    "Where": _of(torch.where),
    "Equal": _of(torch.eq),
    "Less": _of(torch.lt),
    "Greater": _of(torch.gt),
    "GreaterOrEqual": _of(torch.ge),
    "LessOrEqual": _of(torch.le),
    "Not": _of(torch.logical_not),
    "And": _of(torch.logical_and),
    "Or": _of(torch.logical_or),
    "PRelu": _prelu,
    "Relu": _of(torch.relu),
    "LeakyRelu": lambda attributes, x: F.leaky_relu(x, attributes.get("alpha", 0.01)),
    "Sigmoid": _of(torch.sigmoid),
    "Tanh": _of(torch.tanh),
    "Gelu": _gelu,
    "Clip": _clip,
    "Softmax": lambda attributes, x: torch.softmax(x, attributes.get("axis", -1)),
    "LayerNormalization": _layer_norm,
    "Concat": lambda attributes, *xs: torch.cat(xs, attributes["axis"]),
    "Slice": _slice,
    "Split": _split,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Reshape": _reshape,
    "Flatten": lambda attributes, x: torch.flatten(x, attributes.get("axis", 1)),
    "Transpose": lambda attributes, x: x.permute(attributes.get("perm", list(range(x.dim()))[::-1])),
    "Resize": _resize,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _of(lambda x: x.mean((2, 3), keepdim=True)),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "ReduceMax": _reduced(torch.amax),
    "Shape": _shape,
    "Size": _of(lambda x: torch.tensor(x.numel())),
    "Gather": _gather,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Cast": lambda attributes, x: x.to(_DTYPES[attributes["to"]]),
    "Range": _range,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Tile": _of(lambda x, repeats: x.repeat(_ints(repeats))),
    "ScatterND": _scatter_nd,
    "Identity": _of(lambda x: x),
}
