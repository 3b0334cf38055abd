"""Train a transformer that puts sentences of one subject near each other, measure it, and write it for Evenkeel.

    pip install 'torch>=2.13,<2.14' 'transformers>=5.23,<5.24'
    python examples/transformers_docstrings/train.py --out out/transformers_docstrings

Real sentences: what Python's standard library says of itself in its docstrings, of eight subjects; every fifth is held
out. The tokenizer learns its pieces of words from the rest, and a small ModernBERT learns from scratch that sentences
of one subject point one way, by the supervised contrastive loss of Khosla et al. (2020), arXiv:2004.11362. It prints
how many of the held-out sentences lie nearest to one of their own subject among those that it has learned from; below
0.6, where chance is 0.2, nothing is written. In the folder are then:

    docstrings/      model and tokenizer, by save_pretrained: `text` BYTES [-1] to `embedding` FP32 [-1, 64], the mean
                     over the tokens
    request.json     one held-out sentence of each subject, as one Open Inference Protocol request
    expected.json    what transformers answers to it, and the subjects

`evenkeel check out/transformers_docstrings/docstrings` says what the runtime would do with it, and prints the sha256
that spec.model.sha256 takes. To deploy it, put the folder on the volume behind the claim `models`, then:

    kubectl apply -f examples/transformers_docstrings/modeldeployment.yaml
    kubectl port-forward svc/transformers-docstrings 8080:80 &
    curl -H 'Content-Type: application/json' -d @out/transformers_docstrings/request.json \
      localhost:8080/v2/models/transformers-docstrings/infer
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import ModernBertConfig, ModernBertModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, only this folder is on the path

from examples.transformers_languages.pieces import tokenizer

SUBJECTS = ("_pydecimal", "asyncio", "email", "http", "importlib", "ipaddress", "logging", "xml")
WORDS, TOKENS = 1500, 48
SCORE_FLOOR = 0.6
EPOCHS = 8
BATCH = 128
TEMPERATURE = 0.1
"""What cosines are divided by: the smaller, the more the hardest pairs count."""


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    subject: int


@dataclass(frozen=True, slots=True)
class Split:
    train: list[Sentence]
    heldout: list[Sentence]


def load() -> Split:
    """Return the sentences in the same order every time; one that several subjects say is left out."""
    library = Path(sysconfig.get_path("stdlib"))
    found: dict[str, set[int]] = {}
    for number, subject in enumerate(SUBJECTS):
        for path in sorted((*library.glob(f"{subject}.py"), *library.glob(f"{subject}/**/*.py"))):
            for text in _sentences(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(text, set()).add(number)
    told = [Sentence(text, *subjects) for text, subjects in sorted(found.items()) if len(subjects) == 1]
    heldout = told[::5]
    return Split([sentence for number, sentence in enumerate(told) if number % 5], heldout)


def _sentences(module: ast.Module) -> Iterator[str]:
    """Yield what is long enough to be of a subject and is no example."""
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                if ">>>" not in paragraph:
                    sentences = re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split()))
                    yield from (text for text in sentences if len(text) >= 30 and text[0].isupper())


def fit(split: Split, words: Any) -> Any:
    """Return the model in eval mode, trained from scratch with AdamW and a one-cycle schedule."""
    torch.manual_seed(0)
    model = ModernBertModel(
        ModernBertConfig(
            vocab_size=WORDS, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
            layer_types=["full_attention"], max_position_embeddings=TOKENS, pad_token_id=0, cls_token_id=2,
            sep_token_id=3, bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = EPOCHS * -(-len(split.train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=5e-3, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(split.train)), BATCH):
            batch = [split.train[index] for index in chosen.tolist()]
            apart = loss(embedded(model, words, batch), torch.tensor([sentence.subject for sentence in batch]))
            optimiser.zero_grad()
            torch.autograd.backward(apart)
            optimiser.step()
            schedule.step()
    return model.eval()


def loss(embeddings: Tensor, subjects: Tensor) -> Tensor:
    """Return how little sentences [n, width] of one subject stand out among the others (equation 2 of the paper)."""
    directions = torch.nn.functional.normalize(embeddings, dim=1)
    itself = torch.eye(len(subjects), dtype=torch.bool)
    likely = (directions @ directions.T / TEMPERATURE).masked_fill(itself, -1e9).log_softmax(1)
    same = (subjects[:, None] == subjects) & ~itself
    return -(likely * same).sum(1).div(same.sum(1).clamp(min=1)).mean()


def embedded(model: Any, words: Any, sentences: list[Sentence]) -> Tensor:
    """Return [n, width]: the mean over the tokens of each sentence."""
    given = words([sentence.text for sentence in sentences], padding=True, truncation=True, return_tensors="pt")
    seen = given["attention_mask"][:, :, None]
    found: Tensor = (model(**given).last_hidden_state * seen).sum(1) / seen.sum(1)
    return found


def score(model: Any, words: Any, split: Split) -> float:
    """Return the share of held-out sentences whose nearest neighbour (cosine) of the others is of their subject."""
    with torch.no_grad():
        known, asked = (
            torch.nn.functional.normalize(embedded(model, words, part), dim=1) for part in (split.train, split.heldout)
        )
    nearest: list[int] = (asked @ known.T).argmax(1).tolist()
    right = [split.train[index].subject == one.subject for index, one in zip(nearest, split.heldout, strict=True)]
    return sum(right) / len(right)


def write(model: Any, words: Any, split: Split, out: Path) -> None:
    """Write the model's folder and what belongs to it."""
    model.save_pretrained(out / "docstrings")
    words.save_pretrained(out / "docstrings")
    chosen = [next(s for s in split.heldout if s.subject == number) for number in range(len(SUBJECTS))]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(chosen)], "data": [one.text for one in chosen]}
    (out / "request.json").write_text(json.dumps({"inputs": [tensor]}) + "\n")
    with torch.no_grad():
        expected = {"truth": list(SUBJECTS), "embedding": embedded(model, words, chosen).tolist()}
    (out / "expected.json").write_text(json.dumps(expected) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Train, measure, write; exits with 1 and a sentence where the model is not good enough to be served."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for docstrings/ and what belongs to it")
    out: Path = parser.parse_args(argv).out
    if out.exists() and not out.is_dir():
        parser.error(f"--out: {out} is a file; name a folder")
    split = load()
    print(f"{len(split.train)} sentences to train on, {len(split.heldout)} held out")
    words = tokenizer((sentence.text for sentence in split.train), WORDS, TOKENS)
    model = fit(split, words)
    found = score(model, words, split)
    print(f"held out: nearest to one of their subject {found:.4f}")
    if found < SCORE_FLOOR:
        sys.exit(
            f"{found:.4f} of held-out sentences are nearest to their subject, below {SCORE_FLOOR}; nothing was written"
        )
    write(model, words, split, out)
    print(f"wrote {out / 'docstrings'}")


if __name__ == "__main__":
    main()
