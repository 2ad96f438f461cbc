"""A plot for a dark page: the same drawing with lightness turned round, hues kept."""

from __future__ import annotations

import colorsys
import re
from typing import Match

#: Lightness of what was white and of what was black.
BACK, TEXT = 0.092, 0.92
#: Of a colour that is no tint: so light at least, that lines of it are seen.
COLOUR_FROM, TINT_FROM = 0.55, 0.85
#: Hue and saturation of the page's greys (html_style.py), for what has no colour of its own.
GREY_HUE, GREY_SATURATION, GREY_BELOW = 0.595, 0.15, 0.05

_COLOUR = re.compile(r"(?<=: )#[0-9a-fA-F]{6}(?=[;\"])")


def dark_colour(colour: str) -> str:
    """A colour such as "#0072b2" on a dark page.

    Example:
        >>> dark_colour("#ffffff")
        '#14171b'
    """
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    if saturation < GREY_BELOW:
        hue, saturation, least = GREY_HUE, GREY_SATURATION, BACK
    else:
        least = COLOUR_FROM if light < TINT_FROM else BACK
    turned = colorsys.hls_to_rgb(hue, max(least, TEXT - light * (TEXT - BACK)), saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in turned)


def dark_svg(source: str) -> str:
    """matplotlib's SVG with each colour turned; what has none, text in black, gets one from the root."""

    def turned(found: Match[str]) -> str:
        return dark_colour(found.group())

    return _COLOUR.sub(turned, source).replace("<svg ", f'<svg fill="{dark_colour("#000000")}" ', 1)
