"""The page that Streamlit runs: sidebar and five tabs."""

from __future__ import annotations

from typing import Any

import streamlit as st

from omnivoice_triton.ui import benchmarks, commands, files, inference, overview, samples, verification
from omnivoice_triton.ui.state import DEMO_WEIGHTS, Page
from omnivoice_triton.ui.words import LANGUAGES, Words

TABS = {
    "overview": overview.draw,
    "inference": inference.draw,
    "benchmarks": benchmarks.draw,
    "verification": verification.draw,
    "samples": samples.draw,
}


@st.cache_data(ttl=300, show_spinner=False)
def examined() -> dict[str, Any]:
    """The doctor's report: it takes seconds, and machines change seldom."""
    return commands.doctor()


def main() -> None:
    """Draw everything."""
    st.set_page_config(page_title="OmniVoice on Triton", page_icon="🔊", layout="wide")
    with st.sidebar:
        code = st.selectbox(
            "Language / 언어 / 语言", list(LANGUAGES), format_func=lambda name: LANGUAGES[name], key="language"
        )
        words = Words(code)
        model = st.text_input(words("model"), key="model", help=words("model_help")).strip()
        results = st.text_input(
            words("results_folder"), files.default_folder(files.RESULTS_VARIABLE, "bench", "results"), key="results"
        )
        recorded = files.default_folder(files.SAMPLES_VARIABLE, "assets", "audio_samples")
        sounds = st.text_input(words("samples_folder"), recorded, key="samples")
    st.title(words("title"))
    try:
        report = examined()
    except commands.CommandFailed as error:
        st.error(str(error))
        return
    page = Page(words, model, results.strip(), sounds.strip(), report)
    if page.weights.startswith("random"):
        st.caption(words("noise"))
    elif page.weights == DEMO_WEIGHTS:
        st.caption(words("demo_voice"))
    for tab, draw in zip(st.tabs([words(f"tab_{name}") for name in TABS]), TABS.values(), strict=True):
        with tab:
            draw(page)


main()
