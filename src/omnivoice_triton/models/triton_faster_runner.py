"""0.1.0's import path of `TritonFasterRunner`."""

from omnivoice_triton.models.registry import TritonFasterRunner

__all__ = ["TritonFasterRunner"]
