"""Tab 1: the device, the modes, and what can run."""

from __future__ import annotations

import streamlit as st

from omnivoice_triton.ui import tables
from omnivoice_triton.ui.state import Page


def draw(page: Page) -> None:
    """The tab."""
    words, report = page.words, page.doctor
    environment, model = report["environment"], report["model"]
    gpus = environment["gpus"]
    columns = st.columns(4)
    columns[0].metric(words("device"), gpus[0]["name"] if gpus else environment["cpu"]["model"] or "CPU")
    memory = words("gpu_free", free=gpus[0]["free_gib"], all=gpus[0]["memory_gib"]) if gpus else "-"
    columns[1].metric(words("gpu_memory"), memory)
    columns[2].metric(words("auto_takes"), report["auto"] or "-")
    columns[3].metric(words("weights"), model["weights"] or "-")
    if model.get("problem"):
        # A model that is only not here yet is fetched by its first use; any other problem keeps it from loading.
        show = st.info if model["problem"].startswith("not on this machine yet") else st.error
        show(f"{model['name']}: {page.remark(model['problem'])}")
    st.subheader(words("modes"))
    tables.wrapping(
        [
            {
                words("mode"): name,
                words("what_it_is"): words(f"mode_{name}"),
                words("runs_here"): words("yes" if found["runs"] else "no"),
                words("remark"): page.remark(found["why"] or ""),
            }
            for name, found in report["modes"].items()
        ]
    )
    left, right = st.columns(2)
    with left:
        st.subheader(words("versions"))
        tables.wrapping(
            [{words("part"): n, words("version"): v or "-"} for n, v in environment["versions"].items()],
        )
    with right:
        st.subheader(words("machine"))
        st.json({key: environment[key] for key in ("os", "cpu", "memory_gib", "gpus", "commit")})
