"""Where rows come from: files and frames, opened so that every row is numbered and none is lost."""
