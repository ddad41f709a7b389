"""Logs in the formats of other tools; each becomes rows that `decisions` takes."""
