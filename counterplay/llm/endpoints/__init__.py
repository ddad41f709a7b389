"""Models behind an address: asked at once, or by batch files."""
