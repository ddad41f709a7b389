"""From a matplotlib figure to SVG inside a page: the same bytes every time, in the colours of the page.

matplotlib draws with stand-in colours; each becomes a CSS variable, so that a figure follows the light or dark scheme
of the page. Ids get the figure's own prefix, because a page holds many figures.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER, MISS = "#1d2330", "#69707d", "#dde1e7", "#fdfdfe", "#b3261e"
SERIES = ("#0072b2", "#c94f00", "#00805c", "#a8437f", "#9a6a00", "#3d3d8f", "#007f92", "#5b6068")
"""After Okabe & Ito (2008), darkened until text and thin lines in them are legible on white."""
SERIES_DARK = ("#5ab4f0", "#ff9254", "#3fcf9f", "#ea93c4", "#eebb4d", "#a9a7ff", "#4fd0e3", "#b3b9c3")

_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "rule",
    PAPER: "card",
    MISS: "miss",
    **{colour: f"s{i}" for i, colour in enumerate(SERIES, start=1)},
}

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "path.simplify": True,
    "lines.solid_capstyle": "round",
}


def colour(name: str) -> str:
    """The stand-in of a colour: s1 ... s8, ink, muted, rule, card, miss."""
    return next(stand_in for stand_in, variable in _VARIABLES.items() if variable == name)


@contextmanager
def styled(salt: str) -> Iterator[None]:
    """matplotlib in the style of the report, whatever the user's own settings; ``salt`` fixes the ids."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        settings: Any = {**STYLE, "svg.hashsalt": salt}
        mpl.rcParams.update(settings)
        yield


def inline(figure: Figure, prefix: str, label: str, tips: dict[str, str] | None = None) -> Markup:
    """The figure as an SVG element with an accessible name.

    Args:
        figure: drawn in stand-in colours.
        prefix: for the ids, different for every figure of a page.
        label: what the figure shows, for those who do not see it.
        tips: text to show on hover, by the gid of the artist.
    """
    target = io.StringIO()
    with styled(prefix):
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", body)
    for gid, tip in (tips or {}).items():
        mark = f'<g id="{prefix}-{gid}">'
        body = body.replace(mark, f"{mark}<title>{escape(tip)}</title>", 1)
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, f"var(--{variable})")
    box = re.search(r'viewBox="([^"]+)"', body)
    assert box is not None
    head = f'<svg class="plot" role="img" aria-label="{escape(label)}" viewBox="{box[1]}">'
    return Markup(re.sub(r"^<svg[^>]*>", lambda _: head, body, count=1).strip())
