"""Timing on the GPU: kernels, modes, and memory over many lengths."""
