"""The whole recipe in one value: sizes, shares of time, seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tools.demo_voice.codec import CodecShape
from tools.demo_voice.codec_stage import CodecRecipe
from tools.demo_voice.judge_stage import JudgeRecipe
from tools.demo_voice.language_model import ModelShape
from tools.demo_voice.model_stage import ModelRecipe
from tools.demo_voice.stages import Budget


@dataclass(frozen=True)
class Recipe:
    """How a demo voice is made. Minutes are minutes of training time on one H200, evaluation not counted."""

    seed: int = 0
    clips: int = 60_000
    held_out: int = 120
    """Sentences a language that nothing is trained on."""
    codec_shape: CodecShape = field(default_factory=CodecShape)
    codec: CodecRecipe = field(default_factory=CodecRecipe)
    codec_budget: Budget = field(default_factory=lambda: Budget(minutes=5.0))
    judge: JudgeRecipe = field(default_factory=JudgeRecipe)
    judge_budget: Budget = field(default_factory=lambda: Budget(minutes=4.0))
    model_shape: ModelShape = field(default_factory=ModelShape)
    model: ModelRecipe = field(default_factory=ModelRecipe)
    model_budget: Budget = field(default_factory=lambda: Budget(minutes=10.5))

    def small(self) -> Recipe:
        """The same with batches that a CPU can bear: to try the steps out, not to make a voice."""
        return replace(
            self,
            codec=replace(self.codec, batch=4, frames=12),
            judge=replace(self.judge, batch=8),
            model=replace(self.model, rows=1024),
        )
