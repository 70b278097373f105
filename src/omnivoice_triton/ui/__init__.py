"""The dashboard: `omnivoice-triton ui` (extra `ui`). Stands on the public API, the command line and result files only.

`app` is what Streamlit runs; each tab has a module of its own; `words` holds every text in three languages.
"""
