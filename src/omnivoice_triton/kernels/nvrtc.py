"""CUDA C++ kernels without a compiler on the user's machine: NVRTC and the driver, both of which come with PyTorch.

For what Triton can't say: multicast loads into the CTAs of a cluster. A kernel compiles in about 0.2 s on the host (the
GPU isn't needed for it) and is kept in Triton's cache directory, so that a second process only loads it. Needs
`cuda-bindings`, which PyTorch's CUDA 12.9+ builds for Linux depend on.
"""

from __future__ import annotations

import ctypes
import hashlib
from functools import lru_cache
from importlib import resources
from typing import Any

import torch
from triton.runtime.cache import get_cache_manager


def problem() -> str | None:
    """Why CUDA C++ kernels can't be made here, or None."""
    try:
        from cuda.bindings import driver, nvrtc  # noqa: F401
    except ImportError as error:
        return (
            f"cuda-bindings doesn't import ({error}): it comes with PyTorch's CUDA builds, or pip install cuda-bindings"
        )
    return None


def source(name: str) -> str:
    """The text of a kernel file of this package."""
    return (resources.files("omnivoice_triton.kernels") / "cuda" / name).read_text(encoding="utf-8")


def assembled(name: str, defines: dict[str, int], prologue: str) -> str:
    """The whole source of one variant: macros, what the kernels share, the prologue, the kernel file.

    Args:
        name: of the file without `.cu`.
        defines: macros that choose a variant.
        prologue: source that only the host can write, such as instructions with a number in their name.
    """
    macros = "".join(f"#define {key} {value}\n" for key, value in defines.items())
    return macros + source("hopper.cuh") + prologue + source(f"{name}.cu")


@lru_cache(maxsize=256)
def compile_cubin(name: str, text: str, architecture: str, *, anew: bool = False) -> tuple[bytes, str]:
    """Machine code of CUDA C++ source, and what the assembler said of registers and spills.

    Args:
        name: for messages.
        text: the whole source; no headers are at hand.
        architecture: as `sm_90a`.
        anew: past NVRTC's own cache (13.0 and later), which keeps machine code but no messages.

    Raises:
        RuntimeError: it doesn't compile; the compiler's log follows.
    """
    from cuda.bindings import nvrtc

    def checked(result: Any) -> Any:
        code, *values = result
        if code != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise RuntimeError(f"NVRTC failed on {name}: {code.name}\n{log()}")
        return values[0] if values else None

    def log() -> str:
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        content = _room(size)
        nvrtc.nvrtcGetProgramLog(program, content)
        return str(content.decode(errors="replace").strip("\0 \n"))

    program = checked(nvrtc.nvrtcCreateProgram(text.encode(), name.encode(), 0, [], []))
    options = [f"--gpu-architecture={architecture}".encode(), b"-std=c++17", b"-default-device", b"--ptxas-options=-v"]
    options += [b"--no-cache"] if anew else []
    checked(nvrtc.nvrtcCompileProgram(program, len(options), options))
    code = _room(checked(nvrtc.nvrtcGetCUBINSize(program)))
    checked(nvrtc.nvrtcGetCUBIN(program, code))
    messages = log()
    nvrtc.nvrtcDestroyProgram(program)
    return code, messages


def _room(size: int) -> bytes:
    """Bytes for NVRTC to write into; never 0 or 1 of them, which are one object each for the whole of CPython."""
    return b"\0" * max(size, 2)


def cubin(name: str, defines: dict[str, int], prologue: str, architecture: str) -> bytes:
    """Machine code of a kernel file of this package, from the cache or compiled into it.

    Args:
        name: of the file without `.cu`.
        defines: macros that choose a variant; put before the source.
        prologue: further source before it.
        architecture: as `sm_90a`.
    """
    from cuda.bindings import nvrtc

    text = assembled(name, defines, prologue)
    _, major, minor = nvrtc.nvrtcVersion()
    key = hashlib.sha256(f"{architecture} {major}.{minor}\n{text}".encode()).hexdigest()
    cache, file = get_cache_manager(key), f"{name}.cubin"
    path = cache.get_file(file)
    if path is not None:
        with open(path, "rb") as stored:
            return stored.read()
    code, _ = compile_cubin(name, text, architecture)
    cache.put(code, file, binary=True)
    return code


def check(result: Any) -> Any:
    """The value of a driver call.

    Raises:
        RuntimeError: the call failed.
    """
    from cuda.bindings import driver

    code, *values = result
    if code != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"CUDA driver: {code.name}")
    return values[0] if values else None


class CudaKernel:
    """One compiled kernel, loaded on the current device.

    Args:
        name: of the file without `.cu`, and of the function in it.
        defines: macros that choose a variant; put before the source.
        prologue: further source before it.
        architecture: as `sm_90a`.
        shared_bytes: dynamic shared memory of a CTA.
    """

    def __init__(self, name: str, defines: dict[str, int], prologue: str, architecture: str, shared_bytes: int) -> None:
        from cuda.bindings import driver

        torch.cuda.current_stream().synchronize()  # the context exists from here on
        self._module = check(driver.cuModuleLoadData(cubin(name, defines, prologue, architecture)))
        self.function = check(driver.cuModuleGetFunction(self._module, name.encode()))
        self.shared_bytes = shared_bytes
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        check(driver.cuFuncSetAttribute(self.function, attribute, shared_bytes))

    def config(self, grid: int, threads: int, *, cluster: int, pdl: bool, stream: int, height: int = 1) -> Any:
        """A launch configuration: `grid` x `height` CTAs, clusters along the first."""
        from cuda.bindings import driver

        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid, height, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
        config.sharedMemBytes = self.shared_bytes
        config.hStream = stream
        attributes = []
        if cluster > 1:
            attribute = driver.CUlaunchAttribute()
            attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            attribute.value.clusterDim.x, attribute.value.clusterDim.y, attribute.value.clusterDim.z = cluster, 1, 1
            attributes.append(attribute)
        if pdl:
            attribute = driver.CUlaunchAttribute()
            attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            attributes.append(attribute)
        config.attrs = attributes
        config.numAttrs = len(attributes)
        return config

    def most_clusters(self, threads: int, cluster: int) -> int:
        """How many clusters the current device can run at once."""
        from cuda.bindings import driver

        if cluster == 1:
            blocks = check(
                driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(self.function, threads, self.shared_bytes)
            )
            return int(blocks) * torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
        config = self.config(cluster, threads, cluster=cluster, pdl=False, stream=0)
        return int(check(driver.cuOccupancyMaxActiveClusters(self.function, config)))

    def launch(self, config: Any, arguments: list[Any]) -> None:
        """Launch with arguments given as ctypes values or arrays, in order."""
        from cuda.bindings import driver

        pointers = (ctypes.c_void_p * len(arguments))(*[ctypes.addressof(argument) for argument in arguments])
        check(driver.cuLaunchKernelEx(config, self.function, ctypes.addressof(pointers), 0))


@lru_cache(maxsize=16384)
def tensor_map(pointer: int, bf16: bool, rows: int, columns: int, box_rows: int) -> Any:
    """A TMA descriptor of a row-major 16-bit matrix: boxes of `box_rows` x 64 under the 128-byte swizzle.

    What lies outside of the matrix reads as zero. Returned as 128 bytes that a kernel takes by value.
    """
    from cuda.bindings import driver

    u32, u64 = driver.cuuint32_t, driver.cuuint64_t
    kind = driver.CUtensorMapDataType
    made = check(
        driver.cuTensorMapEncodeTiled(
            kind.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 if bf16 else kind.CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            2,
            pointer,
            [u64(columns), u64(rows)],
            [u64(columns * 2)],
            [u32(64), u32(box_rows)],
            [u32(1), u32(1)],
            driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
            driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    )
    return (ctypes.c_uint64 * 16)(*[int(word) for word in made.opaque])
