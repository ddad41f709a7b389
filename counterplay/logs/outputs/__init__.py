"""The cache: what models said, each output under the hash of the whole request that made it.

The key is the SHA-256 of the request's canonical JSON (64 hexadecimal characters, so it also serves as the
``custom_id`` of a batch file). The request is stored beside it: a hit can be proved, and a miss can be explained by the
nearest request that is there. Only outputs with the status ``ok`` are ever served; errors and truncated answers are
kept, to be looked at and to be replaced.

    canonical     one JSON text, and one key, for each request
    rows          an output, and the row that holds it
    store         putting outputs in, looking them up, several draws of one request
    differences   in what two requests differ
    misses        why a request has no output
    overview      what a cache holds, counted
    files         to a Parquet file and back
    damage        checking a cache against itself
"""

from __future__ import annotations

from counterplay.logs.outputs.canonical import canonical_json, request_key
from counterplay.logs.outputs.damage import DamagedOutput, find_damaged_outputs, remove_outputs
from counterplay.logs.outputs.differences import Difference
from counterplay.logs.outputs.files import FORMAT_VERSION, OutputsReport, export_outputs, import_outputs
from counterplay.logs.outputs.misses import Miss, explain_miss
from counterplay.logs.outputs.overview import CacheOverview, OutputGroup, RepeatedPrompts, survey_outputs
from counterplay.logs.outputs.rows import COLUMNS, ERROR, OK, Output
from counterplay.logs.outputs.store import (
    get_draws,
    get_outputs,
    outputs_hash,
    put_outputs,
    served_keys,
    settled_keys,
)

__all__ = [
    "COLUMNS",
    "ERROR",
    "FORMAT_VERSION",
    "OK",
    "CacheOverview",
    "DamagedOutput",
    "Difference",
    "Miss",
    "Output",
    "OutputGroup",
    "OutputsReport",
    "RepeatedPrompts",
    "canonical_json",
    "explain_miss",
    "export_outputs",
    "find_damaged_outputs",
    "get_draws",
    "get_outputs",
    "import_outputs",
    "outputs_hash",
    "put_outputs",
    "remove_outputs",
    "request_key",
    "served_keys",
    "settled_keys",
    "survey_outputs",
]
