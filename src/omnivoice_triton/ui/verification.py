"""Tab 4: the three tiers as cards, run from here with progress, and what is committed of them."""

from __future__ import annotations

import json
import time
from typing import Any

import streamlit as st

from omnivoice_triton.ui import commands, files, tables
from omnivoice_triton.ui.state import Page

TIERS = (1, 2, 3)
MOST_PROBLEMS = 5
"""On a card; the table has all."""


def draw(page: Page) -> None:
    """The tab."""
    words = page.words
    left, right = st.columns(2)
    tiers = left.multiselect(
        words("tiers"), TIERS, default=list(TIERS), format_func=lambda n: words(f"tier_{n}"), key=page.key("tiers")
    )
    sentences = int(right.number_input(words("sentences"), 1, 16, 2, key="sentences"))
    if st.button(words("run_verification"), type="primary", disabled=not tiers, key="verify"):
        st.session_state.pop("report", None)
        _run(page, tiers, sentences)
    report = st.session_state.get("report")
    if report is None:
        st.info(words("no_report"))
    else:
        _show(page, report)
    st.subheader(words("committed"))
    documents, _ = files.load_folder(page.results)
    judged = [(name, document) for name, document in documents.items() if document["kind"] in files.VERDICTS]
    # Whole verifications first, and of a kind the one with the most checks.
    judged.sort(key=lambda one: (files.VERDICTS.index(one[1]["kind"]), -files.verdict_of(one[1])[1]))
    for name, document in judged:
        _committed(page, name, document)


def _run(page: Page, tiers: list[int], sentences: int) -> None:
    words = page.words
    ordered = sorted(tiers)
    flags = ["--tier", ",".join(map(str, ordered)), "--sentences", str(sentences)]
    if page.model:
        flags += ["--model", page.model]
    bar = st.progress(0.0, text=words("verifying"))
    started = time.monotonic()

    def tell(tier: int, what: str, done: int, total: int) -> None:
        share = (ordered.index(tier) + min(done / max(total, 1), 1.0)) / len(ordered)
        bar.progress(
            share, text=f"{words(f'tier_{tier}')}: {what} ({done}/{total}) · {time.monotonic() - started:.0f} s"
        )

    try:
        st.session_state["report"] = commands.verify(flags, tell)
    except commands.CommandFailed as error:
        st.error(words("verify_broke", why=str(error)))
    bar.empty()


def _show(page: Page, report: dict[str, Any]) -> None:
    words = page.words
    (st.success if report["passed"] else st.error)(words("passed" if report["passed"] else "not_passed"))
    _cards(page, report["results"], "run")
    text = json.dumps(report, indent=1, ensure_ascii=False)
    st.download_button(words("save_report"), text, "verify.json", "application/json", key="save-report")


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
            st.caption(tables.escaped(tier["what"]))
            for problem in tier["problems"][:MOST_PROBLEMS]:
                st.error(tables.escaped(problem))
            if len(tier["problems"]) > MOST_PROBLEMS:
                st.caption(words("more_problems", count=len(tier["problems"]) - MOST_PROBLEMS))
            if tier["notes"]:
                with st.popover(words("notes")):
                    for note in tier["notes"]:
                        st.markdown(f"- {tables.escaped(note)}")
    for tier in tiers:
        title = words(f"tier_{tier['tier']}")
        if st.toggle(f"{title}: {words('figures')}", key=f"table-{name}-{tier['tier']}"):
            rows = files.flat_rows({"results": tier["rows"]})
            st.dataframe(rows, hide_index=True, width="stretch", key=f"tier-{name}-{tier['tier']}")


def _committed(page: Page, name: str, document: dict[str, Any]) -> None:
    words = page.words
    passed, checks, failed = files.verdict_of(document)
    verdict = words("passed" if passed else "not_passed")
    title = f"{name}: {verdict}, {checks} {words('checks')}, {failed} {words('failed')}"
    with st.expander(f"{title} · {files.device_of(document)}, {files.date_of(document)}"):
        if document["kind"] == "verify":
            _cards(page, document["results"], name)
        else:
            st.dataframe(files.flat_rows(document), hide_index=True, width="stretch", key=f"committed-{name}")
