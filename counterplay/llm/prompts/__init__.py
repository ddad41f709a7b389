"""Prompt templates that come with the package; ``counterplay.llm.prompting.templates`` reads them."""
