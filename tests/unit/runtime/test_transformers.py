"""Does a folder of transformers answer as the library does, whatever else is in the batch, and ask no hub?"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evenkeel_runtime.config import Model
from evenkeel_runtime.contract import BF16, Tensor
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models.loaded import BadInput
from evenkeel_runtime.models.recognised import recognised_folder
from evenkeel_runtime.models.transformers import imported
from evenkeel_runtime.serve.prediction import prediction_of
from tests.unit.runtime.pretrained_folders import (
    LABELS,
    MOST,
    WIDTH,
    Files,
    changed,
    descriptions,
    image_model,
    processor,
    quiet,
    saved,
    text_model,
    texts,
    tokenizer,
)
from tests.unit.runtime.statedicts import bundle

ANYTHING = Model("Auto", "", False)
LINES = (*descriptions()[:5], "a", "", "wine " * 500, "größer 水 🙂 \x00")
"""Texts of any length: of one token, of none, and of more than the model takes."""


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert")
    saved(path, text_model(), tokenizer())
    return path


@pytest.fixture(scope="module")
def files(folder: Path) -> Files:
    return saved(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return the folder of a model that answers embeddings."""
    return saved(tmp_path_factory.mktemp("encoder"), text_model("distilbert", "Model"), tokenizer())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return saved(tmp_path_factory.mktemp("vit"), image_model(), processor("vit"))


def loaded(files: Files) -> Any:
    found = recognised_folder(bundle(files), ANYTHING)
    assert found.name == "Transformers"
    seen = found.signature()
    result = found.load("cpu")
    assert result.signature == seen
    return result


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def encoded(lines: tuple[str, ...]) -> Any:
    return tokenizer()(list(lines), padding=True, truncation=True, return_tensors="pt")


def test_texts_of_any_length_in_one_call_answer_as_the_library_does(folder: Path, files: Files) -> None:
    result = loaded(files)
    assert result.signature.inputs == (Tensor("text", "BYTES", (-1,)),)
    assert result.signature.outputs == (
        Tensor("label", "BYTES", (-1,)),
        Tensor("probabilities", "FP32", (-1, 3)),
        Tensor("logits", "FP32", (-1, 3)),
    )
    with quiet():
        model = imported().AutoModelForSequenceClassification.from_pretrained(folder)
        ids = imported().AutoTokenizer.from_pretrained(folder)(
            list(LINES), padding=True, truncation=True, return_tensors="pt"
        )
    want = model.eval()(**ids).logits
    label, probabilities, logits = result.call(texts(*LINES))
    close(logits, want)
    close(probabilities, want.softmax(1))
    assert label.tolist() == [LABELS[index].encode() for index in want.argmax(1).tolist()]
    assert len(set(label.tolist())) > 1


def test_a_text_is_answered_the_same_alone(files: Files) -> None:
    result = loaded(files)
    together = result.call(texts(*LINES * 9))[2]
    close(together[: len(LINES)], torch.cat([result.call(texts(line))[2] for line in LINES]))
    close(together[-len(LINES) :], together[: len(LINES)])


def test_a_long_text_is_cut_where_the_library_cuts_it(files: Files) -> None:
    whole = " ".join(descriptions())
    lines = (whole, whole * 20, " " * 5_000 + "wine")
    close(loaded(files).call(texts(*lines))[2], text_model()(**encoded(lines)).logits)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(b"caf\xe9", r"text\[1\] is not UTF-8", id="latin-1"),
        pytest.param(b"a" * ((1 << 20) + 1), r"text\[1\] has 1048577 characters", id="a megabyte and more"),
    ],
)
def test_text_that_is_none_is_the_clients_fault(files: Files, line: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        loaded(files).call(texts("a", line))


def test_metadata_say_what_is_taken_and_answered(files: Files) -> None:
    result = loaded(files)
    got = {key: result.parameters[key] for key in ("task", "model_type", "architecture", "max_tokens", "classes")}
    assert got == {
        "task": "classification",
        "model_type": "bert",
        "architecture": "BertForSequenceClassification",
        "max_tokens": MOST,
        "classes": list(LABELS),
    }
    assert result.signature.classes == LABELS


def test_receipts_name_the_class_and_how_sure_it_is(files: Files) -> None:
    result = loaded(files)
    found = prediction_of(result.signature, result.parameters)
    assert found is not None
    assert found.names == LABELS
    answer = [value if isinstance(value, np.ndarray) else value.numpy() for value in result.call(texts(*LINES))]
    classes, confidences = found.many(answer)
    assert classes == answer[2].argmax(1).tolist()
    np.testing.assert_allclose(np.array(confidences) / 65535, answer[1].max(1), atol=1e-4)


def test_classes_without_names_are_called_as_the_library_calls_them(tmp_path: Path) -> None:
    files = saved(tmp_path, text_model(id2label={0: "LABEL_0", 1: "LABEL_1"}, label2id=None), tokenizer())
    assert "id2label" not in json.loads(files["config.json"])
    assert loaded(files).signature.classes == ("LABEL_0", "LABEL_1")


def test_a_single_class_is_a_number(tmp_path: Path) -> None:
    model = text_model(id2label={0: "stars"}, label2id={"stars": 0})
    result = loaded(saved(tmp_path, model, tokenizer()))
    assert result.signature.outputs == (Tensor("prediction", "FP32", (-1,)),)
    close(result.call(texts(*LINES))[0], model(**encoded(LINES)).logits[:, 0])


def test_several_labels_per_row_are_probabilities_of_their_own(tmp_path: Path) -> None:
    model = text_model(problem_type="multi_label_classification")
    result = loaded(saved(tmp_path, model, tokenizer()))
    assert [tensor.name for tensor in result.signature.outputs] == ["probabilities", "logits"]
    close(result.call(texts(*LINES))[0], model(**encoded(LINES)).logits.sigmoid())
    assert prediction_of(result.signature, result.parameters) is None


def sentences(pooling: dict[str, Any], *kinds: str) -> Files:
    steps = [{"idx": index, "type": f"sentence_transformers.models.{kind}"} for index, kind in enumerate(kinds)]
    steps[1] |= {"path": "1_Pooling"}
    return {"modules.json": json.dumps(steps).encode(), "1_Pooling/config.json": json.dumps(pooling).encode()}


@pytest.mark.parametrize(
    ("more", "word", "is_of_length_one"),
    [
        pytest.param({}, "mean", False, id="a bare encoder"),
        pytest.param(
            sentences({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "Transformer", "Pooling"),
            *("cls", False),
            id="the first token's",
        ),
        pytest.param(
            sentences({"pooling_mode": "max"}, "Transformer", "Pooling"), "max", False, id="the largest of all tokens'"
        ),
        pytest.param(
            sentences({"pooling_mode_mean_tokens": True}, "Transformer", "Pooling", "Normalize"),
            *("mean", True),
            id="of length one",
        ),
    ],
)
def test_embeddings_are_pooled_as_the_folder_says(
    encoder: Files, more: Files, word: str, is_of_length_one: bool
) -> None:
    result = loaded(encoder | more)
    assert result.signature.outputs == (Tensor("embedding", "FP32", (-1, WIDTH)),)
    assert result.parameters["pooling"] == word
    model, want = text_model("distilbert", "Model"), []
    for line in LINES:
        ids = encoded((line,))
        vectors = model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).last_hidden_state[0]
        one = {"mean": vectors.mean(0), "cls": vectors[0], "max": vectors.amax(0)}[word]
        want.append(one / one.norm() if is_of_length_one else one)
    close(result.call(texts(*LINES))[0], torch.stack(want))


def test_a_limit_of_sentence_transformers_holds(encoder: Files) -> None:
    files = encoder | {"sentence_bert_config.json": b'{"max_seq_length": 7, "do_lower_case": false}'}
    result = loaded(files)
    assert result.parameters["max_tokens"] == 7
    close(result.call(texts("wine " * 5))[0], result.call(texts("wine " * 50))[0])


def test_an_encoder_without_its_pooler_is_an_encoder(tmp_path: Path) -> None:
    library = imported()
    model = library.BertModel(text_model("bert", "Model").config, add_pooling_layer=False).eval()
    result = loaded(saved(tmp_path, model, tokenizer()))
    ids = encoded(("wine",))
    close(result.call(texts("wine"))[0], model(**ids).last_hidden_state.mean(1))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (7, 90), (300, 1)])
def test_pictures_of_any_size_answer_as_the_library_does(pictures: Files, height: int, width: int) -> None:
    result = loaded(pictures)
    assert result.signature.inputs == (Tensor("image", "UINT8", (-1, -1, -1, 3)),)
    assert result.signature.classes == LABELS
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    want = image_model()(**processor("vit")(list(images), return_tensors="pt", input_data_format="channels_last"))
    close(result.call(torch.from_numpy(images))[2], want.logits)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        pytest.param((1, 0, 4, 3), "no pixels", id="nothing"),
        pytest.param((1, 1, 40_000, 3), "too long and narrow", id="a line"),
    ],
)
def test_picture_that_is_none_is_the_clients_fault(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    result = loaded(saved(tmp_path, image_model("convnext"), processor("convnext")))
    with pytest.raises(BadInput, match=words):
        result.call(torch.zeros(shape, dtype=torch.uint8))


def test_weights_are_the_memory_that_was_read(files: Files) -> None:
    held = bundle(files)
    view = held.files["model.safetensors"].view
    assert view is not None
    first = torch.frombuffer(view, dtype=torch.uint8).data_ptr()
    model: Any = None
    library = imported()
    make = library.BertForSequenceClassification.from_pretrained

    def made(*args: Any, **more: Any) -> Any:
        nonlocal model
        model, told = make(*args, **more)
        return model, told

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library.BertForSequenceClassification, "from_pretrained", made)
        recognised_folder(held, ANYTHING).load("cpu")
    places = [weight.data_ptr() - first for weight in model.parameters()]
    assert places
    assert all(0 <= place < len(view) for place in places)


def test_several_files_and_their_index(tmp_path: Path) -> None:
    model = text_model()
    files = saved(tmp_path, model, tokenizer(), max_shard_size="30KB")
    assert "model.safetensors.index.json" in files
    close(loaded(files).call(texts(*LINES))[2], model(**encoded(LINES)).logits)


def test_half_precision_weights_answer_in_fp32(tmp_path: Path) -> None:
    model = text_model().to(torch.bfloat16)
    result = loaded(saved(tmp_path, model, tokenizer()))
    close(result.call(texts(*LINES))[2], model.float()(**encoded(LINES)).logits)


def test_nothing_is_asked_of_anybody(files: Files, pictures: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for one in (files, pictures, changed(files, "config.json", _name_or_path="google-bert/bert-base-uncased")):
        loaded(one)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        pytest.param(Model("StateDict", "", False), "is Transformers, spec.model.format says StateDict", id="format"),
        pytest.param(Model("Auto", "", False, precision=BF16), "spec.runtime.precision", id="precision"),
    ],
)
def test_what_the_spec_says_and_the_folder_is_not(files: Files, model: Model, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        recognised_folder(bundle(files), model)
