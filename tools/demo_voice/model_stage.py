"""Stage "model": the language model learns the codes of the recordings from their texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tools.demo_voice import language_model as lm
from tools.demo_voice.batches import Epoch, PromptRecipe, Prompts, assemble
from tools.demo_voice.corpus import Corpus
from tools.demo_voice.stages import generator, learning_rate, step_seed


@dataclass(frozen=True)
class Lesson:
    """What is taught until this share of the budget is used."""

    until: float
    longest: int | None = None
    """Clips of at most so many frames; None for all."""
    references: bool = True
    share: float = 1.0
    """Of the rows of a batch."""


@dataclass(frozen=True)
class ModelRecipe:
    """How the model is trained."""

    rows: int = 32_768
    """Positions in a batch, padding included: about 230 samples."""
    peak_rate: float = 1.5e-3
    warmup: int = 400
    weight_decay: float = 0.01
    average: float = 0.999
    """Decay of the averaged weights, which are the ones exported."""
    prompts: PromptRecipe = field(default_factory=PromptRecipe)
    curriculum: tuple[Lesson, ...] = (
        Lesson(0.06, 56, references=False, share=0.5),
        Lesson(0.12, 80, references=False, share=0.5),
        Lesson(0.45, share=0.5),
    )
    """Short sentences teach which sound follows which; many small steps find it sooner than few large ones."""


class ModelStage:
    """Trains a language model on the codes of a corpus.

    Args:
        codes: (8, all frames) of the corpus, on its device.
    """

    name = "model"

    def __init__(
        self,
        corpus: Corpus,
        codes: torch.Tensor,
        tokenizer: Any,
        shape: lm.ModelShape,
        recipe: ModelRecipe,
        seed: int,
    ) -> None:
        self.clips, self.codes, self.recipe, self.seed = corpus.clips, codes, recipe, seed
        self.device = codes.device
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.frames = np.array([clip.frames for clip in corpus.clips])
        self.starts = corpus.starts
        self.members = corpus.indices(held_out=False)
        self.prompts = Prompts(corpus.clips, tokenizer, self.device)
        self.model: Any = lm.new_model(shape, tokenizer, seed).to(self.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        matrices = [p for p in self.parameters if p.dim() > 1]
        vectors = [p for p in self.parameters if p.dim() <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=recipe.peak_rate,
            betas=(0.9, 0.98),
            fused=self.device.type == "cuda",
        )
        self.epoch, self.position, self.lesson = 0, 0, 0
        self._plan: Epoch | None = None

    def step(self, number: int, progress: float) -> dict[str, torch.Tensor]:
        """One optimizer step."""
        if self._plan is None:
            self._plan = self._epoch()
        if self.position >= len(self._plan.batches):
            self.epoch, self.position = self.epoch + 1, 0
            self.lesson = sum(progress >= lesson.until for lesson in self.recipe.curriculum)
            self._plan = self._epoch()
        members = self._plan.batches[self.position]
        self.position += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.peak_rate * learning_rate(progress, number, self.recipe.warmup)
        batch = assemble(
            self.prompts,
            self.frames,
            self.starts,
            self.codes,
            self._plan.samples,
            members,
            self.recipe.prompts,
            generator(self.device, step_seed(self.seed, self.name, number)),
        )
        means = lm.loss(self.model, batch, self.dtype)
        loss = lm.weighted(self.model, means)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            decay = min(self.recipe.average, (number + 1) / (number + 10))
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        return {"loss": loss, "codebook 0": means[0], "codebook 1": means[1], "codebook 7": means[7]}

    def averaged(self) -> Any:
        """The model with averaged weights; training can't go on with it."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.average, strict=True):
                parameter.copy_(value)
        return self.model.eval()

    def state(self) -> dict[str, Any]:
        """Weights, averages, optimizer and the place in the epoch."""
        return {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "position": self.position,
            "lesson": self.lesson,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self.model.load_state_dict(state["model"])
        with torch.no_grad():
            for value, saved in zip(self.average, state["average"], strict=True):
                value.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.position, self.lesson = state["epoch"], state["position"], state["lesson"]
        self._plan = None

    def _epoch(self) -> Epoch:
        lessons = self.recipe.curriculum
        lesson = lessons[self.lesson] if self.lesson < len(lessons) else Lesson(1.0)
        return Epoch(
            self.clips,
            self.members,
            self.prompts,
            self.recipe.prompts,
            step_seed(self.seed, "epoch", self.epoch),
            round(self.recipe.rows * lesson.share),
            longest=lesson.longest,
            references=lesson.references,
        )
