"""What each figure in a result file means, in words, by benchmark: written into the file as `definitions`.

A test holds every figure of a row to be a key here, or a word in one's text.
"""

from __future__ import annotations

from collections.abc import Mapping

Words = Mapping[str, str]

_CALL = "milliseconds of one generate() call of the whole batch, wall clock, device synchronised, warm"
_RANGE = "p5_ms is the fast end, p95_ms the slow one, of as many calls as runs says"
_RATIO = "median over rounds of the mode's time over base's time of the same round"
_COMMON: Words = {
    "ratio_p5": "with ratio_p95, the ends of the rounds' own ratios to base",
    "audio_s": "seconds of audio that one call makes, all texts of the batch together",
    "speed_x": "seconds of audio made per second of work: audio_s over median_ms in seconds",
    "split_total_ms": "the whole call that lm_ms, codec_ms, post_ms and host_ms are the parts of",
}

SPEED: Words = {
    "median_ms": f"{_CALL}; {_RANGE}",
    "cold_ms": "the first call of this case and batch in the process",
    "rtf": "real-time factor: seconds of work per second of audio made, all texts of the batch together; lower is "
    "faster",
    "ratio_to_base": _RATIO,
    "ratio_to_base_p5": "median_ms over base's p5_ms of the same case and batch",
    "steps_per_s": "decoding steps of the batch per second of lm_ms",
    "lm_ms": "all decoding steps, from the prepared request to the first codec call; in calls of their own, the device "
    "synchronised around each part, as codec_ms, post_ms and host_ms (the rest of that call)",
    "peak_vram_mb": "highest allocation of PyTorch during a call, with this mode alone in the process; "
    "peak_reserved_mb is what its allocator held for it",
    "device_used_mb": "what the device holds after that call beyond what it held before the mode was loaded",
    "graph_pool_mb": "what of it graphs hold; captures is how many there are",
    "call_peak_mb": "by how much a warm call raises what PyTorch has allocated: its working memory, without weights",
    "joules_per_utterance": "energy of the whole board, idle power included, by NVML, over energy_calls calls one "
    "after the other for 1.5 s or more, divided by the utterances; mean_w is the power",
    **_COMMON,
}

PEERS: Words = {
    **{key: SPEED[key] for key in ("median_ms", "cold_ms", "rtf", "ratio_p5", "audio_s", "speed_x")},
    "ratio_to_base": "median over rounds of the path's time over that of upstream-eager in the same round",
    "ratio_to_base_p5": "median_ms over the p5_ms of upstream-eager of the same case and batch",
}

KERNELS: Words = {
    "triton_us": "microseconds a call of ours, kernels in CUDA C++ too; pytorch_us, torch_compile_us and liger_us of "
    "theirs, on the same inputs",
    "not_timed": "why one of theirs has no time",
    "rows": "the rows that were asked for; shape has what the kernel was given",
    "do_bench": "a call at a time with Triton's do_bench: launching included, L2 cache flushed before each",
    "graph": "calls one after the other in a CUDA graph over few sets of inputs: the device's time, L2 cache warm",
    "graph_cold": "the same over so many sets (cold_sets) that each call's inputs have left the L2 cache of l2_bytes; "
    "absent where too little is moved for that",
    "timings": "how many figures median, p5 and p95 are of; in graphs each is a replay's, divided by its calls",
    "bytes": "each input and output once, whatever an implementation really moves",
    "speedup": "PyTorch's median over ours, by clock: above 1 ours is faster; speedup_over: the others'",
    "torch_compile_s": "seconds of the call that compiles",
    "triton_gb_per_s": "bytes over our median",
    "percent_of_copy": "triton_gb_per_s of ceilings.copy_gb_per_s, measured in the same run",
    "percent_of_matmul": "operations a second of ceilings.matmul_tflops in the same dtype",
    "error_to_twin": "norm of the difference over norm of the twin; error_to_pytorch and error_to_float64 likewise",
}

TURBO: Words = {
    "median_ms": f"in cases, options and throughput {_CALL}; in lengths of all calls; in startup from process start "
    f"to the end of the first generate(); {_RANGE}",
    "cold_ms": "the first call of this case in the process",
    "ratio_to_base": _RATIO,
    "ratio_to_base_p5": "median_ms over base's p5_ms of the same case",
    "ratio_to_exact": "in options: median over rounds of the option's time over exact turbo's of the same round",
    "unavailable": "in options: why this GPU can't run one",
    "audio_s_per_s": "in throughput: speed_x; error in its place: why the cell has no figures",
    "lm_ms": "all decoding steps; in calls of their own, the device synchronised around each part, as codec_ms, "
    "post_ms and host_ms (the rest of that call); lm_ms_per_step: by the steps",
    "packed_rows": "rows of a step: prompt and frames, and the frames again without the prompt, of all requests",
    "step_ms": "one replayed step in the device's own time; backbone_ms is its layers, enqueue_ms the host's part",
    "gemm_floor_ms": "the step's matrix products alone, by cuBLAS in a CUDA graph, measured in the same run",
    "flop_floor_ms": "all operations of the step at peak_tflops, the rate of an 8192-cubed product in the same run and "
    "dtype",
    "gemm_floor_percent": "the floor over step_ms, 100 is at the floor; flop_floor_percent likewise",
    "tokens_per_s": "audio_tokens of the call over median_ms in seconds",
    "peak_vram_mb": "MiB that PyTorch has allocated at most during a call, with this mode alone in the process",
    "device_used_mb": "in memory: MiB that the device holds after a call, in a process of its own, less "
    "cuda_context_mb; target_mb is what it may be",
    "captures": "in lengths: graphs captured after the warm-up, of which there should be none; codec_eager_calls: "
    "pieces of audio decoded without a graph",
    "lengths": "in lengths: calls after the warm-up, of distinct_lengths different durations",
    "p99_to_median": "in lengths: the slowest hundredth of a bucket by its median, of the worst bucket, "
    "slowest_bucket; buckets has each",
    "device_growth_mb": "in lengths: MiB that the device held more than before, at most; allocator_growth_mb: torch's",
    "problems": "what fails the run, in words; none if all is well",
    "total_s": "in startup, of the median start: process start to first audio; python_s, imports_s, load_s, "
    "step_graphs_s, codec_graphs_s and first_audio_s add up to it",
    "graphs_s": "in startup: step_graphs_s and codec_graphs_s",
    "first_start_s": "in startup: total_s of the start before those, which may have had kernels to compile",
    "without_bytecode": "in startup: imported modules that Python had to compile anew",
    "on_target": "whether the time or memory that is wanted was met",
    **_COMMON,
}

SOAK: Words = {
    "median_ms": f"of one generate() call, captures included where a length was new; {_RANGE}",
    "utterances": "calls of distinct_durations different lengths; one of the longest goes before them, uncounted",
    "failures": "which utterances failed, and why",
    "growth_mb_max": "by how much the memory used on the GPU, whoever uses it, rose above what one long eager call "
    "left, at most; growth_mb_last: after the last utterance",
    "budget_mb": "what graphs may hold: growth above it fails the run",
    "pool_mb": "what the graphs' pool holds at the end, with buckets_held graphs; captures is how many were made",
    "passed": "whether every utterance was said, within the budget",
}
