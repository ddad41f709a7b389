"""Reports as files: made whole before the first byte is written, and moved into place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from counterplay.errors import ConfigurationError, FileError, InputError, nearest
from counterplay.reports.html import render_html
from counterplay.reports.markdown import render_markdown
from counterplay.reports.results import checked
from counterplay.reports.timing import Timing, timings

if TYPE_CHECKING:
    from counterplay.logs import Workspace

Format = Literal["html", "markdown", "json"]
NAMES: dict[str, str] = {"html": "report.html", "markdown": "report.md", "json": "results.json"}
SUFFIXES = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json"}


def results_json(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as JSON: keys sorted, no NaN, the same bytes for the same results.

    Raises:
        UnsupportedError: there are no results.
        InputError: a part of the results is missing, or a number is not finite.
    """
    return json.dumps(checked(results), sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write_report(
    workspace: Workspace | str | Path,
    out: str | Path,
    *,
    formats: Sequence[Format] = ("html", "markdown", "json"),
    experiments: Sequence[str] | None = None,
) -> list[Path]:
    """Write the stored results of a workspace as a report.

    Args:
        workspace: a workspace, or its path.
        out: a folder (made if it is not there) for `report.html`, `report.md` and `results.json`; or one file that
            ends in .html, .md or .json, which decides the format.
        formats: which of them; not for a single file.
        experiments: the ids of the experiments to report; default: all.

    Returns:
        The files, in the order of the formats. If one cannot be written, no file has been damaged: each is whole, old
        or new.

    Raises:
        UnsupportedError: the workspace holds no results.
        ConfigurationError: an unknown format or experiment.
        FileError: a file cannot be written.
    """
    targets = _targets(Path(out), formats)
    results, seconds = read_stored(workspace, experiments)
    makers: dict[str, Callable[[], str]] = {
        "html": lambda: render_html(results, seconds),
        "markdown": lambda: render_markdown(results),
        "json": lambda: results_json(results),
    }
    texts = [(path, makers[form]()) for form, path in targets]
    for path, text in texts:
        write_whole(path, text)
    return [path for path, _ in texts]


def _targets(out: Path, formats: Sequence[str]) -> list[tuple[str, Path]]:
    for form in formats:
        if form not in NAMES:
            raise ConfigurationError(f"there is no report format '{form}'. {nearest(form, NAMES)}")
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        return [(SUFFIXES[out.suffix.lower()], out)]
    return [(form, out / NAMES[form]) for form in dict.fromkeys(formats)]


def read_stored(
    workspace: Workspace | str | Path, experiments: Sequence[str] | None = None
) -> tuple[list[dict[str, Any]], dict[str, tuple[Timing, ...]]]:
    """The stored results, in the order in which they were stored, and the timings of each experiment."""
    from counterplay.logs.results import read_experiments, read_runs

    stored = read_experiments(workspace)
    if experiments is not None:
        known = [result["experiment"] for result in stored]
        for wanted in experiments:
            if wanted not in known:
                raise ConfigurationError(f"the workspace holds no experiment '{wanted}'. {nearest(wanted, known)}")
        stored = [result for result in stored if result["experiment"] in experiments]
    seconds = {result["experiment"]: timings(read_runs(workspace, result["experiment"])) for result in stored}
    return stored, seconds


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that whoever reads it sees the old one or the new one, never a part.

    Raises:
        FileError: it cannot be written; an older file is as it was.
        InputError: the text has characters that no file can hold.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8", newline="\n")
        os.replace(draft, path)
    except OSError as error:
        raise FileError(
            f"{path} cannot be written ({error.strerror}); choose another place, or free this one."
        ) from error
    except UnicodeEncodeError as error:
        raise InputError(f"{path} cannot be written: a name holds half a character ({error.reason}).") from error
    finally:
        if draft.exists():
            draft.unlink()
