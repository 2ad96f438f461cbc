"""What a deployment's manifest keeps of how it was made: tables of JSON, described so that reading checks them.

They stay dicts and not dataclasses: an entry may lack what its step did not find, and people read them as they are.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

from typing_extensions import Required, TypedDict

from sr_deploy.core.schema import Amount, Count, Scale, Sha256, ShortText, SizePair, described


@described
class LoadRecord(TypedDict, total=False):
    """The fields of LoadOptions, see pipeline/load.py."""

    arch: Optional[ShortText]
    factory: Optional[ShortText]
    scale: Optional[Scale]
    value_range: Optional[Amount]
    lora_alpha: Optional[ShortText]
    res_scale: Optional[float]
    key: Optional[ShortText]
    colours: Optional[ShortText]
    ignore_surplus: bool
    model_arg: List[ShortText]


@described
class SourceRecord(TypedDict, total=False):
    """The checkpoint, or the ONNX file.

    Attributes:
        file, path, sha256: its name, the path it had, its hash.
        container: the kind of file, such as "zip", "safetensors" or "onnx".
        found_under: the entry that held the tensors; null: the top.
        stripped_prefix: what was taken off every key; null: nothing.
        load_options: how it was loaded.
        external: of an ONNX file: the files of external data, relative to its folder, and their hashes.
    """

    file: Required[str]
    path: Required[str]
    sha256: Required[Sha256]
    container: str
    found_under: Optional[str]
    stripped_prefix: Optional[str]
    load_options: Required[LoadRecord]
    external: Dict[str, Sha256]


@described
class FoldedRecord(TypedDict, total=False):
    """One block, or part of the graph, that was folded; the fields of FoldedBlock in fold/result.py."""

    name: Required[str]
    was: Required[str]
    became: Required[str]
    macs_before: Count
    macs_after: Count
    error_float64: Optional[Amount]
    error_float32: Optional[Amount]
    error_original_float32: Optional[Amount]


@described
class KeptRecord(TypedDict):
    """One block, or part of the graph, that was left as it was; the fields of KeptBlock in fold/result.py."""

    name: str
    was: str
    reason: str


@described
class FoldRecord(TypedDict, total=False):
    """What was folded; the fields of FoldReport in fold/result.py."""

    blocks: List[FoldedRecord]
    kept: List[KeptRecord]
    network_error: Optional[Amount]
    network_error_before: Optional[Amount]
    network_error_float64: Optional[Amount]
    sizes: List[SizePair]
    noise_overflows: bool


@described
class CompressRecord(TypedDict, total=False):
    """One step of compression.

    Attributes:
        source_sha256: of the graph that was compressed, model.onnx of the deployment that was given.
        source: name of the file that deployment was made from.
        asked: the budget, such as "--macs 0.6".
        importance: the method that chose the channels.
        widths: group of channels → how many before and after; those that stayed are left out.
        groups: how many groups there were.
        parameters, macs: of the plain graph, before and after; multiply-accumulates for a low-resolution pixel.
        time_share, time_kind: the time after as a share of that before, where it was asked for, and whose time counts.
        refitted: whether weights were fitted by least squares.
        fitted_db: PSNR of its output to the whole network's after that, on photographs kept back, dB.
        steps, best_step, rate, device: of distillation; 0 steps: none.
        fidelity_db: that PSNR of what was written, dB.
        lost_db: PSNR-Y lost on shrunk photographs against the whole network, dB; where it was asked for.
        seed: of all that is random.
        pictures, pictures_sha256: how many photographs, and one hash over theirs, in order.
    """

    source_sha256: Required[Sha256]
    source: Required[ShortText]
    asked: Required[ShortText]
    importance: Required[ShortText]
    widths: Required[Dict[str, Tuple[Count, Count]]]
    groups: Required[Count]
    parameters: Required[Tuple[Count, Count]]
    macs: Required[Tuple[Amount, Amount]]
    time_share: Optional[Amount]
    time_kind: Required[ShortText]
    refitted: Required[bool]
    fitted_db: Required[float]
    steps: Required[Count]
    best_step: Count
    rate: Amount
    device: ShortText
    fidelity_db: Required[float]
    lost_db: Optional[float]
    seed: Required[Count]
    pictures: Required[Count]
    pictures_sha256: Required[Sha256]


@described
class CountsRecord(TypedDict, total=False):
    """Counts of a graph.

    Attributes:
        nodes: of the graph.
        macs: multiply-accumulates.
        moved_bytes: what all nodes read and write.
        peak_activation_bytes: the most that is alive at once when the nodes run in order.
    """

    nodes: Count
    macs: Count
    moved_bytes: Count
    peak_activation_bytes: Count


@described
class PassRecord(TypedDict, total=False):
    """What one pass of the rewriting changed.

    Attributes:
        places: where it changed the graph.
        notes: what it left alone, and why.
        nodes: of the graph after it.
        folded, kept: of the pass that folds, where they are not part of the manifest's account of folding: what became
            one convolution, and where parallel branches stay and why.
    """

    places: Required[Count]
    notes: List[str]
    nodes: Count
    folded: List[FoldedRecord]
    kept: List[KeptRecord]


@described
class RewriteRecord(TypedDict, total=False):
    """What the rewriting did to one graph; empty where it did nothing.

    Attributes:
        counted_at: the input HxW of all counts.
        before: the counts of the graph as exported.
        after: those of the graph that was written.
        passes: by the pass's name, in order.
        tuned: by srdeploy tune: "variant", "backend", "from", the graph that it began with, and "for", the GPU it was
            estimated for, in float16.
    """

    counted_at: str
    before: CountsRecord
    after: CountsRecord
    passes: Dict[str, PassRecord]
    tuned: Dict[str, str]
