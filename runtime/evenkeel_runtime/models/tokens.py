"""How do texts become the numbers that an encoder takes, several texts of any length in one call?

By the folder's `tokenizer.json` and the library that wrote it, tokenizers: one file, read from memory, that says all
of it and holds no code. A batch is cut into pieces of texts of about the same length: within a piece the shorter ones
are padded and masked, so that a text's answer is the same in any company, and what padding costs is bounded, as is the
memory of a call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.failure import last_line, refused
from evenkeel_runtime.models.bundle import Bundle, Json
from evenkeel_runtime.models.loaded import BadInput
from evenkeel_runtime.models.pretrained import require_no_code_beside

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOKENIZER = "tokenizer.json"
_SETTINGS, _SENTENCES = "tokenizer_config.json", "sentence_bert_config.json"
_FIRST_CHARACTERS = 8
"""Characters per token that are looked at first: what is cut off in the end need not be read."""
_MARGIN = 64
"""Tokens behind the last one that counts, so that where the text was cut changes nothing before it."""
_CHARACTERS = 1 << 20
_PIECE_TOKENS = 8192
_PADDED = 2
_UNSET = 1 << 20
"""transformers writes a number beyond all lengths where a tokenizer has no limit."""
_OFFSET = frozenset({"camembert", "roberta", "xlm-roberta"})
"""Models whose positions begin behind that of the padding; mpnet's does behind 1, whatever its padding is."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Texts of about the same length: `rows` are their places in the batch, the rest is [texts, tokens]."""

    rows: list[int]
    ids: NDArray[Any]
    mask: NDArray[Any]
    types: NDArray[Any]


class Tokens:
    """Texts in, pieces out. `most` is how many tokens a text has at most, the special ones among them."""

    def __init__(self, tokenizer: Any, most: int, padding: int) -> None:
        self._tokenizer = tokenizer
        self.most = most
        self._padding = padding

    def pieces(self, texts: NDArray[Any]) -> Iterator[Piece]:
        """Yield the batch, cut; raises BadInput for a text that is none."""
        found = self._encoded([_text(row, value) for row, value in enumerate(texts.tolist())])
        order = sorted(range(len(found)), key=lambda row: len(found[row].ids))
        rows: list[int] = []
        for row in order:
            length = len(found[row].ids)
            if rows and (
                length * (len(rows) + 1) > _PIECE_TOKENS or length > _PADDED * max(8, len(found[rows[0]].ids))
            ):
                yield self._piece(found, rows)
                rows = []
            rows.append(row)
        if rows:
            yield self._piece(found, rows)

    def _encoded(self, texts: Sequence[str]) -> list[Any]:
        """Return the encodings. Of a long text as much is read as it takes to fill the model, and a little more."""
        found: list[Any] = [None] * len(texts)
        rest, characters = list(range(len(texts))), self.most * _FIRST_CHARACTERS
        while rest:
            with _rust():
                encodings = self._tokenizer.encode_batch([texts[row][:characters] for row in rest])
            short = []
            for row, encoding in zip(rest, encodings, strict=True):
                found[row] = encoding
                if len(texts[row]) > characters and sum(len(more.ids) for more in encoding.overflowing) < _MARGIN:
                    short.append(row)
            rest, characters = short, characters * _FIRST_CHARACTERS
        return found

    def _piece(self, found: Sequence[Any], rows: list[int]) -> Piece:
        import numpy as np

        longest = max(1, max(len(found[row].ids) for row in rows))
        ids = np.full((len(rows), longest), self._padding, np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for place, row in enumerate(rows):
            encoding = found[row]
            count = len(encoding.ids)
            ids[place, :count], mask[place, :count], types[place, :count] = encoding.ids, 1, encoding.type_ids
        return Piece(rows, ids, mask, types)


def read(bundle: Bundle, config: Any) -> Tokens:
    """Return the folder's tokenizer, for a model of this configuration; raises where they do not fit."""
    if TOKENIZER not in bundle.files:
        raise refused(
            f"the folder has no {TOKENIZER}; it holds {bundle.named()}: save the tokenizer beside the model, "
            "AutoTokenizer.from_pretrained(…).save_pretrained(folder)"
        )
    settings = bundle.json_if_there(_SETTINGS)
    require_no_code_beside(_SETTINGS, settings)
    told = bundle.json(TOKENIZER)
    _require_plain_patterns(told)
    tokenizer = _built(bundle.text(TOKENIZER))
    padding = config.pad_token_id
    if type(padding) is not int:
        padding = tokenizer.token_to_id(_content(settings.get("pad_token"))) or 0
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if highest >= config.vocab_size or not 0 <= padding < config.vocab_size:
        raise refused(
            f"{TOKENIZER} has tokens up to {max(highest, padding)}, the model an embedding of {config.vocab_size}; "
            "save the tokenizer that the model was trained with"
        )
    most = _most(bundle, settings, config)
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if most <= special:
        raise refused(f"the model takes {most} tokens, {special} of which are the tokenizer's own; correct config.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)
    return Tokens(tokenizer, most, padding)


def _built(text: bytes) -> Any:
    # its threads would fight for the CPUs with torch's
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tokenizers

    try:
        with _rust():
            return tokenizers.Tokenizer.from_str(text.decode())
    except ValueError as error:
        raise refused(f"tokenizers cannot read {TOKENIZER} ({last_line(error)[:200]}); save it again") from error


def _most(bundle: Bundle, settings: Json, config: Any) -> int:
    """Return the smallest of the limits that the folder names."""
    sentences = bundle.json_if_there(_SENTENCES)
    if sentences.get("do_lower_case"):
        raise refused(f"{_SENTENCES}: do_lower_case is set; let the tokenizer do it, as its normalizer")
    positions = getattr(config, "max_position_embeddings", None)
    if type(positions) is int and config.model_type in _OFFSET:
        positions -= config.pad_token_id + 1 if type(config.pad_token_id) is int else 2
    elif type(positions) is int and config.model_type == "mpnet":
        positions -= 2
    limits = [settings.get("model_max_length"), sentences.get("max_seq_length"), positions]
    sound = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < _UNSET]
    if not sound:
        raise refused(
            f"how long a text may be is said neither by config.json (max_position_embeddings) nor by {_SETTINGS} "
            "(model_max_length); save the tokenizer again with model_max_length"
        )
    return min(sound)


def _content(token: object) -> str:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else ""


def _require_plain_patterns(told: Json) -> None:
    """Raise at a regular expression with groups: some take years to find that a text does not match."""
    rest: list[Any] = [told.get("normalizer"), told.get("pre_tokenizer")]
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            pattern = part.get("Regex")
            if isinstance(pattern, str) and ("(" in pattern or len(pattern) > 64):
                raise refused(
                    f"{TOKENIZER} splits texts by the expression {pattern[:80]!r}, which may take for ever; use one "
                    "without groups, or the ByteLevel or Whitespace of tokenizers"
                )
            rest.extend(part.values())
        elif isinstance(part, list):
            rest.extend(part)


def _text(row: int, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"text[{row}] is not UTF-8: {error.reason} at byte {error.start}") from error
    if len(text) > _CHARACTERS:
        raise BadInput(f"text[{row}] has {len(text)} characters, more than the {_CHARACTERS} that a text may have")
    return text


@contextmanager
def _rust() -> Iterator[None]:
    """Turn what tokenizers raises, Exception itself or a panic that is none of its kinds, into a ValueError."""
    try:
        yield
    except (MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # it raises nothing narrower
        raise ValueError(last_line(error)) from error
