"""From text to action: what the outputs of a context choose."""
