"""Prompt templates that come with the package; ``counterplay.llm.templates`` reads them."""
