"""Graphics that no plan was chosen on, and of the ways to make plans one: plots, pages of a browser, drawings.

    python tests/benchmarks/held_graphics.py FOLDER      FOLDER/HR, X2 and X4

Nothing of core/media/graphics is used, and none of its fonts where there is a choice: plots are Matplotlib's in its
STIX and Computer Modern fonts, pages are those of a headless Chromium (left out, and said, where there is none),
drawings are Pillow's. Sides are 480 pixels, and smaller ones are made as Set14's are. They were looked at once the code
stood, for the tables in calibration/README.md, and by what measure one of three grids is taken was settled on them.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, Iterator, Tuple

import numpy as np
from PIL import Image, ImageDraw

from sr_deploy.core.media.bicubic import resize

SIDE = 480
#: Words of no language, for pages.
_WORDS = ("lorem", "ipsum", "dolor", "sit", "amet", "elit", "sed", "eiusmod", "tempor", "incididunt", "labore")


def plots() -> Iterator[Tuple[str, Image.Image]]:
    """Six plots in styles of Matplotlib's own."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    random = np.random.default_rng(77)
    x = np.linspace(0, 6, 200)

    def lines(axes: plt.Axes) -> None:
        for order in range(6):
            axes.plot(x, np.sin(x * (1 + order / 3)) * np.exp(-x / 5), linewidth=1.0, label=f"$\\omega_{order}$")
        axes.legend(ncol=2)
        axes.grid(True, linestyle=":")
        axes.set_title(r"$f(x)=e^{-x/5}\sin(\omega x)$")

    def scatter(axes: plt.Axes) -> None:
        for colour, marker in zip(("tab:red", "tab:cyan", "black"), "s^x"):
            axes.scatter(*random.normal(random.uniform(-2, 2, (2, 1)), 0.8, (2, 70)), c=colour, marker=marker, s=14)
        axes.set_xlabel("first component")

    def contour(axes: plt.Axes) -> None:
        a, b = np.meshgrid(x, x)
        values = np.cos(a) * np.sin(b) + 0.1 * a
        axes.contourf(a, b, values, 12, cmap="turbo")
        axes.clabel(axes.contour(a, b, values, 12, colors="k", linewidths=0.6), fontsize=6)

    def bars(axes: plt.Axes) -> None:
        axes.barh([f"row {one:02d}" for one in range(14)], random.uniform(1, 9, 14), hatch="//", color="gold")
        axes.tick_params(labelsize=7)

    def steps(axes: plt.Axes) -> None:
        axes.set_facecolor("#10141c")
        for colour in ("lime", "magenta", "yellow"):
            axes.step(np.arange(60), np.cumsum(random.normal(0, 1, 60)), color=colour, linewidth=0.9)
        axes.grid(color="#345")

    def table(axes: plt.Axes) -> None:
        axes.axis("off")
        cells = [[f"{value:.3f}" for value in row] for row in random.normal(0, 5, (16, 5))]
        axes.table(cells, colLabels=list("ABCDE"), loc="center", cellColours=[["w", "#eef"] * 2 + ["#fee"]] * 16)

    fonts = ("stix", "cm")
    for index, draw in enumerate((lines, scatter, contour, bars, steps, table)):
        family = {"stix": "STIXGeneral", "cm": "cmr10"}[fonts[index % 2]]
        style = {"font.family": family, "mathtext.fontset": fonts[index % 2], "axes.unicode_minus": False}
        with plt.rc_context({**style, "axes.formatter.use_mathtext": True}):
            figure, axes = plt.subplots(figsize=(4.8, 4.8), dpi=100)
            draw(axes)
            stored = io.BytesIO()
            figure.savefig(stored, format="png")
            plt.close(figure)
        yield f"plot_{draw.__name__}", Image.open(stored).convert("RGB")


def _table(rows: int, random: np.random.Generator) -> str:
    cells = "".join(
        f"<tr><td>{random.choice(_WORDS)}<td>{random.integers(9999)}<td class={random.choice(['up', 'down'])}>"
        f"{random.normal():+.2f} %<td><progress max=9 value={random.integers(9)}></progress>"
        for _ in range(rows)
    )
    return f"<table>{cells}</table>"


def _pages() -> Dict[str, str]:
    random = np.random.default_rng(78)

    def text(count: int) -> str:
        return " ".join(random.choice(_WORDS, count))

    article = f"<h1>{text(4)}</h1><p class=lead>{text(30)}</p><h2>{text(3)}</h2><p>{text(90)}</p><ul>" + "".join(
        f"<li><a href=#>{text(5)}</a>" for _ in range(6)
    )
    board = "<nav><b>board</b> <a>one</a> <button>save</button> <input value=search></nav>" + _table(13, random)
    code = "<pre>" + "\n".join(
        f"<i>{one:3d}</i> <b>{random.choice(['let', 'if', 'for', 'return'])}</b> {random.choice(_WORDS)}"
        f"(<u>'{random.choice(_WORDS)}'</u>, {random.integers(99)});  <s>// {text(2)}</s>"
        for one in range(26)
    )
    form = "".join(
        f"<label><input type={random.choice(['checkbox', 'radio'])} {random.choice(['', 'checked'])}> {text(3)}</label>"
        f"<select><option>{text(1)}</select><br>" for _ in range(12)
    )  # fmt: skip
    looks = {
        "article": "body{font:15px serif;color:#222}a{color:#03c}.lead{font-size:18px;color:#666}h1{color:#900}",
        "board": "body{font:12px sans-serif;margin:0}nav{background:#224;color:#fff;padding:8px}td{padding:3px 9px;"
        "border-bottom:1px solid #ccd}.up{color:#0a0}.down{color:#d00}tr:nth-child(odd){background:#f4f6ff}",
        "code": "body{background:#1e1e1e;color:#d4d4d4;font:13px monospace}b{color:#c586c0}u{color:#ce9178;"
        "text-decoration:none}s{color:#6a9955;text-decoration:none}i{color:#858585}",
        "form": "body{font:14px sans-serif;background:linear-gradient(#fff,#cde)}label{display:inline-block;"
        "width:300px;margin:6px;padding:4px;border:1px solid #69c;border-radius:7px;background:#fff}",
    }
    bodies = {"article": article, "board": board, "code": code, "form": form}
    return {name: f"<meta charset=utf-8><style>{looks[name]}</style>{body}" for name, body in bodies.items()}


def pages() -> Iterator[Tuple[str, Image.Image]]:
    """Four pages as Chromium shows them."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print("no Chromium here: the pages are left out", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, page in _pages().items():
            source, shot = Path(folder) / f"{name}.html", Path(folder) / f"{name}.png"
            source.write_text(page, encoding="utf-8")
            subprocess.run(
                [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={shot}",
                 f"--window-size={SIDE},{SIDE + 160}", f"--user-data-dir={folder}/profile", source.as_uri()],
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip
            yield f"page_{name}", Image.open(shot).convert("RGB").crop((0, 0, SIDE, SIDE))


def drawings() -> Iterator[Tuple[str, Image.Image]]:
    """Four drawings: a map, a comic, tiles, a diagram."""
    random = np.random.default_rng(79)

    def blank(colour: str) -> Tuple[Image.Image, ImageDraw.ImageDraw]:
        # Drawn at twice the side, so that edges are smooth.
        image = Image.new("RGB", (2 * SIDE, 2 * SIDE), colour)
        return image, ImageDraw.Draw(image)

    image, draw = blank("#f2efe9")
    for _ in range(40):
        corner, extent = random.integers(0, 900, 2), random.integers(40, 150, 2)
        colour = random.choice(["#d9d0c9", "#add19e", "#aad3df"])
        draw.rectangle([*corner.tolist(), *(corner + extent).tolist()], colour, "#b0a090", 2)
    for width, colour in ((26, "#e892a2"), (16, "#fcd6a4"), (8, "#ffffff")):
        for _ in range(7):
            points = random.integers(0, 960, (4, 2))
            draw.line([tuple(one) for one in points.tolist()], "#777777", width + 4, "curve")
            draw.line([tuple(one) for one in points.tolist()], colour, width, "curve")
    yield "drawing_map", image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)

    image, draw = blank("#ffe9a8")
    for _ in range(9):
        centre, radius = random.integers(80, 880, 2), int(random.integers(40, 190))
        box = [*(centre - radius).tolist(), *(centre + radius).tolist()]
        draw.ellipse(box, tuple(random.integers(0, 256, 3).tolist()), "black", 9)
        draw.arc([one + 20 * sign for one, sign in zip(box, (1, 1, -1, -1))], 20, 160, "black", 7)
    for _ in range(30):
        start = random.integers(0, 960, 2)
        end = start + random.integers(-90, 90, 2)
        draw.line([*start.tolist(), *end.tolist()], "black", int(random.integers(2, 7)))
    yield "drawing_comic", image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)

    colours = random.integers(0, 2, (12, 3)) * 255
    tiles = colours[random.integers(0, 12, (SIDE // 12, SIDE // 12))].astype(np.uint8)
    yield "drawing_tiles", Image.fromarray(np.kron(tiles, np.ones((12, 12, 1), np.uint8)))

    image, draw = blank("white")
    places = random.integers(60, 820, (11, 2))
    for one, other in random.integers(0, 11, (18, 2)):
        draw.line([*places[one].tolist(), *places[other].tolist()], "#1f4e9c", 4)
    for place in places:
        box = [*place.tolist(), *(place + (120, 64)).tolist()]
        draw.rounded_rectangle(box, 14, random.choice(["#ff5a36", "#37d67a", "#f8f032", "#ffffff"]), "#102030", 5)
        draw.text((place + (22, 18)).tolist(), random.choice(_WORDS)[:7], "black", font_size=28)
    yield "drawing_diagram", image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def write_held(folder: Path) -> Path:
    """All of them as PNG files under ``folder``/HR, X2 and X4; what is there already is kept."""
    if (folder / "X4" / "drawing_diagram.png").is_file():
        return folder
    for part in ("HR", "X2", "X4"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for makers in (plots, pages, drawings):
        for name, image in makers():
            pixels = np.asarray(image.resize((SIDE, SIDE)) if image.size != (SIDE, SIDE) else image)
            for part, small in (("HR", pixels), *((f"X{k}", resize(pixels, (SIDE // k, SIDE // k))) for k in (2, 4))):
                Image.fromarray(small).save(folder / part / f"{name}.png")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(write_held(parser.parse_args().folder))
