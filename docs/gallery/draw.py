"""Draws the figures of the site from the scripts beside this one, each on light and on dark.

`pip install -e '.[docs]' && python docs/gallery/draw.py` draws all, `python docs/gallery/draw.py
ranks` one.
"""

import runpy
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from cycler import cycler
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
SCRIPTS = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "draw")
INK = {"light": "#30343b", "dark": "#c9ced6"}
COLORS = {
    "light": ["#2f6db5", "#d9822b", "#2e8b62", "#a0509c", "#c04848", "#7a808a"],
    "dark": ["#79b0f2", "#f0a860", "#6fcf9f", "#d694d2", "#ee8a8a", "#9aa1ac"],
}
MAPS = {"light": "Blues", "dark": "Blues_r"}


def style(theme: str) -> dict:
    ink = INK[theme]
    return {
        "axes.prop_cycle": cycler(color=COLORS[theme]),
        "axes.edgecolor": ink,
        "axes.labelcolor": ink,
        "axes.titlesize": 11,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 10.5,
        "grid.alpha": 0.3,
        "image.cmap": MAPS[theme],
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "text.color": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.titlecolor": ink,
        "figure.constrained_layout.use": True,
    }


def draw(name: str, folder: Path = HERE / "images", themes=("light", "dark"), dpi=140) -> None:
    """Runs a script and saves its figure, once for each theme."""
    folder.mkdir(exist_ok=True, parents=True)
    for theme in themes:
        with plt.rc_context(style(theme)):
            runpy.run_path(str(HERE / f"{name}.py"))
            plt.gcf().savefig(folder / f"{name}-{theme}.png", dpi=dpi, transparent=True)
            plt.close("all")


if __name__ == "__main__":
    for script in sys.argv[1:] or SCRIPTS:
        draw(script)
        print(script)
