"""How well a contender agrees with the eager reference: its maps, and its logits under the reference's own prompts.

Reproducible weights are random, so masks say nothing, and they make of a small error in the embedding a large one in
the logits: the decoder is therefore also compared on the reference's embedding, alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.eager.frame import EagerFrame
    from benchmarks.official.contenders import Contender
    from samg_fast.checks import Floats, Frame

__all__ = ["Agreement", "agreement", "cosine"]


@dataclass(frozen=True)
class Agreement:
    """What was compared, one entry per frame or per decode.

    Attributes
    ----------
    embedding, tokens : list of float
        Cosine with the reference's map, of each frame.
    logits : list of float
        Pearson correlation with the reference's logits under its prompts, of each decode of each frame.
    decoder : list of float
        The same where the decoder also gets the reference's embedding.
    """

    embedding: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    logits: list[float] = field(default_factory=list)
    decoder: list[float] = field(default_factory=list)


def agreement(reference: Sequence[tuple[Frame, EagerFrame]], contender: Contender) -> Agreement:
    """Compare a contender with the reference, frame by frame.

    Parameters
    ----------
    reference : sequence of ((H, H, 3) uint8 array, EagerFrame)
        Frames, and what the reference made of them.
    contender : Contender
    """
    found = Agreement()
    for frame, wanted in reference:
        embedding = wanted.embedding.numpy()
        seen = contender.look(frame, wanted.prompts, embedding)
        found.embedding.append(cosine(seen.embedding, embedding))
        found.tokens.append(cosine(seen.tokens, wanted.tokens.numpy()))
        for own, given, decode in zip(seen.logits, seen.given, wanted.decodes, strict=True):
            found.logits.append(_correlation(own, decode.low_res))
            found.decoder.append(_correlation(given, decode.low_res))
    return found


def cosine(one: Floats, other: Floats) -> float:
    """Return the cosine between two maps, each taken as one vector."""
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _correlation(one: Floats, other: Floats) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
