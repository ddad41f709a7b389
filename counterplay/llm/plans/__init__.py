"""What a log needs from a model, and what that will cost."""
