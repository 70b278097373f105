"""Sentences of our own making, in three languages: a limited vocabulary, endless combinations."""
