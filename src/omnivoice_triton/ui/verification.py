"""Tab 4: the three tiers as cards, run from here with progress, and what is committed of them."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from omnivoice_triton.ui import commands, files
from omnivoice_triton.ui.state import Page

TIERS = (1, 2, 3)
COMMITTED = ("verify", "parity", "smoke", "sanitizer")


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
    for name, document in documents.items():
        if document["kind"] in COMMITTED:
            _committed(page, name, document)


def _run(page: Page, tiers: list[int], sentences: int) -> None:
    words = page.words
    flags = ["--tier", ",".join(map(str, sorted(tiers))), "--sentences", str(sentences)]
    if page.model:
        flags += ["--model", page.model]
    bar = st.progress(0.0, text=words("verifying"))

    def tell(tier: int, what: str, done: int, total: int) -> None:
        bar.progress(min(done / max(total, 1), 1.0), text=f"{words(f'tier_{tier}')}: {what} ({done}/{total})")

    try:
        st.session_state["report"] = commands.verify(flags, tell)
    except commands.CommandFailed as error:
        st.error(words("verify_broke", why=str(error)))
    bar.empty()


def _show(page: Page, report: dict[str, Any]) -> None:
    words = page.words
    (st.success if report["passed"] else st.error)(words("passed" if report["passed"] else "not_passed"))
    for column, tier in zip(st.columns(len(report["results"])), report["results"], strict=True):
        with column.container(border=True):
            st.subheader(words(f"tier_{tier['tier']}"))
            st.markdown(f"**{words('passed' if tier['passed'] else 'not_passed')}** · {tier['what']}")
            figures = st.columns(3)
            figures[0].metric(words("checks"), tier["checks"])
            figures[1].metric(words("failed"), tier["failed"])
            figures[2].metric(words("time"), f"{tier['seconds']:.0f} s")
            for problem in tier["problems"][:5]:
                st.error(problem)
            with st.expander(words("notes")):
                for note in tier["notes"]:
                    st.markdown(f"- {note}")
    for tier in report["results"]:
        title = words(f"tier_{tier['tier']}")
        with st.expander(f"{title}: {words('figures')}"):
            st.dataframe(
                files.flat_rows({"results": tier["rows"]}), hide_index=True, width="stretch", key=f"tier-{tier['tier']}"
            )
    text = json.dumps(report, indent=1, ensure_ascii=False)
    st.download_button(words("save_report"), text, "verify.json", "application/json", key="save-report")


def _committed(page: Page, name: str, document: dict[str, Any]) -> None:
    words = page.words
    rows = document["results"]
    # A row of a whole verification is a tier of many checks.
    failed = sum(int(row.get("failed", row.get("passed") is not True)) for row in rows)
    checks = sum(int(row.get("checks", 1)) for row in rows)
    verdict = words("passed" if all(row.get("passed") is True for row in rows) else "not_passed")
    environment = document["environment"]
    title = f"{name}: {verdict}, {checks} {words('checks')}, {failed} {words('failed')}"
    with st.expander(f"{title} · {files.device_of(document)}, {environment['date_utc'][:10]}"):
        st.dataframe(files.flat_rows(document), hide_index=True, width="stretch", key=f"committed-{name}")
