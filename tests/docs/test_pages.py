"""What the pages say is what the code says: links, names, messages, thresholds; the site builds without a warning."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pytest

from omnivoice_triton.bench.turbo_floor import packed_rows, step_flop
from omnivoice_triton.cli.evidence import BENCHES, CHECKS
from omnivoice_triton.config import ENGINE_OPTIONS, MODES
from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.verify import kernel_tier, parity, speech_figures
from omnivoice_triton.verify.sentences import SENTENCES
from tests.docs.pages import PAGES, READMES, ROOT, blocks, commands

DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "omnivoice_triton"
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#[^)]*)?\)")
MOST_WORDS = 900


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def row(name: str, first: str) -> list[str]:
    """Cells of the table row whose first cell begins so."""
    found = [line for line in text(name).splitlines() if line.startswith(f"| {first}")]
    assert len(found) == 1, f"{name}: {len(found)} rows begin with {first!r}"
    return [cell.strip() for cell in found[0].strip("|").split("|")]


def test_readme_is_short() -> None:
    words = [word for word in text("README.md").split() if re.search(r"\w", word)]
    assert len(words) < MOST_WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_machine_and_keep_their_lines(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(work|home|root|tmp|Users)/", content)
    if page.name in ("lab.md", "demo_voice.md", "architecture.md"):
        return
    generated = re.sub(r"<!-- table.*?<!-- end -->", "", content, flags=re.S)
    long = [line for line in generated.splitlines() if len(line) > 120 and not line.startswith("|")]
    assert not long


def test_the_readmes_say_the_same() -> None:
    english, korean = READMES
    assert commands(english) == commands(korean)

    def code(page: Path) -> list[str]:
        return [ast.unparse(ast.parse(body)) for body in blocks(page, "python")]

    def shape(page: Path) -> tuple[list[int], list[str], int, int]:
        content = re.sub(
            r"<!-- table: (\S+) -->.*?<!-- end -->", r"TABLE \1", page.read_text(encoding="utf-8"), flags=re.S
        )
        prose = re.sub(r"^```.*?^```$", "", content, flags=re.M | re.S)
        heads = [len(m) for m in re.findall(r"^(#+) ", prose, re.M)]
        tables = re.findall(r"^TABLE (\S+)$", content, re.M)
        return heads, tables, len(re.findall(r"^- ", prose, re.M)), len(re.findall(r"^\| ", prose, re.M))

    assert code(english) == code(korean)
    assert shape(english) == shape(korean)

    def links(page: Path) -> set[str]:
        found = LINK.findall(page.read_text(encoding="utf-8")) + re.findall(r"\]\((https?://[^)]+)\)", page.read_text())
        return {link.replace(".ko.", ".") for link in found if not link.startswith("README")}

    assert links(english) == links(korean)
    ticked = [
        set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", p.read_text(), flags=re.M | re.S))) for p in READMES
    ]
    assert ticked[0] == ticked[1], "names in one README that the other lacks"


def test_every_mode_and_option_has_its_row() -> None:
    for mode in MODES:
        assert row("docs/modes.md", f"`{mode}` |")
    for option in ENGINE_OPTIONS:
        assert row("docs/modes.md", f"`{option}` |")
    _, section = text("docs/modes.md").split("## Options of turbo\n")
    listed = re.findall(r"^\| `(\w+)` \|", section.split("\n## ")[0], re.M)
    assert sorted(listed) == sorted(ENGINE_OPTIONS)


def test_every_kernel_is_described() -> None:
    """A file with a Triton kernel, and every CUDA C++ file, has a row in the table of who uses it."""
    page = text("docs/kernels.md")
    files = [
        path.name for path in (SOURCE / "kernels").glob("*.py") if "@triton.jit" in path.read_text(encoding="utf-8")
    ]
    files.remove("launch.py")  # a probe of the interpreter
    files += [f"cuda/{path.name}" for path in (SOURCE / "kernels" / "cuda").glob("*.cu")]
    assert len(files) > 12
    assert [name for name in files if f"| `{name}` |" not in page] == []
    named = re.findall(r"\| `((?:cuda/)?\w+\.(?:py|cu))` \|", page)
    assert sorted(named) == sorted(files), "a kernel is named that isn't there"


def test_every_benchmark_and_check_is_named() -> None:
    assert [name for name in BENCHES if f"omnivoice-triton bench {name}" not in text("docs/benchmarks.md")] == []
    assert [name for name in CHECKS if f"verify {name}" not in text("docs/verification.md")] == []


def test_the_5_s_case_is_right() -> None:
    shape = BackboneShape(1024, 3072, 28, 16, 8, 128, 8, 1025, 1e-6)
    case = [(40, 125)]
    assert packed_rows(case) == 290
    page = text("docs/kernels.md")
    assert f"A step in all: {step_flop(shape, case) / 1e9:.1f} GFLOP" in page
    for name, depth, width in (("o", 2048, 1024), ("gate + up", 1024, 6144), ("down", 3072, 1024)):
        flop, weights = f"{2 * 290 * depth * width / 1e9:.1f}", f"{2 * depth * width / 1e6:.1f} MB"
        assert row("docs/kernels.md", f"{name} |")[1:] == [f"290 x {depth:,} x {width:,}", flop, weights]


def test_thresholds_are_those_of_the_code() -> None:
    page = "docs/verification.md"
    rows = {
        "distance to the twin": kernel_tier.TOLERANCE.values(),
        "distance to float64": [kernel_tier.MAX_ERROR_RATIO] * 3,
    }
    for first, values in rows.items():
        assert [float(cell.rstrip("x")) for cell in row(page, first)[1:]] == list(values)
    margins = {
        "tokens equal": "tokens_equal",
        "character error rate": "cer",
        "speaker similarity": "speaker_similarity",
        "samples at full scale": "clipping",
        "silence": "silence",
        "naturalness": "naturalness",
    }
    for first, name in margins.items():
        assert float(row(page, first)[1].split()[0]) == speech_figures.MARGINS[name]
    assert row(page, "duration |")[1] == f"{100 * speech_figures.MARGINS['duration']:.0f} %, either way"
    assert set(margins.values()) | {"duration"} == set(speech_figures.MARGINS)
    flat = " ".join(text(page).split())
    assert f"layers {', '.join(map(str, parity.LAYERS))} " in flat
    assert f"above {parity.MIN_COSINE}, for INT8 modes {parity.MIN_COSINE_INT8}" in flat
    assert f"at most {parity.MAX_ERROR_RATIO} times as far" in flat
    assert f"{100 * parity.MIN_AGREEMENT:.1f} % must be chosen alike" in flat
    assert f"samples must be within {100 * speech_figures.MAX_WAVEFORM_ERROR:.0f} %" in flat
    assert len({sentence.code for sentence in SENTENCES}) == 10
    assert f"{len(SENTENCES)} sentences in ten languages" in flat


@lru_cache
def literals() -> str:
    """Every string of the source, what is filled in as a mark."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def quoted() -> list[str]:
    """The messages that the troubleshooting page explains: code in first cells and at the start of paragraphs."""
    page = text("docs/troubleshooting.md")
    cells = [line.strip("|").split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    openings = re.findall(r"^(`[^`]+`(?:(?:, | and )`[^`]+`)*)(?: are about|:|\.)", page, re.M)
    return [message for part in (*cells, *openings) for message in re.findall(r"`([^`]+)`", part)]


def test_the_messages_that_are_explained_exist() -> None:
    messages = quoted()
    assert len(messages) > 30
    missing = [
        message
        for message in messages
        for part in message.split("…")
        if part.strip() and part.strip() not in literals()
    ]
    assert not missing


def test_every_kind_of_unavailable_mode_is_explained() -> None:
    """What `unavailable_reason` can say is on the page."""
    from omnivoice_triton.models import availability

    tree = ast.parse(Path(availability.__file__).read_text(encoding="utf-8"))
    (function,) = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "unavailable_reason"]
    said = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value is not None]
    starts = []
    for value in said:
        first = value.values[0] if isinstance(value, ast.JoinedStr) else value
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            starts.append(first.value.split(":")[0].strip(" ("))
    assert len(starts) >= 4
    assert [start for start in starts if start not in text("docs/troubleshooting.md")] == []


@pytest.fixture(scope="module")
def links() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_links", ROOT / "tools" / "docs_links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_out_of_the_docs_go_to_the_repository(links: ModuleType) -> None:
    def made(markdown: str) -> str:
        return str(links.to_repository(markdown, "https://host/x/", "page.md"))

    assert made("[a](../Makefile) [b](../tools/build.in#l)") == (
        "[a](https://host/x/blob/main/Makefile) [b](https://host/x/blob/main/tools/build.in#l)"
    )
    for kept in ("[a](modes.md)", "[a](../nowhere.md)", "[a](../../etc)", "[a](https://x/../y)"):
        assert made(kept) == kept


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material (extra docs) is not installed")
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(ROOT / "mkdocs.yml", copy)
    shutil.copytree(DOCS, copy / "docs")
    for name in ("tools", "CHANGELOG.md", "README.md"):
        (copy / name).symlink_to(ROOT / name)
    built = build(copy, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert {path.parent.name for path in (tmp_path / "site").glob("*/index.html")} == pages
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?)', page), (
        "the site loads something from elsewhere"
    )

    (copy / "docs" / "modes.md").write_text("[broken](nowhere.md)\n", encoding="utf-8")
    broken = build(copy, tmp_path / "site")
    assert broken.returncode != 0
    assert "nowhere.md" in broken.stdout + broken.stderr
