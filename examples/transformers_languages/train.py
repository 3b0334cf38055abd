"""Train a transformer to tell in which language a text is, measure it, and write it as a folder that Evenkeel serves.

    pip install 'torch>=2.13,<2.14' 'transformers>=5.23,<5.24' 'django>=5.2'
    python examples/transformers_languages/train.py --out out/transformers_languages

Real sentences: what the web framework Django (BSD licence) says to its users in eight languages, as its translators
wrote it. Every tenth message is held out in all of the languages, so that no translation of what is asked was seen. The
tokenizer learns its pieces of words from the rest, and a small ModernBERT is trained from scratch. It prints the
accuracy on the held-out sentences; below 0.9 nothing is written. In the folder are then:

    languages/       model and tokenizer, by save_pretrained: `text` BYTES [-1] to `label` BYTES [-1], `probabilities`
                     and `logits` FP32 [-1, 8]
    request.json     one held-out sentence of each language, as one Open Inference Protocol request
    expected.json    what transformers answers to it, and the true labels

`evenkeel check out/transformers_languages/languages` says what the runtime would do with it, and prints the sha256 that
spec.model.sha256 takes. To deploy it, put the folder on the volume behind the claim `models`, then:

    kubectl apply -f examples/transformers_languages/modeldeployment.yaml
    kubectl port-forward svc/transformers-languages 8080:80 &
    curl -H 'Content-Type: application/json' -d @out/transformers_languages/request.json \
      localhost:8080/v2/models/transformers-languages/infer
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
import torch
from transformers import ModernBertConfig, ModernBertForSequenceClassification

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, only this folder is on the path

from examples.transformers_languages.pieces import tokenizer

LANGUAGES = ("de", "en", "es", "fr", "it", "nl", "pl", "sv")
WORDS, TOKENS = 1000, 48
ACCURACY_FLOOR = 0.9
EPOCHS = 4
BATCH = 32
_ENTRY = re.compile(r'^msgid ((?:"(?:[^"\\]|\\.)*"\n)+)msgstr ((?:"(?:[^"\\]|\\.)*"\n)+)', re.MULTILINE)
_PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%[sd]|\{\w*\}|&\w+;|<[^>]*>")


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    language: int


@dataclass(frozen=True, slots=True)
class Split:
    train: list[Sentence]
    heldout: list[Sentence]


def load() -> Split:
    """Return the sentences in the order of their English, the same every time."""
    found: dict[str, dict[int, str]] = {}
    for number, language in enumerate(LANGUAGES):
        for path in sorted(Path(django.__file__).parent.glob(f"**/locale/{language}/LC_MESSAGES/*.po")):
            for english, translated in _messages(path):
                found.setdefault(english, {})[number] = english if language == "en" else translated
    train: list[Sentence] = []
    heldout: list[Sentence] = []
    for number, english in enumerate(sorted(found)):
        told = {text: language for language, text in sorted(found[english].items())}
        into = heldout if number % 10 == 0 else train
        into += [Sentence(text, language) for text, language in told.items()]
    asked = {sentence.text for sentence in heldout}  # two messages may have one translation
    return Split([sentence for sentence in train if sentence.text not in asked], heldout)


def _messages(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what is long enough to be of a language, without what a program puts in."""
    for key, value in _ENTRY.findall(path.read_text(encoding="utf-8")):
        english, translated = (_PLACEHOLDER.sub("", ast.literal_eval(f"({text})")).strip() for text in (key, value))
        if len(english) >= 12 and (len(translated) >= 12 or "/en/" in path.as_posix()):
            yield english, translated


def fit(split: Split, words: Any) -> Any:
    """Return the model in eval mode, trained from scratch with AdamW and a one-cycle schedule."""
    torch.manual_seed(0)
    model = ModernBertForSequenceClassification(
        ModernBertConfig(
            vocab_size=WORDS, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
            layer_types=["full_attention"], max_position_embeddings=TOKENS, classifier_pooling="mean",
            pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=None, eos_token_id=None,
            id2label=dict(enumerate(LANGUAGES)), label2id={name: number for number, name in enumerate(LANGUAGES)},
        )
    )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = EPOCHS * -(-len(split.train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=5e-3, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(split.train)), BATCH):
            batch = [split.train[index] for index in chosen.tolist()]
            answer = model(**encoded(words, batch), labels=torch.tensor([sentence.language for sentence in batch]))
            optimiser.zero_grad()
            answer.loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def encoded(words: Any, sentences: list[Sentence]) -> Any:
    return words([sentence.text for sentence in sentences], padding=True, truncation=True, return_tensors="pt")


def accuracy(model: Any, words: Any, sentences: list[Sentence]) -> float:
    with torch.no_grad():
        predicted = model(**encoded(words, sentences)).logits.argmax(1)
    return float((predicted == torch.tensor([sentence.language for sentence in sentences])).float().mean())


def write(model: Any, words: Any, split: Split, out: Path) -> None:
    """Write the model's folder and what belongs to it."""
    model.save_pretrained(out / "languages")
    words.save_pretrained(out / "languages")
    chosen = [max((s for s in split.heldout if s.language == number), key=_length) for number in range(len(LANGUAGES))]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(chosen)], "data": [one.text for one in chosen]}
    (out / "request.json").write_text(json.dumps({"inputs": [tensor]}, ensure_ascii=False) + "\n", encoding="utf-8")
    with torch.no_grad():
        logits = model(**encoded(words, chosen)).logits
    expected = {
        "truth": list(LANGUAGES),
        "label": [LANGUAGES[number] for number in logits.argmax(1).tolist()],
        "logits": logits.tolist(),
    }
    (out / "expected.json").write_text(json.dumps(expected) + "\n")


def _length(sentence: Sentence) -> int:
    return len(sentence.text)


def main(argv: list[str] | None = None) -> None:
    """Train, measure, write; exits with 1 and a sentence where the model is not good enough to be served."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for languages/ and what belongs to it")
    out: Path = parser.parse_args(argv).out
    if out.exists() and not out.is_dir():
        parser.error(f"--out: {out} is a file; name a folder")
    split = load()
    print(f"{len(split.train)} sentences to train on, {len(split.heldout)} held out")
    words = tokenizer((sentence.text for sentence in split.train), WORDS, TOKENS)
    model = fit(split, words)
    found = accuracy(model, words, split.heldout)
    print(f"held out: accuracy {found:.4f}")
    if found < ACCURACY_FLOOR:
        sys.exit(f"accuracy {found:.4f} on held-out sentences is below {ACCURACY_FLOOR}, nothing was written")
    write(model, words, split, out)
    print(f"wrote {out / 'languages'}")


if __name__ == "__main__":
    main()
