"""0.1.0's import path of `FasterRunner`."""

from omnivoice_triton.models.registry import FasterRunner

__all__ = ["FasterRunner"]
