"""Vectors of texts, stored once; and the features that a log gets from them."""
