"""The CUDA context that is made early."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.models import gpu_context
from omnivoice_triton.models.gpu_context import begin_context, retain_context


def test_another_device_needs_none() -> None:
    assert begin_context("cpu") is None
    assert begin_context("meta") is None


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:3", 3)])
def test_the_device_that_is_asked_for(monkeypatch: pytest.MonkeyPatch, device: str, index: int) -> None:
    asked: list[int] = []
    monkeypatch.setattr(gpu_context, "retain_context", asked.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    thread = begin_context(device)
    assert thread is not None
    assert thread.daemon
    thread.join()
    assert asked == [index]


def test_the_one_that_torch_takes_cuda_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(gpu_context, "retain_context", asked.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    thread = begin_context("cuda")
    assert thread is not None
    thread.join()
    assert asked == [2]


def test_no_driver_is_for_torch_to_report() -> None:
    assert retain_context(0, "no-such-driver.so") is False


@pytest.mark.gpu
def test_it_is_the_context_that_torch_uses() -> None:
    torch.zeros(1, device="cuda")
    free = torch.cuda.mem_get_info()[0]
    assert retain_context(torch.cuda.current_device())
    assert torch.cuda.mem_get_info()[0] >= free - 2**20
    assert not retain_context(1000)
