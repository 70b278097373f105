"""compute-sanitizer over the kernels of the six modes: `python -m omnivoice_triton.verify.sanitize`

Each tool first has to find a planted out-of-bounds read (memcheck only); then the real workload must be clean.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from omnivoice_triton.evidence import need_gpu, write_json
from omnivoice_triton.speech import InputError, OmniVoiceTritonError

WORKLOAD = "omnivoice_triton.verify.workload"


def run(tool: str, *arguments: str, module: str = WORKLOAD) -> dict[str, Any]:
    """One run of compute-sanitizer: errors it counted and what the workload printed."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        raise InputError("compute-sanitizer is not on the PATH: install the CUDA toolkit")
    # Without torch's caching allocator every tensor is an allocation of its own, so one past its end is seen.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = [sanitizer, "--tool", tool, "--print-limit", "5", sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=540)
    output = done.stdout + done.stderr
    found = re.search(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (\d+)", output)
    launched = re.search(r"launched (\d+)", output)
    return {
        "tool": tool,
        "errors": int(found[1]) if found else None,
        "launches": int(launched[1]) if launched else 0,
        # The sanitizer's own lines; Python's tracebacks name the machine's folders.
        "tail": [] if found and found[1] == "0" else [x for x in output.splitlines() if x.startswith("=====")][:15],
    }


def main(argv: list[str] | None = None) -> int:
    """Run the tools, print verdicts, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tools", nargs="+", default=["memcheck"], choices=["memcheck", "racecheck"])
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(argv)
    rows = []
    try:
        need_gpu()
        planted = run("memcheck", "--plant")
        rows.append({**planted, "planted": True, "passed": bool(planted["errors"])})
        for tool in options.tools:
            row = run(tool)
            rows.append({**row, "planted": False, "passed": row["errors"] == 0 and row["launches"] > 0})
        write_json(options.json, "sanitizer", None, {"results": rows})
    except OmniVoiceTritonError as error:
        print(f"verify.sanitize: {error}", file=sys.stderr)
        return 2
    for row in rows:
        what = "a planted fault is found" if row["planted"] else f"{row['launches']} launches, {row['errors']} errors"
        print(f"{'PASS' if row['passed'] else 'FAIL'} {row['tool']}: {what}")
        if not row["passed"]:
            print("\n".join(row["tail"]))
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
