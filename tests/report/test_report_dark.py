"""Plots on a dark page: colours are turned, addresses are not, and the page shows the one that fits."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

from sr_deploy.report import html
from sr_deploy.report.dark import dark_colour, dark_png, dark_svg
from sr_deploy.report.html_style import STYLE
from sr_deploy.report.plots import COLOURS


def luminance(colour):
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", ["#000000", *COLOURS])
def test_what_is_drawn_stands_out_on_the_dark_page(colour):
    back = dark_colour("#ffffff")
    assert back == re.search(r"dark\).*?--back: (#\w+)", STYLE, re.DOTALL).group(1), "the page's own"
    # 3:1 is what WCAG 2.2, 1.4.11 asks of graphics.
    assert (luminance(dark_colour(colour)) + 0.05) / (luminance(back) + 0.05) > 3


def test_colours_are_turned_and_identifiers_are_not():
    source = (
        '<svg width="1"><path clip-path="url(#abcdef)" style="fill: #ffffff; stroke: #0072b2"/><use href="#123456"/>'
    )
    turned = dark_svg(source)
    assert "url(#abcdef)" in turned and 'href="#123456"' in turned
    assert f"fill: {dark_colour('#ffffff')}; stroke: {dark_colour('#0072b2')}" in turned
    # Text in black says no colour of its own.
    assert turned.startswith(f'<svg fill="{dark_colour("#000000")}" ')


def test_a_picture_of_dots_is_turned_as_lines_are():
    picture = np.full((2, 2, 3), 255, np.uint8)
    picture[0, 0] = (0xB2, 0x72, 0x00)
    turned = cv2.imdecode(np.frombuffer(dark_png(cv2.imencode(".png", picture)[1].tobytes()), np.uint8), 1)
    for place, colour in (((0, 0), "#0072b2"), ((1, 1), "#ffffff")):
        wanted = [int(dark_colour(colour)[k : k + 2], 16) for k in (5, 3, 1)]
        assert np.abs(turned[place].astype(int) - wanted).max() <= 1


def test_a_dark_screen_shows_the_dark_one_and_paper_the_light_one():
    shown = html.image("image/png", b"light", "a plot", dark=b"dark")
    assert shown.index('<source media="screen and (prefers-color-scheme: dark)"') < shown.index("<img")
    assert html.data_uri("image/png", b"dark") in shown and html.data_uri("image/png", b"light") in shown
    assert "<picture>" not in html.image("image/png", b"light", "a picture")


def test_a_narrow_screen_scrolls_tables_and_fits_plots():
    narrow = STYLE[STYLE.index("@media (max-width: 30rem)") : STYLE.index("@media print")]
    assert "min-width" not in narrow and "max-width: 100%" in STYLE
    assert re.search(r"\.wide \{[^}]*overflow-x: auto", STYLE)
