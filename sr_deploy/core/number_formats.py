"""The table of number formats: one row for each type that a plan can give a node, and what engines list besides.

Plans, reports, engine manifests, matrices, the roofline and the comparison of an engine with its plan loop over
FORMATS. A row says what the format holds (and so how it is simulated: ``on_grid`` of precision/grid.py), and which GPUs
and runtimes have it (core/deployment/target.py). 4-bit types have no row: nothing here chooses or lowers them. Builders
list them, and what is known of them for that stands in LISTED.

FP8 is E4M3 without infinities, as TensorRT and ONNX (float8e4m3fn) have it: 4 bits of exponent, 3 of mantissa, ±448 at
most, beyond which both saturate (Micikevicius et al., "FP8 Formats for Deep Learning", 2022; ONNX, "Float stored in 8
bits"). Tensor cores have it from compute capability 8.9 on, and bfloat16 from 8.0 on (CUDA C++ Programming Guide,
"Arithmetic Instructions"); TensorRT-RTX 1.7.1 refuses both below ("HW-specific datatypes"). TensorRT builds typed
graphs with them from 10.0 on; of 8.6 only the implicit flag FP8 is known, which nothing here uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Mapping, Optional, Tuple

import numpy as np
from typing_extensions import Literal

from sr_deploy.core import tolerance
from sr_deploy.core.tolerance import LossyTolerance


@dataclass(frozen=True)
class ElementType:
    """A type that an engine's listing may tell of.

    Attributes:
        name: ours, such as "float16".
        bits: of one value.
        words: TensorRT's words for it, in lower case.
    """

    name: str
    bits: int
    words: Tuple[str, ...]


@dataclass(frozen=True)
class NumberFormat(ElementType):
    """One row.

    Attributes:
        label: for people, such as "FP16".
        largest: the largest magnitude it holds.
        onnx_type: the value of onnx.TensorProto.DataType.
        floating: whether tensors are held in it as they are, without a scale: what nodes of 8 bits may give. The others
            are read through Q/DQ.
        precision: what an engine is called that computes in it and in nothing narrower.
        has_plans: whether ``build --precision`` can make a plan for it.
        tolerance: of such an engine; None where it is held to the bound on the float32 graph.
        mantissa: bits of the mantissa that are stored; None for integers, whose steps are all 1.
        least_exponent: of the smallest normal number; below it steps stay as they are there.
        capability: the least compute capability whose tensor cores have it; "" where all that are supported do.
        since: (runtime, the first version that takes typed graphs with it) each; one that is not named always does.
    """

    label: str
    largest: float
    onnx_type: int
    floating: bool
    precision: str
    has_plans: bool = False
    tolerance: Optional[LossyTolerance] = None
    mantissa: Optional[int] = None
    least_exponent: int = 0
    capability: str = ""
    since: Tuple[Tuple[str, Tuple[int, int]], ...] = ()


#: -128 is not used, so that the range is symmetric, as TensorRT has it.
INT8 = NumberFormat("int8", 8, ("int8",), "INT8", 127.0, 3, False, "int8", True, tolerance.INT8)
#: E4M3.
FLOAT8 = NumberFormat(
    "float8", 8, ("fp8", "float8"), "FP8", 448.0, 17, False, "fp8", True, tolerance.FP8,
    mantissa=3, least_exponent=-6, capability="8.9", since=(("tensorrt", (10, 0)), ("onnxruntime", (1, 15))),
)  # fmt: skip
FLOAT16 = NumberFormat(
    "float16", 16, ("half", "fp16", "float16"), "FP16", 65504.0, 10, True, "fp16", True, tolerance.HALF,
    mantissa=10, least_exponent=-14,
)  # fmt: skip
BFLOAT16 = NumberFormat(
    "bfloat16", 16, ("bf16", "bfloat16"), "BF16", 255.0 * 2.0**120, 16, True, "bf16", True, tolerance.BF16,
    mantissa=7, least_exponent=-126, capability="8.0", since=(("tensorrt", (10, 0)),),
)  # fmt: skip
FLOAT32 = NumberFormat(
    "float32", 32, ("float", "fp32", "float32"), "FP32", float(np.finfo(np.float32).max), 1, True, "fp32",
    mantissa=23, least_exponent=-126,
)  # fmt: skip

#: Narrowest first.
FORMATS: Tuple[NumberFormat, ...] = (INT8, FLOAT8, FLOAT16, BFLOAT16, FLOAT32)

#: What builders list besides.
LISTED: Tuple[ElementType, ...] = tuple(
    ElementType(name, bits, (name,))
    for name, bits in (("fp4", 4), ("int4", 4), ("int32", 32), ("int64", 64), ("uint8", 8), ("bool", 8))
)

#: Name → row.
FORMAT: Mapping[str, NumberFormat] = {one.name: one for one in FORMATS}
#: Those that nodes read through Q/DQ: 8 bits.
QUANTISED: Tuple[NumberFormat, ...] = tuple(one for one in FORMATS if not one.floating)

#: What a plan of several formats is asked for with, and what it and its engines are called.
AUTO = "auto"
#: What engines compute in, widest first.
ENGINE_PRECISIONS: Tuple[str, ...] = (*(one.precision for one in reversed(FORMATS)), AUTO)
#: What a plan can be asked for.
PLAN_PRECISIONS: Tuple[str, ...] = (*(one.precision for one in reversed(FORMATS) if one.has_plans), AUTO)

#: Format → its width in bits; what is not in it (int32, bool, fp4, …) is no type of a plan.
FORMAT_BITS: Mapping[str, int] = {one.name: one.bits for one in FORMATS}
#: Precision of an engine → its tolerance, where it has one; a mix may hold the one that costs most.
LOSSY: Mapping[str, LossyTolerance] = {
    **{one.precision: one.tolerance for one in FORMATS if one.tolerance is not None},
    AUTO: max((one.tolerance for one in FORMATS if one.tolerance is not None), key=lambda bound: bound.decibels),
}

# What described formats accept; a type checker cannot follow a table.
if TYPE_CHECKING:
    FormatName = str
    FloatName = str
    EnginePrecision = str
    PlanPrecision = str
else:
    FormatName = Literal[tuple(one.name for one in FORMATS)]
    FloatName = Literal[tuple(one.name for one in FORMATS if one.floating)]
    EnginePrecision = Literal[ENGINE_PRECISIONS]
    PlanPrecision = Literal[PLAN_PRECISIONS]
