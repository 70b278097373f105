"""Timing, and the stamp of the machine that every figure carries."""
