"""0.1.0's import path of `TritonRunner`."""

from omnivoice_triton.models.registry import TritonRunner

__all__ = ["TritonRunner"]
