"""Tab 1: the device, the modes, and what can run."""

from __future__ import annotations

import streamlit as st

from omnivoice_triton import MODES
from omnivoice_triton.ui.state import Page


def draw(page: Page) -> None:
    """The tab."""
    words, report = page.words, page.doctor
    environment = report["environment"]
    gpus = environment["gpus"]
    columns = st.columns(4)
    columns[0].metric(words("device"), gpus[0]["name"] if gpus else environment["cpu"]["model"] or "CPU")
    memory = f"{gpus[0]['free_gib']:.0f} / {gpus[0]['memory_gib']:.0f} GiB" if gpus else "-"
    columns[1].metric(words("gpu_memory"), memory)
    columns[2].metric(words("auto_takes"), report["auto"] or "-")
    columns[3].metric(words("weights"), report["model"]["weights"] or "-")
    if report["model"].get("problem"):
        st.error(report["model"]["problem"])
    st.subheader(words("modes"))
    st.dataframe(
        [
            {
                words("mode"): name,
                words("what_it_is"): MODES[name].summary,
                words("runs_here"): words("yes" if found["runs"] else "no"),
                words("remark"): found["why"] or "",
            }
            for name, found in report["modes"].items()
        ],
        hide_index=True,
        width="stretch",
    )
    left, right = st.columns(2)
    left.subheader(words("versions"))
    left.dataframe(
        [{"": name, words("versions"): version or "-"} for name, version in environment["versions"].items()],
        hide_index=True,
        width="stretch",
    )
    right.subheader(words("machine"))
    right.json({key: environment[key] for key in ("os", "cpu", "memory_gib", "gpus", "commit")})
