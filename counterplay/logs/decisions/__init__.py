"""Tables of logged decisions: from raw rows to a log, with everything that is unsound in the quarantine."""
