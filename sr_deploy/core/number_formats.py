"""The table of number formats: one row for each type that a plan can give a node, and what engines list besides.

Plans, reports, engine manifests, matrices, the roofline and the comparison of an engine with its plan loop over
FORMATS. bfloat16 and the 8-bit floats have no row: nothing here chooses, simulates or lowers them, so a plan cannot ask
for them. Builders do list them, and what is known of them for that stands in LISTED.
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
        floating: whether it is a float: what INT8 nodes may give, and layers of TensorRT 8 may be held to.
        precision: what an engine is called that computes in it and in nothing narrower.
        has_plans: whether ``build --precision`` can make a plan for it.
        tolerance: of such an engine; None where it is held to the bound on the float32 graph.
    """

    label: str
    largest: float
    onnx_type: int
    floating: bool
    precision: str
    has_plans: bool = False
    tolerance: Optional[LossyTolerance] = None


#: -128 is not used, so that the range is symmetric, as TensorRT has it.
INT8 = NumberFormat("int8", 8, ("int8",), "INT8", 127.0, 3, False, "int8", True, tolerance.INT8)
FLOAT16 = NumberFormat(
    "float16", 16, ("half", "fp16", "float16"), "FP16", 65504.0, 10, True, "fp16", True, tolerance.HALF
)
FLOAT32 = NumberFormat(
    "float32", 32, ("float", "fp32", "float32"), "FP32", float(np.finfo(np.float32).max), 1, True, "fp32"
)

#: Narrowest first.
FORMATS: Tuple[NumberFormat, ...] = (INT8, FLOAT16, FLOAT32)

#: What builders list besides.
LISTED: Tuple[ElementType, ...] = (
    ElementType("bfloat16", 16, ("bf16", "bfloat16")),
    *(ElementType(name, bits, (name,)) for name, bits in (
        ("fp8", 8), ("fp4", 4), ("int4", 4), ("int32", 32), ("int64", 64), ("uint8", 8), ("bool", 8),
    )),
)  # fmt: skip

#: What a plan of several formats is asked for with, and what it and its engines are called.
AUTO = "auto"
#: What engines compute in, widest first.
ENGINE_PRECISIONS: Tuple[str, ...] = (*(one.precision for one in reversed(FORMATS)), AUTO)
#: What a plan can be asked for.
PLAN_PRECISIONS: Tuple[str, ...] = (*(one.precision for one in reversed(FORMATS) if one.has_plans), AUTO)

#: Format → its width in bits; what is not in it (int32, bool, fp8, …) is no type of a plan.
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
