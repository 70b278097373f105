"""compute-sanitizer over every kernel and the engine: `python -m omnivoice_triton.verify.sanitize`

Each tool first has to find a fault planted for it; then each part of the workload must be clean. A run that launched
nothing, left out a kernel of the package or told no count of errors fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from omnivoice_triton.commands import Parser, command
from omnivoice_triton.evidence import check_outputs, need_gpu, write_json
from omnivoice_triton.speech import InputError

WORKLOAD = "omnivoice_triton.verify.workload"
TOOLS = ("memcheck", "racecheck")
PARTS = ("modes", "kernels", "engine-fp32", "engine-fp16", "engine-bf16")
PLANTED = "planted"
TIMEOUT_S = 540.0


def run(tool: str, *arguments: str, module: str = WORKLOAD, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """One run of compute-sanitizer: errors it counted, and what the workload says it launched."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        raise InputError("compute-sanitizer is not on the PATH: install the CUDA toolkit")
    # Without torch's caching allocator every tensor is an allocation of its own, so one past its end is seen.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    # cuda-bindings asks the driver for functions that it lacks: calls that fail by design. Ours are checked anyway.
    quiet = ["--report-api-errors", "no"] if tool == "memcheck" else []
    command = [sanitizer, "--tool", tool, *quiet, "--print-limit", "5", sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired as stopped:
        # Bytes, whatever `text` says.
        said = stopped.stdout.decode(errors="replace") if isinstance(stopped.stdout, bytes) else stopped.stdout or ""
        came = [line for line in said.splitlines() if line.startswith("at ")]
        where = f", {came[-1]} (launch {len(came)})" if came else ", before the first launch"
        tail = [f"not done after {timeout_s:g} s{where}"]
        return {"tool": tool, "errors": None, "launches": 0, "kernels": {}, "tail": tail}
    output = done.stdout + done.stderr
    found = re.search(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (\d+)", output)
    launched = re.search(r"^launched (\d+)", output, re.MULTILINE)
    kernels = re.search(r"^kernels (.*)$", output, re.MULTILINE)
    clean = found is not None and found[1] == "0" and launched is not None
    return {
        "tool": tool,
        "errors": int(found[1]) if found else None,
        "launches": int(launched[1]) if launched else 0,
        "kernels": {name: int(count) for name, count in re.findall(r"(\S+)=(\d+)", kernels[1] if kernels else "")},
        # The sanitizer's own lines and the workload's; Python's tracebacks name the machine's folders.
        "tail": []
        if clean
        else [x for x in output.splitlines() if x.startswith(("=====", "broke", "not launched"))][:15],
    }


def check(tool: str, part: str) -> dict[str, Any]:
    """One part of the workload under one tool."""
    row = run(tool, part)
    return {**row, "part": part, "planted": False, "passed": row["errors"] == 0 and row["launches"] > 0}


def plant(tool: str) -> dict[str, Any]:
    """The tool's planted fault, which it has to find."""
    row = run(tool, "--plant", tool)
    return {**row, "part": PLANTED, "planted": True, "passed": bool(row["errors"])}


def describe(row: dict[str, Any]) -> str:
    """A verdict in a line."""
    if row["planted"]:
        what = (
            "a planted fault is found" if row["passed"] else "a planted fault is not found: the tool sees nothing here"
        )
    else:
        kernels = f"{len(row['kernels'])} kernels, " if not row["part"].startswith("engine") else ""
        errors = "no count of" if row["errors"] is None else row["errors"]
        what = f"{kernels}{row['launches']} launches, {errors} errors"
    return f"{'PASS' if row['passed'] else 'FAIL'} {row['tool']} {row['part']}: {what}"


@command("verify.sanitize")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tools, print verdicts, write JSON."""
    parser = Parser(prog="omnivoice-triton verify sanitize", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=TOOLS)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--jobs", type=int, default=1, help="runs at once (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {options.jobs}")
    check_outputs(options.json)
    rows: list[dict[str, Any]] = []
    need_gpu()
    wanted = [(tool, part) for tool in options.tools for part in (PLANTED, *options.parts)]
    with ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(lambda each: plant(each[0]) if each[1] == PLANTED else check(*each), wanted):
            rows.append(row)
            print(describe(row), flush=True)
            if not row["passed"]:
                print("\n".join(row["tail"]), flush=True)
            write_json(options.json, "sanitizer", None, {"results": rows})  # kept, whatever comes
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
