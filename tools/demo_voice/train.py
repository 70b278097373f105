"""From nothing to a demo voice, in pieces: `python -m tools.demo_voice.train --out DIR --minutes 9`.

Stages in order: corpus (recordings), codec, judge, encode (recordings to codes), model; then everything that is there
is exported to DIR/checkpoint and DIR/judge. A piece ends when its minutes are over; the next one goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tools.demo_voice import corpus as corpora
from tools.demo_voice import export, judge, pictures
from tools.demo_voice.codec_stage import CodecStage, encode_corpus
from tools.demo_voice.judge_stage import JudgeStage
from tools.demo_voice.model_stage import ModelStage
from tools.demo_voice.recipe import Recipe
from tools.demo_voice.stages import Budget, Clock, run_stage
from tools.demo_voice.tokenizer import load_tokenizer, write_tokenizer

STAGES = ("corpus", "codec", "judge", "encode", "model")


@dataclass
class Workshop:
    """One training directory and what of it is loaded."""

    directory: Path
    recipe: Recipe
    device: torch.device
    espeak_root: str | None = None
    corpus: corpora.Corpus | None = None

    def make_corpus(self) -> corpora.Corpus:
        """The recordings on disk, made now if they aren't there; returned without their audio."""
        path = self.directory / "corpus"
        if not (path / "clips.json").exists():
            plan = corpora.plan(self.recipe.seed, self.recipe.clips, self.recipe.held_out)
            corpora.build(path, plan, espeak_root=self.espeak_root)
        return corpora.load_texts(path)

    def load_corpus(self) -> corpora.Corpus:
        """The recordings on the device; made first if they aren't there."""
        if self.corpus is None:
            self.make_corpus()
            self.corpus = corpora.load(self.directory / "corpus", self.device)
        return self.corpus

    def codec_stage(self) -> CodecStage:
        """The codec's trainer, untrained."""
        return CodecStage(self.load_corpus(), self.recipe.codec_shape, self.recipe.codec, self.recipe.seed)

    def judge_stage(self) -> JudgeStage:
        """The judge's trainer, untrained."""
        return JudgeStage(self.load_corpus(), self.recipe.judge, self.recipe.seed)

    def model_stage(self) -> ModelStage:
        """The model's trainer, untrained; the codes have to be there."""
        codes = torch.load(self.directory / "codes.pt", map_location=self.device, weights_only=True)
        write_tokenizer(self.directory / "tokenizer")
        tokenizer = load_tokenizer(self.directory / "tokenizer")
        recipe = self.recipe
        # Texts and codes are all it needs: hours of audio can stay on disk.
        corpus = self.corpus or self.make_corpus()
        return ModelStage(corpus, codes, tokenizer, recipe.model_shape, recipe.model, recipe.seed)

    def trained_codec(self) -> Any:
        """The codec as it was exported: what decodes has to be what the codes were made with."""
        from transformers import HiggsAudioV2TokenizerModel

        path = self.directory / "checkpoint" / "audio_tokenizer"
        return HiggsAudioV2TokenizerModel.from_pretrained(path).float().eval().to(self.device)


def run_piece(shop: Workshop, stages: tuple[str, ...], clock: Clock, *, pause_at: int | None = None) -> bool:
    """Work on the stages in order until one is unfinished at the end of the piece; True if all are done."""
    shop.directory.mkdir(parents=True, exist_ok=True)
    recipe = shop.recipe
    for name in stages:
        began = time.monotonic()
        done = _stage(shop, name, recipe, clock, pause_at)
        print(f"{name}: {'done' if done else 'to be continued'}, {time.monotonic() - began:.0f} s", flush=True)
        if not done:
            return False
    return True


def _stage(shop: Workshop, name: str, recipe: Recipe, clock: Clock, pause_at: int | None) -> bool:
    directory = shop.directory
    if name == "corpus":
        corpus = shop.corpus or shop.make_corpus()
        hours = sum(clip.frames for clip in corpus.clips) * corpora.FRAME / corpora.SAMPLE_RATE_HZ / 3600
        print(f"corpus: {len(corpus.clips)} clips, {hours:.1f} hours", flush=True)
        return True
    if name == "codec":
        stage = shop.codec_stage()
        # All its segments have one length; elsewhere every batch would be tuned anew.
        torch.backends.cudnn.benchmark = True
        done = run_stage(stage, directory, recipe.codec_budget, clock, pause_at=pause_at, log=_log)
        torch.backends.cudnn.benchmark = False
        export.export_codec(stage.codec, directory / "checkpoint")
        return done
    if name == "judge":
        judging = shop.judge_stage()
        done = run_stage(judging, directory, recipe.judge_budget, clock, pause_at=pause_at, log=_log)
        judge.save_judge(judging.judge, directory / "judge")
        return done
    if name == "encode":
        if not (directory / "codes.pt").exists():
            codes = encode_corpus(shop.trained_codec(), shop.load_corpus())
            torch.save(codes.cpu(), directory / "codes.pt")
            used = [int(book.long().unique().numel()) for book in codes]
            print(f"encode: of 1024 codes used in each codebook: {used}", flush=True)
        return True
    if name == "model":
        modelling = shop.model_stage()
        done = run_stage(modelling, directory, recipe.model_budget, clock, pause_at=pause_at, log=_log)
        export.export_model(modelling.averaged(), directory / "checkpoint")
        export.export_sentences((shop.corpus or shop.make_corpus()).clips, directory / "checkpoint")
        return done
    raise ValueError(f"unknown stage {name!r}: choose from {', '.join(STAGES)}")


def _log(line: str) -> None:
    print(line, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_voice.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="training directory")
    parser.add_argument("--minutes", type=float, default=math.inf, help="length of this piece (default: to the end)")
    parser.add_argument("--stages", default=",".join(STAGES), help="comma-separated, in order (default: all)")
    parser.add_argument("--espeak", help="folder with espeak-ng's packages unpacked (default: the installed one)")
    parser.add_argument("--clips", type=int, default=Recipe.clips, help="training recordings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="small batches: try the steps out on a CPU")
    for name in ("codec", "judge", "model"):
        parser.add_argument(f"--{name}-minutes", type=float, help=f"whole budget of stage {name}, over all pieces")
    options = parser.parse_args(arguments)
    clock = Clock(options.minutes)
    recipe = replace(Recipe(seed=options.seed), clips=options.clips)
    for name in ("codec", "judge", "model"):
        minutes = getattr(options, f"{name}_minutes")
        if minutes is not None:
            recipe = replace(recipe, **{f"{name}_budget": Budget(minutes=minutes)})
    recipe = recipe.small() if options.small else recipe
    shop = Workshop(options.out, recipe, torch.device(options.device), options.espeak)
    done = run_piece(shop, tuple(options.stages.split(",")), clock)
    pictures.curves([options.out / f"{name}.curve.jsonl" for name in STAGES], options.out / "curves.png")
    print(json.dumps({"done": done, "stages": options.stages}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
