"""How a text becomes a request: templates, examples, chat formats, sampling."""
