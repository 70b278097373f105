"""One report of all tiers, from its JSON document: tables that the terminal and the HTML page share.

The document, as `make_report` stamps it:
    {"kind": "verify", "environment": …, "checkpoint": …, "device": …, "passed": bool, "results": [tier, …]}
with each tier as `outcome.Tier.document` gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnivoice_triton.evidence import write_json
from omnivoice_triton.verify.outcome import NOT_JUDGED, Tier

KIND = "verify"
MAX_PROBLEMS = 20


@dataclass(frozen=True)
class Table:
    """Rows of text; a row whose `bad` is set failed."""

    title: str
    head: list[str]
    rows: list[list[str]]
    bad: list[bool]


def make_report(tiers: Sequence[Tier], model: Path | None, device: str, json: Path | None = None) -> dict[str, Any]:
    """Stamp the tiers with machine and checkpoint; passed where every one of them is, and there is one.

    Raises:
        InputError: there is no tier.
    """
    figures = {
        "device": device,
        "passed": bool(tiers) and all(tier.passed for tier in tiers),
        "results": [tier.document() for tier in tiers],
    }
    return write_json(json, KIND, model, figures)


def verdict(passed: bool) -> str:
    """The word for it."""
    return "PASS" if passed else "FAIL"


def headline(document: dict[str, Any]) -> str:
    """What ran, on what, in one line."""
    environment = document["environment"]
    gpus = environment.get("gpus") or []
    machine = gpus[0]["name"] if gpus and document["device"] != "cpu" else environment["cpu"]["model"] or "CPU"
    versions = environment["versions"]
    parts = [
        f"omnivoice-triton {versions['omnivoice-triton']}",
        f"{document['device']} ({machine})",
        f"{document.get('checkpoint', 'no')} weights",
        f"torch {versions['torch']}",
        environment["date_utc"],
    ]
    return ", ".join(parts)


def tables(document: dict[str, Any]) -> list[Table]:
    """The overview, then each tier's figures."""
    found = [
        Table(
            "Verdict",
            ["tier", "what", "checks", "failed", "seconds", "verdict"],
            [
                [
                    f"{tier['tier']} {tier['name']}",
                    tier["what"],
                    str(tier["checks"]),
                    str(tier["failed"]),
                    f"{tier['seconds']:.0f}",
                    verdict(tier["passed"]),
                ]
                for tier in document["results"]
            ],
            [not tier["passed"] for tier in document["results"]],
        )
    ]
    makers = {1: _kernel_table, 2: _model_table, 3: _speech_table}
    return found + [makers[tier["tier"]](tier) for tier in document["results"] if tier["rows"]]


def _number(value: float | None, form: str = ".2g") -> str:
    return "-" if value is None else format(value, form)


def _kernel_table(tier: dict[str, Any]) -> Table:
    """The worst of each kernel and dtype: a case a row would be hundreds."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in tier["rows"]:
        groups.setdefault((row["kernel"], row["dtype"]), []).append(row)
    rows, bad = [], []
    keys = ("error_to_twin", "largest_difference", "error_to_float64", "twin_error_to_float64", "unequal")
    for (kernel, dtype), members in groups.items():
        worst = [max((m[key] for m in members if m.get(key) is not None), default=None) for key in keys]
        failed = sum(not member["passed"] for member in members)
        allowed = max((m["allowed_to_twin"] for m in members if "allowed_to_twin" in m), default=None)
        figures = [_number(worst[0]), _number(allowed), *(_number(w) for w in worst[1:])]
        rows.append([kernel, dtype, str(len(members)), *figures, verdict(not failed)])
        bad.append(bool(failed))
    head = ["kernel", "dtype", "cases", "error to twin", "allowed", "largest", "error to fp64", "twin's to fp64"]
    head += ["unequal", ""]
    return Table("Tier 1: kernels", head, rows, bad)


def _model_table(tier: dict[str, Any]) -> Table:
    layers = list(dict.fromkeys(layer for row in tier["rows"] for layer in map(str, row["layers"])))
    rows = []
    for row in tier["rows"]:
        states = {str(layer): figures for layer, figures in row["layers"].items()}
        engine = row.get("engine", {})
        own = [
            {True: "equal", False: "DIFFERS", None: "-"}[engine.get("replay_equals_eager")],
            {True: "equal", False: "DIFFERS", None: "-"}[engine.get("identical_requests_equal")],
        ]
        cosines = [
            f"{states[x]['cosine']:.6f} / {states[x]['relative_error']:.1e}" if x in states else "-" for x in layers
        ]
        agree = row["choices_agree"]
        ratio = row["logit_error_ratio"]
        unheld = {name: f" ({NOT_JUDGED})" for name in row.get("not_judged", ())}
        shares = "-" if agree is None else f"{100 * agree:.3f} % of {row['clear_choices']}"
        rows.append(
            [
                row["mode"],
                row["dtype"],
                *cosines,
                "-" if ratio is None else f"{ratio:.2f}x{unheld.get('logit_error_ratio', '')}",
                f"{shares}{unheld.get('choices_agree', '') if agree is not None else ''}",
                *own,
                verdict(row["passed"]),
            ]
        )
    head = ["mode", "dtype", *(f"layer {layer}" for layer in layers), "logit error of base's", "clear choices equal"]
    head += ["replay = eager", "repeats", ""]
    title = "Tier 2: model (each layer: cosine / relative error to base)"
    return Table(title, head, rows, [not row["passed"] for row in tier["rows"]])


SPEECH_HEADS = {
    "tokens_equal": "tokens of fp32 base",
    "cer": "CER",
    "speaker_similarity": "speaker",
    "duration": "duration",
    "clipping": "clipping",
    "silence": "silence",
    "naturalness": "naturalness (MOS)",
}


def _comparison(figure: dict[str, Any]) -> str:
    """A difference, its interval, and the verdict on it unless that is `within`."""
    said = {"within": "", "worse": " WORSE", "open": " open"}.get(figure["verdict"], f" {figure['verdict']}")
    return f"{figure['difference']:+.3f} [{figure['low']:+.3f}, {figure['high']:+.3f}]{said}"


def threshold_lines(tier: dict[str, Any]) -> list[str]:
    """What the tier was held to, a line each."""
    return [f"{name}: {_plain(value)}" for name, value in tier["thresholds"].items()]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _speech_table(tier: dict[str, Any]) -> Table:
    names = [name for name in SPEECH_HEADS if any(name in row["comparisons"] for row in tier["rows"])]
    rows = []
    for row in tier["rows"]:
        cells = []
        for name in names:
            figure = row["comparisons"].get(name)
            cells.append(_comparison(figure) if figure else "-")
        waveform = row.get("waveform_where_tokens_equal", {})
        rows.append(
            [
                row["mode"],
                row["dtype"],
                str(row["utterances"]),
                *cells,
                _number(row.get("tokens_equal_to_base"), ".1%"),
                _number(waveform.get("worst"), ".1e"),
                verdict(row["passed"]),
            ]
        )
    head = ["mode", "dtype", "utterances", *(SPEECH_HEADS[name] for name in names)]
    head += ["tokens of base", "samples where tokens equal", ""]
    title = "Tier 3: speech (mean difference from base and its 95 % interval; open: part of it is beyond the margin)"
    return Table(title, head, rows, [not row["passed"] for row in tier["rows"]])
