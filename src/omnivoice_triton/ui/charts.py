"""Plotly figures: sound and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go  # type: ignore[import-untyped]

from omnivoice_triton.config import MODES

Samples = npt.NDArray[np.float32]

POINTS = 1200
"""Of a waveform: about two a pixel."""
NO_BUTTONS = {"displayModeBar": False}
"""For figures of sound: Plotly's buttons would lie over a third of so low a one."""
ABOVE = 36
"""Pixels for the buttons of the others, that they lie over no bar."""
WINDOW, FLOOR_DB = 1024, -80.0
COLOURS = (
    "#7f7f7f",
    "#1f77b4",
    "#17becf",
    "#9467bd",
    "#2ca02c",
    "#bcbd22",
    "#d62728",
    "#ff7f0e",
    "#8c564b",
    "#e377c2",
)  # of modes in their order, then others
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
PATTERNS = ("", "/", ".", "x", "-")


def _plain(figure: go.Figure, height: int, top: int = 8) -> go.Figure:
    figure.update_layout(height=height, margin={"l": 8, "r": 8, "t": top, "b": 8}, legend={"orientation": "h"})
    return figure


def waveform(audio: Samples, rate: int) -> go.Figure:
    """Least and largest sample of each stretch of time."""
    size = max(1, -(-len(audio) // (POINTS // 2)))
    padded = np.pad(audio, (0, -len(audio) % size)).reshape(-1, size) if len(audio) else np.zeros((1, 1), np.float32)
    seconds = np.repeat(np.arange(len(padded)) * size / rate, 2)
    envelope = np.stack((padded.min(1), padded.max(1)), 1).reshape(-1)
    figure = go.Figure(go.Scatter(x=seconds, y=envelope, mode="lines", line={"width": 1}))
    figure.update_yaxes(range=[-1, 1])
    figure.update_xaxes(title="s")
    return _plain(figure, 140)


def spectrogram(audio: Samples, rate: int) -> go.Figure:
    """Magnitudes in dB of Hann windows of 1024 samples, at most 300 of them."""
    samples = np.pad(audio, (0, max(0, WINDOW - len(audio))))
    hop = max(256, (len(samples) - WINDOW) // 300 + 1)
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::hop] * np.hanning(WINDOW)
    level = 20 * np.log10(np.abs(np.fft.rfft(frames, axis=1)).T / (WINDOW / 4) + 1e-6)
    figure = go.Figure(
        go.Heatmap(
            z=np.maximum(level, FLOOR_DB)[::2].round(1),
            x=np.arange(frames.shape[0]) * hop / rate,
            y=np.fft.rfftfreq(WINDOW, 1 / rate)[::2] / 1000,
            zmin=FLOOR_DB,
            zmax=0,
            showscale=False,
            colorscale="Viridis",
        )
    )
    figure.update_yaxes(title="kHz")
    figure.update_xaxes(title="s")
    return _plain(figure, 180)


@dataclass(frozen=True)
class Bars:
    """One series of `bars`."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    """`median`, and where they are known `p5` and `p95`."""
    mode: str
    """Chooses the colour: a mode has the same one in every chart and on every device."""
    pattern: int = 0
    """Of the document: devices differ in pattern."""
    shade: str = ""
    """A colour, where the series are no modes."""


def colour(mode: str) -> str:
    """Of a mode, or of a third-party path."""
    names = list(MODES)
    # Not hash(), which differs from process to process.
    number = names.index(mode) if mode in names else len(names) + sum(map(ord, mode))
    return COLOURS[number % len(COLOURS)]


def bars(series: Sequence[Bars], x: str, title: str, order: Sequence[str] = (), height: int = 420) -> go.Figure:
    """Grouped bars of `median` over row[x], with lines from `p5` to `p95` where they are apart."""
    figure = go.Figure()
    for one in series:
        medians = [row["median"] for row in one.rows]
        # None draws nothing: a line of no length would look like a time that never varies.
        above = [row["p95"] - row["median"] if "p95" in row else None for row in one.rows]
        below = [row["median"] - row["p5"] if "p5" in row else None for row in one.rows]
        spread = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
        figure.add_bar(
            name=one.name,
            x=[row[x] for row in one.rows],
            y=medians,
            error_y=spread if any(above) or any(below) else None,
            marker={
                "color": one.shade or colour(one.mode),
                "pattern": {"shape": PATTERNS[one.pattern % len(PATTERNS)]},
            },
        )
    figure.update_layout(barmode="group")
    figure.update_xaxes(categoryorder="array", categoryarray=list(order)) if order else None
    figure.update_yaxes(title=title, rangemode="tozero")
    figure.update_layout(showlegend=any(one.name for one in series))
    return _plain(figure, height, ABOVE)


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_title: str, y_title: str) -> go.Figure:
    """Lines with points, x on a logarithmic axis, marked where there are points; no two of the first 60 look alike."""
    figure = go.Figure()
    for number, (name, (xs, ys)) in enumerate(series.items()):
        look = {"color": COLOURS[number % len(COLOURS)]}
        round_ = number // len(COLOURS)
        figure.add_scatter(
            name=name,
            x=list(xs),
            y=list(ys),
            mode="lines+markers",
            line={**look, "dash": DASHES[round_ % len(DASHES)]},
            marker={**look, "symbol": SYMBOLS[round_ % len(SYMBOLS)], "size": 8},
        )
    places = sorted({x for xs, _ in series.values() for x in xs})
    figure.update_xaxes(title=x_title, type="log", tickvals=places, ticktext=[f"{x:g}" for x in places])
    figure.update_yaxes(title=y_title, rangemode="tozero")
    _plain(figure, 420 + 6 * len(series), ABOVE)  # the legend takes a line for three or four
    # Below the title of the axis, which it would cover with several lines.
    figure.update_layout(legend={"yref": "container", "y": 0, "yanchor": "bottom"}, xaxis={"title": {"standoff": 8}})
    return figure
