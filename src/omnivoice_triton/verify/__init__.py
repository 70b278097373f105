"""Checks that a mode computes what base computes, to be run by users on their own machine and weights."""
