"""Tab 4: the three tiers as cards, run from here with progress, and what is committed of them."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import streamlit as st

from omnivoice_triton.checkpoint.resolve import MODEL_VARIABLE
from omnivoice_triton.config import MODES
from omnivoice_triton.ui import commands, files, tables, verdicts
from omnivoice_triton.ui.state import DEMO_WEIGHTS, Page, keep, kept

TIERS = (1, 2, 3)
MOST_PROBLEMS = 5
"""On a card; the table has all."""


def draw(page: Page) -> None:
    """The tab."""
    words = page.words
    left, right = st.columns(2)
    tiers = left.multiselect(
        words("tiers"),
        TIERS,
        default=kept("tiers", list(TIERS)),
        format_func=lambda n: words(f"tier_{n}"),
        key=page.key("tiers"),
    )
    keep("tiers", tiers)
    sentences = int(right.number_input(words("sentences"), 1, 16, 2, key="sentences"))
    if st.button(words("run_verification"), type="primary", disabled=not tiers, key="verify"):
        st.session_state.pop("report", None)
        st.session_state["verifying"] = True  # what ends the run of the page ends this too, and has to be said
        _run(page, tiers, sentences)
        del st.session_state["verifying"]
    elif st.session_state.pop("verifying", False):
        st.warning(words("interrupted"))
    report = st.session_state.get("report")
    if report is None or st.session_state.get("report-model") != page.model:
        st.info(words("no_report"))
    else:
        _show(page, report)
    st.subheader(words("committed", folder=page.results or "-"))
    documents, unusable = files.load_folder(page.results)
    for name, why in unusable:
        st.error(tables.escaped(words("bad_results", name=name, why=page.remark(why))))
    judged = [(name, document) for name, document in documents.items() if document["kind"] in verdicts.VERDICTS]
    # Whole verifications first, and of a kind the one with the most checks.
    judged.sort(key=lambda one: (verdicts.VERDICTS.index(one[1]["kind"]), -verdicts.verdict_of(one[1])[1]))
    for name, document in judged:
        _committed(page, name, document)


def _run(page: Page, tiers: list[int], sentences: int) -> None:
    words = page.words
    ordered = sorted(tiers)
    flags = ["--tier", ",".join(map(str, ordered)), "--sentences", str(sentences)]
    model = page.model or os.environ.get(MODEL_VARIABLE) or ("demo" if page.weights == DEMO_WEIGHTS else "")
    if model:  # the page's own, not what `verify` would take where there is a GPU
        flags += ["--model", model]
    bar = st.progress(0.0, text=words("verifying"))
    started = time.monotonic()

    def tell(tier: int, what: str, done: int, total: int) -> None:
        share = (ordered.index(tier) + min(done / max(total, 1), 1.0)) / len(ordered)
        bar.progress(
            share, text=f"{words(f'tier_{tier}')}: {what} ({done}/{total}) · {time.monotonic() - started:.0f} s"
        )

    try:
        st.session_state["report"] = commands.verify(flags, tell)
        st.session_state["report-model"] = page.model
    except commands.CommandFailed as error:
        st.error(words("verify_broke", why=str(error)))
    bar.empty()


def _show(page: Page, report: dict[str, Any]) -> None:
    words = page.words
    (st.success if report["passed"] else st.error)(words("passed" if report["passed"] else "not_passed"))
    _headline(report)
    _cards(page, report["results"], "own report")
    text = json.dumps(report, indent=1, ensure_ascii=False)
    st.download_button(words("save_report"), text, "verify.json", "application/json", key="save-report")


def _headline(report: dict[str, Any]) -> None:
    """On what it ran: device, weights, day."""
    parts = (files.device_of(report), report.get("checkpoint"), files.date_of(report))
    st.caption(tables.escaped(", ".join(str(part) for part in parts if part)))


def _cards(page: Page, tiers: list[dict[str, Any]], name: str) -> None:
    """A card for each tier, its table below on request."""
    words = page.words
    for column, tier in zip(st.columns(max(len(tiers), 2)), tiers, strict=False):
        with column.container(border=True):
            st.subheader(words(f"tier_{tier['tier']}"))
            badge = ":green[✔" if tier["passed"] else ":red[✘"
            st.markdown(f"**{badge} {words('passed' if tier['passed'] else 'not_passed')}]**")
            figures = st.columns(3)
            figures[0].metric(words("checks"), tier["checks"])
            figures[1].metric(words("failed"), tier["failed"])
            figures[2].metric(words("time"), f"{tier['seconds']:.0f} s")
            st.caption(tables.escaped(page.remark(tier["what"])))
            if modes := verdicts.modes_of(tier):
                left_out = [mode for mode in MODES if mode not in modes]
                st.caption(tables.escaped(words("modes_run", modes=", ".join(modes))))
                if left_out:
                    st.caption(tables.escaped(words("modes_not_run", modes=", ".join(left_out))))
            for problem in tier["problems"][:MOST_PROBLEMS]:
                st.error(tables.escaped(page.remark(problem)))
            if len(tier["problems"]) > MOST_PROBLEMS:
                st.caption(words("more_problems", count=len(tier["problems"]) - MOST_PROBLEMS))
            if tier["notes"]:
                with st.popover(words("notes")):
                    for note in tier["notes"]:
                        st.markdown(f"- {tables.escaped(page.remark(note))}")
    for tier in tiers:
        title = words(f"tier_{tier['tier']}")
        if st.toggle(f"{title}: {words('figures')}", key=f"table-{name}-{tier['tier']}"):
            rows = files.flat_rows({"results": tier["rows"]})
            st.dataframe(rows, hide_index=True, width="stretch", key=f"tier-{name}-{tier['tier']}")


def _committed(page: Page, name: str, document: dict[str, Any]) -> None:
    words = page.words
    passed, checks, failed = verdicts.verdict_of(document)
    verdict = words("passed" if passed else "not_passed")
    title = f"{name}: {verdict}, {checks} {words('checks')}, {failed} {words('failed')}"
    with st.expander(tables.escaped(f"{title} · {files.device_of(document)}, {files.date_of(document)}")):
        for failure in verdicts.failures_of(document):
            st.caption(f":red[✘ {tables.escaped(failure)}]")
        if document["kind"] == "verify":
            _headline(document)
            _cards(page, document["results"], f"file {name}")
        else:
            st.dataframe(files.flat_rows(document), hide_index=True, width="stretch", key=f"committed-{name}")
