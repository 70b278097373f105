"""PNG pictures: loss curves, and spectrograms of espeak-ng and the demo voice one above the other."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

_COLOURS = ("#1f5fbf", "#c7451f", "#2b8a3e", "#8246af", "#8a6d00")
_MARGIN = 46


def curves(files: Sequence[Path], path: Path, width: int = 900, height: int = 260) -> None:
    """One panel a stage: its values over steps, on a logarithmic scale."""
    files = [file for file in files if file.exists() and file.stat().st_size]
    if not files:
        return
    image = Image.new("RGB", (width, height * len(files)), "white")
    draw = ImageDraw.Draw(image)
    for panel, file in enumerate(files):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        names = [name for name in rows[0] if name != "step"]
        values = np.array([[max(row[name], 1e-4) for name in names] for row in rows])
        low, high = math.log(values.min()), math.log(values.max() * 1.01)
        steps = np.array([row["step"] for row in rows])
        top, bottom = panel * height + 28, (panel + 1) * height - 30

        def place(step: float, value: float, span: tuple[float, ...] = (steps[-1], low, high, top, bottom)) -> tuple:
            last, least, most, upper, lower = span
            x = _MARGIN + (width - 2 * _MARGIN) * step / max(last, 1)
            return x, lower - (lower - upper) * (math.log(value) - least) / max(most - least, 1e-6)

        draw.rectangle((_MARGIN, top, width - _MARGIN, bottom), outline="#bbbbbb")
        draw.text((_MARGIN, top - 22), f"{file.name.split('.')[0]}: {steps[-1] + 1} steps", fill="black")
        draw.text((4, top - 5), f"{math.exp(high):.3g}", fill="black")
        draw.text((4, bottom - 8), f"{math.exp(low):.3g}", fill="black")
        for column, name in enumerate(names):
            colour = _COLOURS[column % len(_COLOURS)]
            points = [place(step, value) for step, value in zip(steps, values[:, column], strict=True)]
            if len(points) > 1:
                draw.line(points, fill=colour, width=2)
            draw.text((_MARGIN + 130 * column, bottom + 8), f"{name} {values[-1, column]:.3g}", fill=colour)
    image.save(path)


def spectrograms(rows: Sequence[tuple[str, np.ndarray]], path: Path, height: int = 160) -> None:
    """Spectrograms up to 8 kHz of clips at 24 kHz, one above the other, each with its title."""
    pictures = []
    for title, wave in rows:
        x = torch.as_tensor(np.asarray(wave, np.float32))
        spectrum = torch.stft(x, 1024, 240, window=torch.hann_window(1024), return_complex=True).abs()
        decibels = 20 * torch.log10(spectrum[: 1024 * 8 // 24] / spectrum.max().clamp(min=1e-6) + 1e-4)
        grey = (255 * (-decibels / 80).clamp(0, 1)).byte().flip(0).numpy()
        picture = Image.fromarray(grey).resize((grey.shape[1] * 2, height))
        pictures.append((title, picture))
    width = max(picture.width for _, picture in pictures) + 8
    image = Image.new("RGB", (width, (height + 20) * len(pictures)), "white")
    draw = ImageDraw.Draw(image)
    for number, (title, picture) in enumerate(pictures):
        draw.text((4, number * (height + 20) + 4), title.encode("ascii", "replace").decode(), fill="black")
        image.paste(picture, (4, number * (height + 20) + 18))
    image.save(path)
