"""Tab 3: charts of committed and own results, devices beside each other, two files compared."""

from __future__ import annotations

from typing import Any

import streamlit as st

from omnivoice_triton.ui import charts, commands, figures, files, tables, verdicts
from omnivoice_triton.ui.state import Page


def draw(page: Page) -> None:
    """The tab."""
    words = page.words
    documents, unusable = files.load_folder(page.results)
    seen: set[bytes] = set()
    for uploaded in st.file_uploader(words("add_results"), accept_multiple_files=True, key="add-results") or []:
        if uploaded.getvalue() in seen:
            continue
        seen.add(uploaded.getvalue())
        try:
            documents[_free(uploaded.name.removesuffix(".json"), documents)] = files.parse(uploaded.getvalue())
        except ValueError as error:
            unusable.append((uploaded.name, str(error)))
    for name, why in unusable:
        st.error(words("bad_results", name=name, why=page.remark(why)))
    if not documents:
        st.info(words("no_results"))
        return
    drawable = figures.by_content(documents) or list(documents)
    before = st.session_state.get("result-files")
    if before and not set(before) & set(documents):
        del st.session_state["result-files"]  # another folder: its first file, rather than nothing
    chosen = st.multiselect(
        words("result_files"),
        list(documents),
        default=drawable[:1],
        format_func=lambda name: f"{name} · {files.device_of(documents[name])}",
        help=words("compare_devices"),
        key="result-files",
    )
    kinds: dict[str, list[str]] = {}
    for name in chosen:
        kinds.setdefault(documents[name]["kind"], []).append(name)
    for kind, names in kinds.items():
        st.subheader(kind)
        _draw_kind(page, kind, {name: documents[name] for name in names})
    _compare(page, documents)


def _free(name: str, taken: dict[str, Any]) -> str:
    """`name`, numbered if a file of that name is there: one's own `speed` stands beside the committed one."""
    number, free = 2, name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free


def _draw_kind(page: Page, kind: str, documents: dict[str, Any]) -> None:
    words = page.words
    for name, document in documents.items():
        parts = [files.device_of(document), files.date_of(document), str(document.get("checkpoint") or "")]
        said = tables.escaped(", ".join(part for part in parts if part))
        st.caption(f"{tables.escaped(name)}: {said}")
    dtypes = list(dict.fromkeys(dtype for document in documents.values() for dtype in figures.dtypes_of(document)))
    drawn = kind in figures.DRAWN
    dtype = st.radio(words("precision"), dtypes, horizontal=True, key=f"dtype-{kind}") if drawn and dtypes else ""
    if kind == "kernels":
        _kernels(page, documents, dtype)
    elif drawn:
        _latency(page, documents, dtype, kind)
    else:
        st.info(words("nothing_to_draw", kind=kind))
    for document in documents.values():
        _gaps(page, document, "available")
    with st.expander(words("figures"), expanded=not drawn):
        for name, document in documents.items():
            st.caption(tables.escaped(name))
            _gaps(page, document, "measured")
            for failure in verdicts.failures_of(document):
                st.caption(f":red[✘ {tables.escaped(failure)}]")
            st.dataframe(files.flat_rows(document), hide_index=True, width="stretch", key=f"figures-{name}")


def _gaps(page: Page, document: dict[str, Any], what: str) -> None:
    """What the file says is not `available` or `measured`, and why."""
    for why, names in files.gaps_of(document, f"not_{what}").items():
        listed = tables.escaped(", ".join(names))
        st.caption(page.words(f"not_{what}", what=listed, why=tables.escaped(page.remark(why))))


def _latency(page: Page, documents: dict[str, Any], dtype: str, kind: str) -> None:
    words = page.words
    metrics = [metric for metric in figures.METRICS if any(metric in figures.metrics_of(d) for d in documents.values())]
    if metrics:
        left, right = st.columns([1, 2])
        metric = left.selectbox(
            words("figure"), metrics, format_func=lambda name: words(f"metric_{name}"), key=page.key(f"metric-{kind}")
        )
        found = {name: figures.latency_rows(document, dtype, metric) for name, document in documents.items()}
        cases = list(dict.fromkeys(row["case"] for rows in found.values() for row in rows))
        picked = right.multiselect(
            words("cases"), cases, default=cases[:4], key=f"cases-{kind}-{dtype}-{'-'.join(documents)}"
        )
        series = []
        for number, (name, rows) in enumerate(found.items()):
            for mode in dict.fromkeys(row["mode"] for row in rows):
                label = mode if len(documents) == 1 else f"{mode}, {_series(documents, name)}"
                mine = [row for row in rows if row["mode"] == mode and row["case"] in picked]
                series.append(charts.Bars(label, mine, mode, number))
        st.plotly_chart(charts.bars(series, "case", words(f"metric_{metric}"), picked), key=f"chart-{kind}")
        for name, document in documents.items():
            if not found[name]:
                st.caption(words("nothing_in", name=tables.escaped(name), dtype=dtype))
            few, all_of_them = figures.few_runs(document, dtype, picked) if metric == "median_ms" else (0, 0)
            if few:
                st.caption(f"{tables.escaped(name)}: {words('few_runs_drawn', n=few, all=all_of_them)}")
    for name, document in documents.items():
        curves = figures.throughput_curves(document, dtype)
        if curves:
            st.caption(tables.escaped(_series(documents, name)))
            st.plotly_chart(charts.curves(curves, words("batch"), words("throughput")), key=f"throughput-{name}")
    _turbo(page, documents, dtype)


def _turbo(page: Page, documents: dict[str, Any], dtype: str) -> None:
    """What turbo's options, memory and start cost, of files that say it."""
    for part in figures.TURBO_PARTS:
        series = []
        for number, (name, document) in enumerate(documents.items()):
            rows = figures.turbo_rows(document, dtype, part)
            for place, case in enumerate(dict.fromkeys(row["case"] for row in rows)):
                label = ", ".join(filter(None, (case, _series(documents, name) if len(documents) > 1 else "")))
                shade = charts.COLOURS[(place + 1) % len(charts.COLOURS)]
                mine = [row for row in rows if row["case"] == case]
                series.append(charts.Bars(label, mine, "turbo", number, shade if case else ""))
        if series:
            st.caption(page.words(f"turbo_{part}"))
            st.plotly_chart(charts.bars(series, "name", "", height=320), key=f"turbo-{part}")


def _kernels(page: Page, documents: dict[str, Any], dtype: str) -> None:
    words = page.words
    measures = list(dict.fromkeys(m for document in documents.values() for m in figures.kernel_measures(document)))
    if not measures:
        st.info(words("nothing_to_draw", kind="kernels"))
        return

    def called(figure: str) -> str:
        name, _, other = figure.partition(".")
        return words(f"kernel_{name}", other=other)

    left, right = st.columns([1, 2])
    figure = left.selectbox(
        words("figure"),
        list(dict.fromkeys(figure for figure, _ in measures)),
        format_func=called,
        key=page.key("kernel-figure"),
    )
    clocks = [clock for name, clock in measures if name == figure]
    clock = left.radio(words("clock"), clocks, horizontal=True, help=words("clock_help"), key="clock")
    found = {name: figures.kernel_rows(document, dtype, (figure, clock)) for name, document in documents.items()}
    kernels = list(dict.fromkeys(row["kernel"] for rows in found.values() for row in rows))
    # None is all of them: two dozen names would hide each other.
    picked = right.multiselect(words("kernels"), kernels, placeholder=words("all"), key=page.key("kernels")) or kernels
    counts = sorted({row["rows"] for rows in found.values() for row in rows if row["kernel"] in picked})
    if not counts:
        return
    many = max(counts, key=lambda count: sum(row["rows"] == count for rows in found.values() for row in rows))
    at = right.selectbox(words("at_rows"), counts, index=counts.index(many), key="kernel-rows")
    series = [
        charts.Bars(
            _series(documents, name) if len(documents) > 1 else "",
            [row for row in rows if row["rows"] == at and row["kernel"] in picked],
            "triton",
            place,
        )
        for place, (name, rows) in enumerate(found.items())
    ]
    st.plotly_chart(charts.bars(series, "kernel", called(figure), picked), key="chart-kernels")
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for name, rows in found.items():
        for row in sorted(rows, key=lambda row: row["rows"]):
            if row["kernel"] in picked:
                label = row["kernel"] if len(documents) == 1 else f"{row['kernel']}, {_series(documents, name)}"
                xs, ys = curves.setdefault(label, ([], []))
                xs.append(row["rows"])
                ys.append(row["median"])
    st.plotly_chart(charts.curves(curves, words("rows"), called(figure)), key="curves-kernels")


def _series(documents: dict[str, Any], name: str) -> str:
    """The device, and the file where two are of one device."""
    device = files.device_of(documents[name])
    alone = sum(files.device_of(document) == device for document in documents.values()) == 1
    return device if alone else f"{device} ({name})"


def _alike(documents: dict[str, Any]) -> tuple[int, int]:
    """Places of two files of one kind, if there are; the last two of all else."""
    kinds = [document["kind"] for document in documents.values()]
    for first, kind in enumerate(kinds):
        if kind in kinds[first + 1 :]:
            return first, kinds.index(kind, first + 1)
    return max(0, len(kinds) - 2), len(kinds) - 1


def _compare(page: Page, documents: dict[str, Any]) -> None:
    words = page.words
    with st.expander(words("compare")):
        left, right = st.columns(2)
        first, second = _alike(documents)
        before = left.selectbox(words("before"), list(documents), index=first, key="before")
        after = right.selectbox(words("after"), list(documents), index=second, key="after")
        if not st.button(words("compare_run"), key="compare"):
            return
        try:
            found = commands.compare(documents[before], documents[after])
        except commands.CommandFailed as error:
            st.error(str(error))
            return
        for line in found["made_by"]:
            st.caption(tables.escaped(line))
        for difference in found["differences"]:
            st.warning(tables.escaped(difference))
        few = sum(change["verdict"] == "of too few runs" for change in found["changes"])
        if found["regressions"]:
            lines = [f"- {tables.escaped(line)}" for line in found["regressions"]]
            st.error("\n".join([f"{words('regressions')}:", *lines]))
        elif few < len(found["changes"]) and not found["timings_gone"] and not found["only_before"]:
            st.success(words("no_regressions"))
        else:
            st.info(words("no_verdict"))
        if few:
            st.warning(words("few_runs", n=few, all=len(found["changes"])))
        gone = [*found["only_before"], *found["timings_gone"]]
        if gone:
            st.warning(words("rows_missing", n=len(gone), names=tables.escaped("; ".join(gone[:5]))))
        rows = [
            {
                "": change["what"],
                words("figure"): change["metric"],
                words("before"): change["before"]["median"],
                words("after"): change["after"]["median"],
                "x": round(change["ratio"], 3),
                "p5 … p95": f"{change['bounds'][0]:.2f} … {change['bounds'][1]:.2f}",
                " ": change["verdict"],
            }
            for change in found["changes"]
        ]
        st.dataframe(rows, hide_index=True, width="stretch", key="changes")
