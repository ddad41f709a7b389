"""The tables in Markdown, their place in docs/real-truth.md, and its figure."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from truth.draws import DEAR, FIXED, GATES, SHRUNKEN
from truth.scores import Failure, Found, Setting, failures, score, trust, widths

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOCS = Path(__file__).parents[2] / "docs"
PAGE, FIGURE = DOCS / "real-truth.md", DOCS / "images" / "real-truth.svg"

OPEN, CLOSE = "<!-- tables: written by scripts/real_truth.py -->", "<!-- end of the tables -->"

DRAWN = (
    "ips", "snips", "clipped_ips(10)", "clipped_ips(slope)", "dm", "dr", "sndr", "mrdr", "switch_dr(10)",
    "switch_dr(slope)", "dros(slope)", "drps(slope)", "subgaussian_dr(slope)", "mips", "offcem",
)  # fmt: skip

LEFT_OUT = ("on_policy", DEAR[0])
"""The one looks at no policy, the other is there twice."""

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

BROKEN = 0.9
"""Coverage below this is drawn hollow."""

GROUPS = {
    "unshrunken": ("ips", "snips", "cressie_read", "dr", "sndr"),
    "chosen by `slope`": tuple(f"{name}(slope)" for name in SHRUNKEN),
    "chosen by `mse`": tuple(f"{name}(mse)" for name in SHRUNKEN),
    "fixed": FIXED,
}
"""Estimators whose gates are looked at together."""


def tables(found: Mapping[Setting, Found], kinds: Found) -> list[str]:
    """Lines of Markdown."""
    lines = ["", *_policies(found), *_trust(found), *_failures(found), *_intervals(kinds)]
    for setting, own in found.items():
        lines += [f"### {_title(setting)}", "", *_scores(own), ""]
    return lines


def write(found: Mapping[Setting, Found], kinds: Found) -> None:
    """Put the tables between the marks of the page, and draw the figure beside it."""
    text = PAGE.read_text()
    before, rest = text.split(OPEN)
    after = rest.split(CLOSE)[1]
    PAGE.write_text(before + "\n".join([OPEN, *tables(found, kinds), CLOSE]) + after)
    FIGURE.write_bytes(figure(found))


def _title(setting: Setting) -> str:
    return f"{setting.world}, {setting.logger}, n = {setting.n:,}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], words: int = 1) -> Iterator[str]:
    """The first `words` columns hold words, the others numbers."""
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join('---' if i < words else '---:' for i in range(len(head)))}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}".replace("0.", ".", 1)


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.1f}"


def _scores(found: Found) -> Iterator[str]:
    head = (
        "estimator", "bias", "RMSE", "covered %", "half width", "ok %", "caution %", "unreliable %", "no value %",
        "covered % if ok", "rank",
    )  # fmt: skip
    rows = []
    for own in score(found):
        gates = (own.ok, own.caution, own.unreliable, own.no_value, own.coverage_ok)
        rows.append(
            [
                f"`{own.estimator}`", _number(own.bias), _number(own.rmse), _percent(own.coverage), _number(own.half),
                *map(_percent, gates), _number(own.rank)[:-2],
            ]
        )  # fmt: skip
    yield from _table(head, rows)


def _policies(found: Mapping[Setting, Found]) -> Iterator[str]:
    yield from ("### The policies", "")
    # The last setting of a world is the one that lacks support.
    for setting in {setting.world: setting for setting in found}.values():
        own = found[setting]
        rows = zip(own.policies, map(_number, own.truth), map(_percent, own.supported), strict=True)
        yield from _table((setting.world, "exact value", f"% supported under {setting.logger}"), rows)


def _trust(found: Mapping[Setting, Found]) -> Iterator[str]:
    yield from ("### What the gates are worth", "")
    head = [part for gate in GATES for part in (f"{gate} %", "covered %", "far %")]
    for title, names in GROUPS.items():
        rows = []
        for setting, own in found.items():
            gates = [_percent(x) for one in trust(own.part(names)) for x in (one.share, one.coverage, one.far)]
            rows.append([_title(setting), *gates])
        yield from _table([title, *head], rows)


def _failures(found: Mapping[Setting, Found]) -> Iterator[str]:
    yield from ("### Where `ok` was most wrong", "")
    worst: dict[str, tuple[Setting, Failure]] = {}
    for setting, own in found.items():
        for one in failures(own.part(name for name in own.estimators if name not in LEFT_OUT)):
            if one.estimator not in worst or one.coverage < worst[one.estimator][1].coverage:
                worst[one.estimator] = setting, one
    rows = [
        [
            f"`{one.estimator}`", _title(setting), one.policy, str(one.estimates), _percent(one.coverage),
            _number(one.bias), _number(one.half),
        ]
        for setting, one in worst.values()
    ]  # fmt: skip
    yield from _table(("estimator", "logs", "policy", "ok estimates", "covered %", "mean error", "half width"), rows, 3)


def _intervals(kinds: Found) -> Iterator[str]:
    yield from ("### Intervals", "")
    head = ("interval, estimator", "given %", "truth below %", "covered %", "truth above %", "half width")
    rows = [
        [
            own.interval, _percent(own.given), _percent(own.below), _percent(own.coverage), _percent(own.above),
            _number(own.half),
        ]
        for own in widths(kinds)
    ]  # fmt: skip
    yield from _table(head, rows)


def figure(found: Mapping[Setting, Found]) -> bytes:
    """RMSE of some estimators at the largest n, one panel a world, as SVG that is the same every time."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from counterplay.reports.svg import PAPER, STYLE

    worlds = list(dict.fromkeys(setting.world for setting in found))
    largest = max(setting.n for setting in found)
    settings: Any = {**STYLE, "svg.hashsalt": "real-truth"}
    with mpl.rc_context(settings):
        drawn = Figure(figsize=(9.6, 5.4), layout="constrained", facecolor=PAPER)
        panels = drawn.subplots(1, len(worlds), sharey=True, squeeze=False)[0]
        for panel, world in zip(panels, worlds, strict=True):
            _panel(panel, {s.logger: own for s, own in found.items() if (s.world, s.n) == (world, largest)})
            panel.set_title(f"{world}, n = {largest:,}", loc="left", fontsize=11)
        panels[0].set_yticks(range(len(DRAWN)), DRAWN)
        panels[0].invert_yaxis()
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        target = io.BytesIO()
        drawn.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return target.getvalue()


def _panel(panel: Axes, found: Mapping[str, Found]) -> None:
    from counterplay.reports.svg import MUTED, SERIES

    for i, (logger, own) in enumerate(found.items()):
        rows = score(own.part(DRAWN))
        places = np.arange(len(DRAWN)) + (i - 1) * 0.22
        error, coverage = np.array([row.rmse for row in rows]), np.array([row.coverage for row in rows])
        held = coverage >= BROKEN
        panel.plot(error[held], places[held], "o", color=SERIES[i], markersize=5, label=logger)
        panel.plot(error[~held], places[~held], "o", color=SERIES[i], markersize=5, markerfacecolor="none")
    panel.plot([], [], "o", color=MUTED, markerfacecolor="none", label=f"hollow: covered under {BROKEN:.0%}")
    panel.set_xscale("log")
    panel.set_xticks(TICKS, [_number(tick).rstrip("0") for tick in TICKS])
    panel.set_xticks([], minor=True)
    panel.set_xlabel("root mean square error, logarithmic")
    panel.tick_params(axis="y", length=0)
