"""The page that Streamlit runs: sidebar and five tabs."""

from __future__ import annotations

import logging
from typing import Any

import streamlit as st

from omnivoice_triton.commands import in_words
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


logger = logging.getLogger(__name__)

# Figures and names are never cut: they wrap, whatever the width of the window.
STYLE = """<style>
[data-testid="stMainBlockContainer"] { padding-top: 3.5rem; }
[data-testid="stMetricValue"], [data-testid="stMetricValue"] * {
  font-size: 1.5rem; line-height: 1.25; overflow: visible; overflow-wrap: anywhere;
  white-space: normal !important; /* Streamlit's own rule for the text is more specific */
}
</style>"""
# Korean breaks between words, where browsers would break within them.
STYLES = {"ko": '<style>[data-testid="stMarkdownContainer"] { word-break: keep-all; }</style>'}


@st.cache_data(ttl=300, show_spinner=False)
def examined(model: str) -> dict[str, Any]:
    """The doctor's report: it takes seconds, and machines change seldom."""
    return commands.doctor(model)


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
    st.html(STYLE + STYLES.get(code, ""))
    st.title(words("title"))
    try:
        with st.spinner(words("examining")):
            report = examined(model)
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
            try:
                draw(page)
            except Exception as error:  # a fault of ours: the other tabs still work, and the log has all of it
                logger.exception("tab")
                with st.container(key=f"broken-{draw.__module__.rpartition('.')[2]}"):
                    st.error(words("tab_broke", why=in_words(error)))


main()
