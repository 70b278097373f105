"""0.1.0's import path of `BaseRunner`."""

from omnivoice_triton.config import HUB_MODEL_ID as DEFAULT_MODEL_ID
from omnivoice_triton.config import SAMPLE_RATE_HZ as DEFAULT_SAMPLE_RATE
from omnivoice_triton.models.runner import BaseRunner

__all__ = ["DEFAULT_MODEL_ID", "DEFAULT_SAMPLE_RATE", "BaseRunner"]
