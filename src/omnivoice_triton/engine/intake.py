"""From a request to a job: whatever could break a step is refused here, in the caller's hands."""

from __future__ import annotations

import weakref

import torch

from omnivoice_triton.engine.layout import row_count
from omnivoice_triton.engine.noise import TorchDraws
from omnivoice_triton.engine.prompt import Prompt
from omnivoice_triton.engine.request import Request
from omnivoice_triton.engine.schedule import working_counts
from omnivoice_triton.engine.scheduler import Job
from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.speech import InputError


class Intake:
    """Checks requests and makes jobs of them.

    Args:
        shape: of the model.
        text_vocab: ids of its text embedding.
        max_rows: packed rows that the engine holds.
    """

    def __init__(self, shape: BackboneShape, text_vocab: int, max_rows: int) -> None:
        self._shape = shape
        self._text_vocab = text_vocab
        self._max_rows = max_rows
        self._checked: dict[int, tuple[weakref.ref[torch.Tensor], int | None]] = {}

    def job(self, request: Request, draws: TorchDraws | None, *, most_rows: int | None = None) -> Job:
        """A job that no step can break on.

        Args:
            request: to be decoded.
            draws: its noise, unless it comes from Philox.
            most_rows: packed rows that it may take, if not what the engine holds.

        Raises:
            InputError: the request can't be decoded, or takes too many rows.
        """
        prompt, options = request.prompt, request.options
        if len(prompt.text_ids) and not 0 <= prompt.text_ids.min() <= prompt.text_ids.max() < self._text_vocab:
            raise InputError(f"text ids must be 0 to {self._text_vocab - 1}")
        self._check_reference(prompt)
        rows = row_count(prompt.rows, prompt.frames, options.guided)
        limit = self._max_rows if most_rows is None else most_rows
        if rows > limit:
            raise InputError(
                f"this request takes {rows} rows (prompt {prompt.rows}, {prompt.frames} frames"
                f"{', guided' if options.guided else ''}), but the engine holds {limit}: "
                f"give a shorter text or reference{', or raise max_rows' if most_rows is None else ''}"
            )
        counts = working_counts(prompt.frames, self._shape.codebooks, options.num_step, options.t_shift)
        return Job(request, rows, counts, draws)

    def trust(self, codes: torch.Tensor) -> None:
        """Take these codes as a reference unseen, for as long as they live and nobody writes to them."""
        key = id(codes)
        self._checked[key] = weakref.ref(codes, lambda _: self._checked.pop(key, None)), _version(codes)

    def _check_reference(self, prompt: Prompt) -> None:
        """Refuse codes outside the codebooks: on a GPU they would be read from foreign memory.

        A reference on the GPU has to be waited for, so each tensor is checked once.
        """
        reference = prompt.reference
        if reference is None:
            return
        known = self._checked.get(id(reference))
        if known is not None and known[0]() is reference and known[1] == _version(reference):
            return
        codebooks, mask_id = self._shape.codebooks, self._shape.mask_id
        if reference.shape[0] != codebooks:
            raise InputError(f"reference has {reference.shape[0]} codebooks, wanted {codebooks}")
        # The mask id itself has an embedding, and a chunk may end before every cell is decided.
        if reference.numel() and not 0 <= int(reference.min()) <= int(reference.max()) <= mask_id:
            raise InputError(f"reference codes must be 0 to {mask_id - 1}")
        if reference.device.type != "cpu":
            self.trust(reference)


def _version(codes: torch.Tensor) -> int | None:
    """How often it was written to; inference tensors don't count."""
    return None if codes.is_inference() else codes._version
