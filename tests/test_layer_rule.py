"""Imports point down the layers: kernels, then models and engine, then what is built on them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import omnivoice_triton

PACKAGE = Path(omnivoice_triton.__file__).parent

# Lower number: lower layer. A module may import from its own part of the package and from lower layers.
LAYERS = {
    "config": 0,
    "speech": 0,
    "commands": 0,
    "audio_files": 0,
    "cuda_graphs": 0,
    "bytecode": 0,
    "imports": 0,
    "data": 0,
    "checkpoint": 1,
    "kernels": 1,
    "engine": 2,
    "models": 3,  # 4 is kept for what stands on an engine
    "environment": 1,
    "evidence": 2,
    "bench": 5,
    "verify": 5,
    "doctor": 5,
    "ui": 5,
    "cli": 6,
    "__main__": 7,
    "__init__": 7,
}
# A heavy package is imported in these places only.
HOMES = {
    "triton": {"kernels"},
    "fastapi": {"serving"},
    "streamlit": {"ui"},
}


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path.name}: relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def violations(path: Path, part: str) -> list[str]:
    found = []
    for name in _imports(path):
        top, *rest = name.split(".")
        if top == "omnivoice_triton" and rest and rest[0] in LAYERS:
            other = rest[0]
            peer_front_end = LAYERS[part] == LAYERS[other] and part != other and LAYERS[part] >= 5
            if LAYERS[other] > LAYERS[part] or peer_front_end:
                found.append(f"{part} imports {other} ({path.name})")
        elif top in HOMES and part not in HOMES[top]:
            found.append(f"{part} imports {top} ({path.name})")
    return found


def test_every_part_has_a_layer() -> None:
    parts = {_part(p) for p in PACKAGE.rglob("*.py")}
    assert parts <= set(LAYERS), parts - set(LAYERS)
    assert len(parts) > 6


def test_imports_point_down() -> None:
    found = [v for path in PACKAGE.rglob("*.py") for v in violations(path, _part(path))]
    assert not found, "\n".join(found)


def test_the_rule_catches_a_fault(tmp_path: Path) -> None:
    bad = tmp_path / "rms_norm.py"
    bad.write_text("from omnivoice_triton.models.runner import BaseRunner\n", encoding="utf-8")
    assert violations(bad, "kernels") == ["kernels imports models (rms_norm.py)"] * 2
    bad.write_text("import triton\n", encoding="utf-8")
    assert violations(bad, "models") == ["models imports triton (rms_norm.py)"]


def test_the_documented_table_is_this_one() -> None:
    table = {}
    for line in (PACKAGE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| (\d) \| ((?:`\w+`(?:, )?)+) \|", line):
            table |= dict.fromkeys(re.findall(r"`(\w+)`", match[2]), int(match[1]))
    code = {part: layer for part, layer in LAYERS.items() if part not in {"data", "__main__", "__init__"}}
    assert table == code
