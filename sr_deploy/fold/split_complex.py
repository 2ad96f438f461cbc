"""Complex tensors as pairs of real ones, so that a graph traced through them holds real operators only."""

from __future__ import annotations

import math
import operator
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch

from sr_deploy.core.errors import CheckFailed

#: Operations that act on the real and on the imaginary part alone: they move, select or sum.
# fmt: off
_EACH_PART = frozenset((
    "broadcast_to", "chunk", "clone", "contiguous", "cumsum", "detach", "diff", "dsplit", "expand", "flatten", "flip",
    "getitem", "gather", "hsplit", "index_select", "mean", "moveaxis", "movedim", "narrow", "neg", "pad", "permute",
    "pixel_shuffle", "pixel_unshuffle", "ravel", "repeat", "repeat_interleave", "reshape", "roll", "rot90", "select",
    "split", "split_with_sizes", "squeeze", "sum", "swapaxes", "swapdims", "tensor_split", "tile", "transpose",
    "tril", "triu", "unbind", "unflatten", "unfold", "unsqueeze", "view", "vsplit", "zeros_like",
))
# fmt: on
#: Products, linear in both operands. All but the element-wise ones take two tensors.
_ELEMENTWISE = frozenset(("mul", "multiply", "rmul"))
_PRODUCTS = frozenset(("bmm", "matmul", "mm", "mv", "rmatmul"))
_LAYERS = frozenset(("conv1d", "conv2d", "conv3d", "linear"))
#: Operations with nothing to do: the pair has no lazy conjugation and no other memory layout.
_NOTHING = frozenset(("resolve_conj", "resolve_neg", "alias"))


class SplitComplex:
    """A complex tensor as two real ones of one shape.

    Torch functions and methods that take it go through ``__torch_function__``; what they give is a SplitComplex, or a
    real tensor where the mathematics gives one.

    Args:
        re, im: real tensors of one shape.
    """

    def __init__(self, re: torch.Tensor, im: torch.Tensor) -> None:
        self.real, self.imag = re, im

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: Tuple = (), kwargs: Optional[Dict] = None) -> Any:
        """Compute ``func`` on the parts. Raises CheckFailed for an operation that has no such form here."""
        kwargs = kwargs or {}
        name = _name_of(func)
        if name in _EACH_PART:
            return _each_part(func, args, kwargs)
        if name in _ELEMENTWISE:
            return _product(operator.mul, *args)
        if name in _PRODUCTS:
            return _product(func, *args)
        if name in _LAYERS:
            return _convolution(func, args, kwargs)
        if name == "einsum":
            return _einsum(func, args)
        if name in _NOTHING:
            return args[0]
        if name in _OTHERS:
            return _OTHERS[name](*args, **kwargs)
        raise unsupported(f"torch.{name}")

    def __getattr__(self, name: str) -> Callable:
        """A tensor method, applied through ``__torch_function__``."""
        if name.startswith("__") or not hasattr(torch.Tensor, name):
            raise AttributeError(name)
        method = getattr(torch.Tensor, name)
        if not callable(method):
            raise unsupported(f"Tensor.{name}")

        def call(*args: Any, **kwargs: Any) -> Any:
            return SplitComplex.__torch_function__(method, (), (self, *args), kwargs)

        return call

    @property
    def shape(self) -> torch.Size:
        """The shape of both parts."""
        return self.real.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.real.dim()

    @property
    def dtype(self) -> torch.dtype:
        """complex128 for parts of float64, else complex64."""
        return torch.complex128 if self.real.dtype == torch.float64 else torch.complex64

    @property
    def device(self) -> torch.device:
        """The device of both parts."""
        return self.real.device

    def size(self, dim: Optional[int] = None) -> Any:
        """The shape, or the length of one axis."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    def is_complex(self) -> bool:
        """Always True."""
        return True

    def __getitem__(self, index: Any) -> SplitComplex:
        return SplitComplex(self.real[index], self.imag[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        re, im = parts_of(value)
        self.real[index] = re
        self.imag[index] = 0.0 if im is None else im

    def __neg__(self) -> SplitComplex:
        return SplitComplex(-self.real, -self.imag)

    def __add__(self, other: Any) -> SplitComplex:
        return _add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> SplitComplex:
        return _subtract(self, other)

    def __rsub__(self, other: Any) -> SplitComplex:
        return _subtract(other, self)

    def __mul__(self, other: Any) -> SplitComplex:
        return _product(operator.mul, self, other)

    __rmul__ = __mul__

    def __matmul__(self, other: Any) -> SplitComplex:
        return _product(operator.matmul, self, other)

    def __rmatmul__(self, other: Any) -> SplitComplex:
        return _product(operator.matmul, other, self)

    def __truediv__(self, other: Any) -> SplitComplex:
        return _divide(self, other)

    def __rtruediv__(self, other: Any) -> SplitComplex:
        return _divide(other, self)


def unsupported(what: str) -> CheckFailed:
    """The error for an operation, such as "torch.exp", that has no form with real parts here."""
    return CheckFailed(
        f"{what} on complex numbers is not supported by --spectral dft",
        "transforms, arithmetic, convolutions, products of matrices, and operations that move elements",
        "write it with the real and imaginary parts in the network",
    )


def parts_of(value: Any) -> Tuple[Any, Optional[Any]]:
    """(real, imaginary) of a number or tensor; the imaginary part of what is real is None.

    A complex tensor (a weight) becomes two constants.
    """
    if isinstance(value, SplitComplex):
        return value.real, value.imag
    if isinstance(value, complex):
        return value.real, value.imag
    if isinstance(value, torch.Tensor) and value.is_complex():
        # Through numpy: the trace sees two constants and no complex tensor.
        array = value.detach().resolve_conj().cpu().numpy()
        real, imag = (torch.from_numpy(part.copy()).to(value.device) for part in (array.real, array.imag))
        return real, imag
    return value, None


def split(value: Any) -> SplitComplex:
    """Any tensor as a SplitComplex."""
    if isinstance(value, SplitComplex):
        return value
    re, im = parts_of(value)
    return SplitComplex(re, torch.zeros_like(re) if im is None else im)


def _name_of(func: Callable) -> str:
    """The name of a torch function or method, without underscores around it; an operation in place keeps its last."""
    name = func.__name__
    return name.strip("_") if name.startswith("__") else name


def _each_part(func: Callable, args: Tuple, kwargs: Dict) -> Any:
    def of(part: str) -> Any:
        def pick(value: Any) -> Any:
            return getattr(value, part) if isinstance(value, SplitComplex) else value

        return func(*(pick(a) for a in args), **{key: pick(value) for key, value in kwargs.items()})

    padding = kwargs.get("value", args[3] if len(args) > 3 else None)
    if _name_of(func) == "pad" and padding:
        raise unsupported("torch.pad with a value other than 0")
    re, im = of("real"), of("imag")
    if isinstance(re, (tuple, list)):
        return type(re)(SplitComplex(*pair) for pair in zip(re, im))
    return SplitComplex(re, im)


def _product(product: Callable, first: Any, second: Any) -> SplitComplex:
    """(a + jb)·(c + jd) for any product that is linear in both operands."""
    (a, b), (c, d) = parts_of(first), parts_of(second)
    re = product(a, c)
    if b is not None and d is not None:
        re = re - product(b, d)
    terms = [product(x, y) for x, y in ((a, d), (b, c)) if x is not None and y is not None]
    return SplitComplex(re, terms[0] if len(terms) == 1 else terms[0] + terms[1])


def _convolution(func: Callable, args: Tuple, kwargs: Dict) -> SplitComplex:
    """A convolution or linear layer: (input, weight, bias, …); the bias is added once."""
    first, second, *rest = args
    bias = rest[0] if rest else kwargs.get("bias")
    options = {key: value for key, value in kwargs.items() if key != "bias"}
    out = _product(lambda x, y: func(x, y, None, *rest[1:], **options), first, second)
    if bias is None:
        return out
    spatial = {"conv1d": 1, "conv2d": 2, "conv3d": 3}.get(func.__name__, 0)
    bias = split(bias) if parts_of(bias)[1] is not None else bias
    return _add(out, bias.reshape(-1, *[1] * spatial))


def _einsum(func: Callable, args: Tuple) -> SplitComplex:
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = list(operands[0])
    if len(operands) == 1:
        return SplitComplex(func(equation, operands[0].real), func(equation, operands[0].imag))
    if len(operands) != 2 or not isinstance(equation, str):
        raise unsupported("torch.einsum of more than two operands")
    return _product(lambda x, y: func(equation, x, y), *operands)


def _add(a: Any, b: Any, *, alpha: float = 1) -> SplitComplex:
    (a, b), (c, d) = parts_of(a), parts_of(b)
    scaled = [part if alpha == 1 or part is None else part * alpha for part in (c, d)]
    return _from_terms(a + scaled[0], b, scaled[1])


def _from_terms(re: torch.Tensor, *imaginary: Optional[torch.Tensor]) -> SplitComplex:
    """A SplitComplex of the shape of ``re`` whose imaginary part is the sum of the terms that exist."""
    terms = [term for term in imaginary if term is not None]
    im = terms[0] if len(terms) == 1 else terms[0] + terms[1]
    # A real operand of a larger shape broadcasts the imaginary part too.
    return SplitComplex(re, im + torch.zeros_like(re) if not _same_shape(re, im) else im)


def _same_shape(a: torch.Tensor, b: Any) -> bool:
    return isinstance(b, torch.Tensor) and [int(n) for n in a.shape] == [int(n) for n in b.shape]


def _subtract(a: Any, b: Any, *, alpha: float = 1) -> SplitComplex:
    re, im = parts_of(b)
    negated = SplitComplex(-re, -im) if im is not None else -re
    return _add(a, negated, alpha=alpha)


def _divide(a: Any, b: Any) -> SplitComplex:
    re, im = parts_of(b)
    if im is None:
        over = split(a)
        return SplitComplex(over.real / re, over.imag / re)
    return _divide(_product(operator.mul, a, SplitComplex(re, -im)), re * re + im * im)


def _joined(func: Callable) -> Callable:
    def join(tensors: List, *args: Any, **kwargs: Any) -> SplitComplex:
        pairs = [split(tensor) for tensor in tensors]
        return SplitComplex(
            func([pair.real for pair in pairs], *args, **kwargs), func([pair.imag for pair in pairs], *args, **kwargs)
        )

    return join


def _magnitude(z: SplitComplex) -> torch.Tensor:
    return torch.sqrt(z.real * z.real + z.imag * z.imag)


def _angle(z: SplitComplex) -> torch.Tensor:
    return torch.atan2(z.imag, z.real)


def _where(condition: torch.Tensor, a: Any, b: Any) -> SplitComplex:
    (a, b), (c, d) = ((re, 0.0 if im is None else im) for re, im in (parts_of(a), parts_of(b)))
    return SplitComplex(torch.where(condition, a, c), torch.where(condition, b, d))


def _to(z: SplitComplex, *args: Any, **kwargs: Any) -> SplitComplex:
    wanted = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)]
    if wanted and wanted[0] != z.dtype:
        raise unsupported(f"torch.to({wanted[0]})")
    return z


def view_as_real(z: SplitComplex) -> torch.Tensor:
    """(…) complex to (…, 2) real."""
    return torch.stack((z.real, z.imag), dim=-1)


def view_as_complex(x: torch.Tensor) -> SplitComplex:
    """(…, 2) real to (…) complex."""
    return SplitComplex(x[..., 0], x[..., 1])


def polar(magnitude: torch.Tensor, angle: torch.Tensor) -> SplitComplex:
    """``magnitude · exp(j·angle)``."""
    return SplitComplex(magnitude * torch.cos(angle), magnitude * torch.sin(angle))


_OTHERS: Dict[str, Callable] = {
    "abs": _magnitude,
    "absolute": _magnitude,
    "add": _add,
    "radd": _add,
    "angle": _angle,
    "cat": _joined(torch.cat),
    "concat": _joined(torch.cat),
    "concatenate": _joined(torch.cat),
    "conj": lambda z: SplitComplex(z.real, -z.imag),
    "conj_physical": lambda z: SplitComplex(z.real, -z.imag),
    "div": _divide,
    "divide": _divide,
    "true_divide": _divide,
    "truediv": _divide,
    "rdiv": lambda a, b: _divide(b, a),
    "rtruediv": lambda a, b: _divide(b, a),
    "expand_as": lambda z, other: z.expand(other.shape),
    "imag": lambda z: z.imag,
    "is_complex": lambda z: True,
    "is_tensor": lambda z: True,
    "numel": lambda z: math.prod(int(length) for length in z.shape),
    "real": lambda z: z.real,
    "reshape_as": lambda z, other: z.reshape(other.shape),
    "rsub": lambda a, b: _subtract(b, a),
    "square": lambda z: _product(operator.mul, z, z),
    "stack": _joined(torch.stack),
    "sub": _subtract,
    "subtract": _subtract,
    "to": _to,
    "type_as": lambda z, other: z,
    "view_as": lambda z, other: z.view(other.shape),
    "view_as_real": view_as_real,
    "where": _where,
}
