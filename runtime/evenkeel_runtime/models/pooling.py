"""How do the vectors of a text's tokens become the text's? As the folder's sentence-transformers files say, if any.

`modules.json` lists the steps behind the encoder: a pooling with a configuration of its own, and whether the result is
brought to length 1. Without it, the mean over the text's tokens is taken, as sentence-transformers itself does for a
bare encoder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.failure import refused
from evenkeel_runtime.models.bundle import Bundle

if TYPE_CHECKING:
    import torch

MODULES = "modules.json"
_POOLING, _LENGTH = "Pooling", "Normalize"
_WORDS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max"}
_WAY_OUT = "leave the step out, or export the whole with torch.export.save"


@dataclass(frozen=True, slots=True)
class Pooling:
    """`word` is cls, mean or max; `to_length_one` says that vectors are divided by their length."""

    word: str
    to_length_one: bool = False

    def of(self, vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return [texts, width] of [texts, tokens, width], over the tokens whose mask is 1."""
        import torch

        if self.word == "cls":
            found = vectors[:, 0]
        elif self.word == "max":
            found = vectors.masked_fill(mask[:, :, None] == 0, -torch.inf).amax(1)
        else:
            seen = mask[:, :, None].to(vectors.dtype)
            found = (vectors * seen).sum(1) / seen.sum(1).clamp(min=1.0)
        return torch.nn.functional.normalize(found, dim=1) if self.to_length_one else found


MEAN = Pooling("mean")


def read(bundle: Bundle) -> Pooling:
    """Return how this folder pools, or refuse a step that is none of the known ones."""
    if MODULES not in bundle.files:
        return MEAN
    steps = _steps(bundle)
    kinds = [str(step.get("type", "")).rpartition(".")[2] for step in steps]
    if kinds not in (["Transformer"], ["Transformer", _POOLING], ["Transformer", _POOLING, _LENGTH]):
        raise refused(
            f"{MODULES}: the steps are {', '.join(kinds)[:200]}; served are Transformer, {_POOLING} and {_LENGTH}, in "
            f"this order: {_WAY_OUT}"
        )
    if len(steps) == 1:
        return MEAN
    return Pooling(_word(bundle, f"{steps[1].get('path')}/config.json"), to_length_one=len(steps) > 2)


def _steps(bundle: Bundle) -> list[dict[str, Any]]:
    try:
        found = json.loads(bundle.text(MODULES))
    except (ValueError, RecursionError) as error:
        raise refused(f"{MODULES} is no JSON ({str(error)[:120]}); save the model again") from error
    if not isinstance(found, list) or not all(isinstance(step, dict) for step in found):
        raise refused(f"{MODULES} is no list of steps, as sentence-transformers writes it; save the model again")
    return found


def _word(bundle: Bundle, name: str) -> str:
    told = bundle.json(name)
    asked = [key for key, value in told.items() if key.startswith("pooling_mode_") and value is True]
    words = [_WORDS.get(key, key) for key in asked]
    if not asked and isinstance(told.get("pooling_mode"), str):
        words = [told["pooling_mode"]]
    if len(words) != 1 or words[0] not in _WORDS.values():
        raise refused(f"{name}: the pooling is {', '.join(words)[:200] or 'none'}; served are cls, mean and max")
    return words[0]
