"""Buckets, padding, eviction and reuse of the captured forward, with a stand-in for CUDA capture on the CPU."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from omnivoice_triton.models.graphs import Bucket, GraphedForward, capture_cuda_graph
from omnivoice_triton.models.patching import apply_triton_kernels
from omnivoice_triton.speech import InputError
from tests.models.helpers import Standin, canvas, counting_rows


@pytest.mark.parametrize(
    ("rows", "length", "want"),
    [(2, 1, (2, 32)), (2, 32, (2, 32)), (2, 33, (2, 64)), (3, 165, (4, 192)), (10, 512, (12, 512)), (2, 513, (2, 576))],
)
def test_bucket_is_the_smallest_that_holds(rows: int, length: int, want: tuple[int, int]) -> None:
    assert Bucket.holding(rows, length) == Bucket(*want)


@pytest.mark.parametrize("items", [1, 3])
def test_equal_to_eager_on_the_rows_that_count(shared_model: Any, items: int, standin: Standin) -> None:
    graphed = GraphedForward(shared_model, capture=standin)
    for seed, target in enumerate((10, 25, 9)):  # a longer one between: its leftovers must not leak
        inputs = canvas(shared_model, prompt=6, target=target, items=items, seed=seed)
        with torch.inference_mode():
            want = shared_model(**inputs).logits
            got = graphed(**inputs).logits
        assert got.shape == want.shape
        for row, at in counting_rows(target, 6, items):
            torch.testing.assert_close(got[row][:, at], want[row][:, at], atol=2e-5, rtol=1e-5)
    assert graphed.captures == 1
    assert graphed.replays == 3


def test_replay_equals_the_eager_run_of_the_same_padded_input(shared_model: Any, standin: Standin) -> None:
    graphed = GraphedForward(shared_model, capture=standin)
    inputs = canvas(shared_model)
    assert torch.equal(graphed(**inputs).logits, graphed.run_eager(**inputs))


def test_the_result_is_the_callers_own(shared_model: Any, standin: Standin) -> None:
    graphed = GraphedForward(shared_model, capture=standin)
    first = graphed(**canvas(shared_model, seed=1)).logits
    kept = first.clone()
    graphed(**canvas(shared_model, seed=2))
    assert torch.equal(first, kept)


def test_least_recently_used_goes_first(shared_model: Any) -> None:
    config = shared_model.config
    # Room for the buffers of two buckets of 2 x 32, not for three.
    each = 2 * 32 * (config.num_audio_codebook * config.audio_vocab_size * 4 + 32 + 9 * config.num_audio_codebook)
    standin = Standin(bytes_each=0)
    graphed = GraphedForward(shared_model, budget_mb=-(-int(7.5 * each) // 2**20), capture=standin)
    inputs = {length: canvas(shared_model, prompt=2, target=length) for length in (20, 50, 90)}
    for length in (20, 50, 20, 90):  # buckets of 32, 64, 32 and 96 positions: 1 + 2 + 3 units, more than fit
        graphed(**inputs[length])
    assert Bucket(2, 96) in graphed.buckets
    assert graphed.captures == 3
    graphed = GraphedForward(shared_model, budget_mb=-(-int(5.5 * each) // 2**20), capture=Standin(0))
    for length in (20, 50, 20, 90):
        graphed(**inputs[length])
    assert graphed.buckets == (Bucket(2, 32), Bucket(2, 96))  # 64 was the least recently used
    graphed(**inputs[50])
    assert graphed.buckets == (Bucket(2, 96), Bucket(2, 64))  # and now 32 was


def test_the_pool_starts_afresh_when_it_outgrows_the_budget(shared_model: Any) -> None:
    standin = Standin(bytes_each=40 * 2**20)
    graphed = GraphedForward(shared_model, budget_mb=100, capture=standin)
    for target in (10, 40, 70):
        graphed(**canvas(shared_model, target=target))
        assert graphed.used_bytes <= 100 * 2**20
    assert graphed.buckets == (Bucket(2, 96),)
    assert standin.resets == 3


def test_a_bucket_over_the_budget_is_an_error_that_says_so(shared_model: Any) -> None:
    graphed = GraphedForward(shared_model, budget_mb=10, capture=Standin(bytes_each=11 * 2**20))
    with pytest.raises(InputError, match=r"needs 11 MB, over the budget of 10 MB: raise graph_budget_mb"):
        graphed(**canvas(shared_model))
    assert graphed.buckets == ()


def test_warmup_captures_ahead(shared_model: Any, standin: Standin) -> None:
    graphed = GraphedForward(shared_model, capture=standin)
    graphed.warmup([16, 40], batch_sizes=[1, 2])
    assert set(graphed.buckets) == {Bucket(r, s) for r in (2, 4) for s in (32, 64)}
    assert graphed.buckets[0] == Bucket(4, 64)  # largest first: the others fit into its pool
    captures = graphed.captures
    graphed(**canvas(shared_model))
    assert graphed.captures == captures


def test_only_the_inference_path_is_taken(shared_model: Any, standin: Standin) -> None:
    graphed = GraphedForward(shared_model, capture=standin)
    inputs = canvas(shared_model)
    with pytest.raises(InputError, match=r"generate\(\) only"):
        graphed(**inputs, labels=inputs["input_ids"])
    with pytest.raises(InputError, match="bool attention mask"):
        graphed(inputs["input_ids"], inputs["audio_mask"])


def test_capture_and_undo(model: Any, standin: Standin) -> None:
    inputs = canvas(model)
    with torch.inference_mode():
        before = model(**inputs).logits
        handle = capture_cuda_graph(model, capture=standin)
        model(**inputs)
        assert handle.forward.replays == 1
        assert "1 captures, 1 replays" in repr(handle)
        with pytest.raises(InputError, match="replaced already"):
            capture_cuda_graph(model, capture=standin)
        handle.undo()
        assert "forward" not in model.__dict__
        assert torch.equal(model(**inputs).logits, before)
    assert model.llm.config.use_cache  # only off while a captured forward runs


def test_capture_needs_a_gpu(shared_model: Any) -> None:
    with pytest.raises(InputError, match="need a model on a CUDA device, not on cpu"):
        capture_cuda_graph(shared_model)


def test_graphs_of_another_patch_state_are_dropped(model: Any, standin: Standin) -> None:
    graphed = GraphedForward(model, capture=standin)
    inputs = canvas(model)
    graphed(**inputs)
    patched = apply_triton_kernels(model.llm)
    graphed(**inputs)
    assert graphed.captures == 2
    patched.undo()
    graphed(**inputs)
    assert graphed.captures == 3


def test_threads_get_their_own_results(shared_model: Any, standin: Standin) -> None:
    graphed = GraphedForward(shared_model, capture=standin)
    inputs = [canvas(shared_model, target=8 + i, seed=i) for i in range(4)]
    want = [graphed(**each).logits for each in inputs]
    got: dict[tuple[int, int], torch.Tensor] = {}

    def work(i: int) -> None:
        for repeat in range(3):
            got[i, repeat] = graphed(**inputs[i]).logits

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(got) == 12
    assert all(torch.equal(got[i, r], want[i]) for i, r in got)
