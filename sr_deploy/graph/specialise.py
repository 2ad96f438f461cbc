"""A dynamic graph with its input fixed: shapes become constants, and what follows from them is computed once."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx

from sr_deploy.core.contract import Size, format_size, layout_of_shape, shape_in
from sr_deploy.core.errors import BadDeployment

#: So many tensors without a shape are worth a second look for shapes.
MANY = 1000


def load_graph(path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        BadDeployment: it is missing, truncated or not ONNX.
    """
    try:
        model = onnx.load(str(path))
    except OSError as error:
        raise BadDeployment(
            f"cannot read {path}: {error.strerror}", "an ONNX file", "check the path and who may read it"
        ) from error
    except Exception as error:  # protobuf's DecodeError has moved between packages; whatever it is, the file is bad
        raise BadDeployment(
            f"{path} is not an ONNX file, or it is cut off", "a whole ONNX file", "export it again"
        ) from error
    if not model.graph.node:
        raise BadDeployment(f"{path} holds an empty graph", "an ONNX graph with nodes", "export it again")
    return model


def layout_of(model: onnx.ModelProto) -> str:
    """ "NHWC" or a layout of planes where the graph takes uint8 (graph/byte_io.py, planar_io.py), else "NCHW"."""
    kind = model.graph.input[0].type.tensor_type if model.graph.input else None
    if kind is None or kind.elem_type != onnx.TensorProto.UINT8:
        return "NCHW"
    return layout_of_shape(tuple(dim.dim_value for dim in kind.shape.dim)) or "NHWC"


def static_graph(path: Path, size: Size) -> onnx.ModelProto:
    """``static_model`` of the graph in ``path``; raises BadDeployment too where it is not ONNX."""
    return static_model(load_graph(path), size, str(path))


def static_model(model: onnx.ModelProto, size: Size, path: str) -> onnx.ModelProto:
    """A graph for one input size, with everything that depends only on the size folded into constants.

    Args:
        model: with one input of a form of core/contract.py, dynamic or already of this size; it is changed.
        size: height and width.
        path: its file, for messages.

    Raises:
        BadDeployment: the graph is fixed to another size.
    """
    if len(model.graph.input) != 1 or len(model.graph.input[0].type.tensor_type.shape.dim) != 4:
        raise BadDeployment(
            f"{path} does not take one picture",
            "one input of shape (1, 3, height, width)",
            "export the network with srdeploy export",
        )
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, value in zip(dims, shape_in(layout_of(model), size)):
        if dim.HasField("dim_value") and dim.dim_value != value:
            have = "x".join(str(d.dim_value or d.dim_param) for d in dims)
            raise BadDeployment(
                f"{path} takes an input of {have}, not of {format_size(size)}",
                "a dynamic graph, or one of this size",
                f"export it with --dynamic or --size {format_size(size)}",
            )
        dim.dim_value = value
    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()
    del model.graph.value_info[:]
    # Folding stops where its first round finds nothing, and only then looks at shapes: a graph without nodes of
    # constants, as rewriting leaves it, must come with its shapes.
    model = _with_shapes(model)
    folded = with_constants_folded(model)
    # Folding rewrites the nodes and drops their doc_strings, which hold the pins.
    marks = {node.name: node.doc_string for node in model.graph.node if node.doc_string}
    for node in folded.graph.node:
        node.doc_string = marks.get(node.name, "")
    return folded


def with_constants_folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with what follows from constants, and from shapes that it says, computed once; remarks of nodes go."""
    import onnxruntime
    from onnx_graphsurgeon.logger import G_LOGGER as SURGEON
    from polygraphy.backend.onnx import fold_constants
    from polygraphy.logger import G_LOGGER

    # ONNX Runtime computes the constants; its remarks on the graph are not for the user.
    onnxruntime.set_default_logger_severity(3)
    # graphsurgeon has a logger of its own, which writes to stdout, where results belong.
    severity, SURGEON.severity = SURGEON.severity, SURGEON.CRITICAL
    try:
        with G_LOGGER.verbosity(logging.CRITICAL):
            return fold_constants(model, allow_onnxruntime_shape_inference=False)
    finally:
        SURGEON.severity = severity


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the shapes of its tensors, as far as they can be found.

    ONNX's own inference does not follow a shape through all the arithmetic that a size goes through; folding would then
    go round once for each such place in a row (eleven times in F2SRGAN's Fourier transforms), where the symbolic one of
    ONNX Runtime, which takes longer, knows all at once. It gives up on operators of which it knows nothing.
    """
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {value.name for value in inferred.graph.value_info if _has_shape(value)}
    known.update(value.name for value in inferred.graph.output if _has_shape(value))
    if sum(name not in known for node in model.graph.node for name in node.output if name) < MANY:
        return inferred
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    try:
        return SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    except Exception:  # whatever it stumbles over, folding goes on without it
        return inferred


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim)
