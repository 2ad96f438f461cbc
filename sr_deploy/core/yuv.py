"""How the numbers of a video's planes are meant: the description that clips, graphs and manifests share."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import Literal

from sr_deploy.core.schema import described

Matrix = Literal["bt601", "bt709", "bt2020", "fcc", "smpte240m"]
Range = Literal["limited", "full"]
Siting = Literal["left", "center", "topleft"]


@described
@dataclass(frozen=True)
class YuvColour:
    """How the numbers of a video's planes are meant.

    Attributes:
        matrix: of ITU-T H.273, table 4; BT.2020 with non-constant luminance.
        range: "limited" (8 bits: luma 16 to 235, chroma 16 to 240) or "full" (0 to 255).
        siting: where a chroma sample lies among its luma samples: "left" (beside the upper and lower one, in the middle
            of both), "center" or "topleft"; of no meaning without subsampling.
    """

    matrix: Matrix
    range: Range = "limited"
    siting: Siting = "left"
