"""Tab 3: charts of committed and own results, devices beside each other, two files compared."""

from __future__ import annotations

from typing import Any

import streamlit as st

from omnivoice_triton.ui import charts, commands, files
from omnivoice_triton.ui.state import Page

DRAWN = ("speed", "turbo", "kernels")


def draw(page: Page) -> None:
    """The tab."""
    words = page.words
    documents, unusable = files.load_folder(page.results)
    for uploaded in st.file_uploader(words("add_results"), accept_multiple_files=True, key="add-results") or []:
        try:
            documents[uploaded.name.removesuffix(".json")] = files.parse(uploaded.getvalue())
        except ValueError as error:
            unusable.append((uploaded.name, str(error)))
    for name, why in unusable:
        st.error(words("bad_results", name=name, why=why))
    if not documents:
        st.info(words("no_results"))
        return
    drawable = sorted(
        (name for name, document in documents.items() if document["kind"] in DRAWN),
        key=lambda name: DRAWN.index(documents[name]["kind"]),
    ) or list(documents)
    chosen = st.multiselect(words("result_files"), list(documents), default=drawable[:1], key="result-files")
    kinds: dict[str, list[str]] = {}
    for name in chosen:
        kinds.setdefault(documents[name]["kind"], []).append(name)
    for kind, names in kinds.items():
        st.subheader(kind)
        _draw_kind(page, kind, {name: documents[name] for name in names})
    _compare(page, documents)


def _draw_kind(page: Page, kind: str, documents: dict[str, Any]) -> None:
    words = page.words
    for name, document in documents.items():
        environment = document["environment"]
        weights = f", {document['checkpoint']}" if "checkpoint" in document else ""
        st.caption(f"{name}: {files.device_of(document)}, {environment['date_utc']}{weights}")
    dtypes = list(dict.fromkeys(dtype for document in documents.values() for dtype in files.dtypes_of(document)))
    dtype = st.radio(words("precision"), dtypes, horizontal=True, key=f"dtype-{kind}") if dtypes else ""
    if kind in ("speed", "turbo"):
        _latency(page, documents, dtype, kind)
    elif kind == "kernels":
        clocks = list(dict.fromkeys(clock for document in documents.values() for clock in files.clocks_of(document)))
        clock = st.radio(words("clock"), clocks, horizontal=True, key="clock") if clocks else ""
        series = {_series(documents, name): files.kernel_rows(d, dtype, clock) for name, d in documents.items()}
        st.plotly_chart(charts.bars(series, "kernel", words("kernel_speedup")), key="chart-kernels")
    else:
        st.info(words("nothing_to_draw", kind=kind))
    with st.expander(words("figures")):
        for name, document in documents.items():
            st.caption(name)
            st.dataframe(files.flat_rows(document), hide_index=True, width="stretch", key=f"figures-{name}")


def _latency(page: Page, documents: dict[str, Any], dtype: str, kind: str) -> None:
    words = page.words
    series: dict[str, list[dict[str, Any]]] = {}
    for name, document in documents.items():
        for row in files.latency_rows(document, dtype):
            label = row["mode"] if len(documents) == 1 else f"{row['mode']}, {_series(documents, name)}"
            series.setdefault(label, []).append(row)
    if series:
        cases = list(dict.fromkeys(row["case"] for rows in series.values() for row in rows))
        picked = st.multiselect(words("figures"), cases, default=cases[:4], key=f"cases-{kind}")
        shown = {label: [row for row in rows if row["case"] in picked] for label, rows in series.items()}
        st.plotly_chart(charts.bars(shown, "case", words("latency")), key=f"chart-{kind}")
    for name, document in documents.items():
        curves = files.throughput_curves(document, dtype)
        if curves:
            st.caption(_series(documents, name))
            st.plotly_chart(charts.curves(curves, "batch", words("throughput")), key=f"throughput-{name}")


def _series(documents: dict[str, Any], name: str) -> str:
    """The device, and the file where two are of one device."""
    device = files.device_of(documents[name])
    alone = sum(files.device_of(document) == device for document in documents.values()) == 1
    return device if alone else f"{device} ({name})"


def _compare(page: Page, documents: dict[str, Any]) -> None:
    words = page.words
    with st.expander(words("compare")):
        left, right = st.columns(2)
        before = left.selectbox(words("before"), list(documents), key="before")
        after = right.selectbox(words("after"), list(documents), index=len(documents) - 1, key="after")
        if not st.button(words("compare_run"), key="compare"):
            return
        try:
            found = commands.compare(documents[before], documents[after])
        except commands.CommandFailed as error:
            st.error(str(error))
            return
        for difference in found["differences"]:
            st.warning(difference)
        if found["regressions"]:
            st.error("\n".join([f"{words('regressions')}:", *(f"- {line}" for line in found["regressions"])]))
        else:
            st.success(words("no_regressions"))
        rows = [
            {
                "": change["what"],
                words("figures"): change["metric"],
                words("before"): change["before"]["median"],
                words("after"): change["after"]["median"],
                "x": round(change["ratio"], 3),
                "p5 … p95": f"{change['bounds'][0]:.2f} … {change['bounds'][1]:.2f}",
                " ": change["verdict"],
            }
            for change in found["changes"]
        ]
        st.dataframe(rows, hide_index=True, width="stretch", key="changes")
