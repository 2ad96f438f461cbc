"""The deep-learning accelerator of a Jetson: put an engine on it, and say what it does not take.

A layer that the DLA cannot run goes to the GPU (GPU_FALLBACK), with a copy at each border between the two, so a network
that falls back often is slower than one that stays on the GPU. TensorRT is asked for each layer before the build
(``can_run_on_DLA``); fusion may change the picture: the count is of the network's layers, not of the engine's.

Written from the developer guide ("Working with DLA"); no DLA has run it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, Mapping

from sr_deploy.core.contract import format_size
from sr_deploy.core.errors import EnvironmentFault, UsageError
from sr_deploy.engine.manifest import Profile
from sr_deploy.engine.options import EngineOptions


def runtime_for(trt: Any, logger: Any, settings: Mapping[str, str]) -> Any:
    """The runtime that opens an engine, with the DLA core that the engine was built for.

    TensorRT loads an engine onto the core that the runtime names, core 0 where it names none (sampleEngines.cpp of
    trtexec sets it before it deserialises too).

    Args:
        trt: the module.
        logger: the flavour's.
        settings: of the engine's build, see ``use_dla``.

    Raises:
        EnvironmentFault: the engine needs a DLA core that is not here.
    """
    runtime = trt.Runtime(logger)
    core = settings.get("dla_core")
    if core is not None:
        if int(core) >= runtime.num_DLA_cores:
            raise EnvironmentFault(
                f"the engine was built for DLA core {core}, and TensorRT finds {runtime.num_DLA_cores} DLA cores here",
                "the board it was built on, with its DLA (in a container: --runtime nvidia)",
                "srdeploy build on this machine, without --dla or with another core",
            )
        runtime.DLA_core = int(core)
    return runtime


def use_dla(
    trt: Any, flavour: str, builder: Any, network: Any, config: Any, options: EngineOptions, profile: Profile
) -> Dict[str, str]:
    """Make the DLA the default device of a build, with the GPU for what it does not take.

    Args:
        trt: the module.
        flavour: "tensorrt"; TensorRT-RTX takes the setting and ignores it, so it is refused.
        builder, network, config: of this build; the network is parsed and has its shape.
        options: ``dla_core`` is the core, from 0; the DLA computes in FP16 and INT8 only, so not in every precision.
        profile: the inputs; the DLA takes one size only.

    Returns:
        For the manifest's settings: "dla_core", "dla_layers" ("17 of 20"), "dla_on_gpu" (kinds of layers that fall
        back, with their number; "none").

    Raises:
        UsageError: this flavour, precision, profile or core has no DLA.
        EnvironmentFault: the machine has none.
    """
    if flavour == "tensorrt-rtx" or not hasattr(builder, "num_DLA_cores"):
        raise UsageError(f"{flavour} {trt.__version__} has no DLA", "--backend tensorrt on a Jetson, or no --dla")
    if builder.num_DLA_cores == 0:
        raise EnvironmentFault(
            "TensorRT finds no DLA core here",
            "a Jetson with a DLA (Xavier NX, AGX Xavier, Orin NX, AGX Orin)",
            "leave --dla out",
        )
    core = options.dla_core
    if core is None or not 0 <= core < builder.num_DLA_cores:
        raise UsageError(f"there is no DLA core {core}", f"0 to {builder.num_DLA_cores - 1}")
    if options.precision == "fp32":
        raise UsageError("a DLA does not compute in FP32", "--precision fp16 or int8 with --dla")
    if profile[0] != profile[2]:
        raise UsageError(
            f"a DLA takes one size, not {format_size(profile[0])} up to {format_size(profile[2])}", "--size with --dla"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    falling = Counter(layer.type.name.lower() for layer in layers if not config.can_run_on_DLA(layer))
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(falling.items())) or "none"
    return {
        "dla_core": str(core),
        "dla_layers": f"{len(layers) - sum(falling.values())} of {len(layers)}",
        "dla_on_gpu": told,
    }
