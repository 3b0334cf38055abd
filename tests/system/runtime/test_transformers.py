"""Does every model of transformers that is served answer as the library does, and say what is wrong with a request?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evenkeel_runtime import receipts
from evenkeel_runtime.config import Model
from evenkeel_runtime.contract import Prepared
from evenkeel_runtime.models.pretrained import IMAGES, TEXTS
from evenkeel_runtime.models.recognised import recognised_folder
from evenkeel_runtime.models.transformers import imported
from tests.system.feedback.server import Deployment, Service
from tests.system.runtime.replica import Answer, Replica
from tests.system.runtime.test_commands import run
from tests.system.runtime.ways import WAYS, Named
from tests.unit.runtime.pretrained_folders import (
    LABELS,
    WIDTH,
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

LINES = (*descriptions()[:5], "a", "", "wine " * 500)


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


def loaded(files: dict[str, bytes]) -> Any:
    return recognised_folder(bundle(files), Model("Auto", "", False)).load("cpu")


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", ["ForSequenceClassification", "Model"])
@pytest.mark.parametrize("model_type", TEXTS)
def test_texts_answer_as_the_library_does(model_type: str, head: str, tmp_path: Path) -> None:
    result = loaded(saved(tmp_path, text_model(model_type, head), tokenizer()))
    kind = imported().AutoModel if head == "Model" else imported().AutoModelForSequenceClassification
    with quiet():
        model = kind.from_pretrained(tmp_path).eval()
        words = imported().AutoTokenizer.from_pretrained(tmp_path)
        given = words(list(LINES), padding=True, truncation=True, return_tensors="pt")
        answer = model(**given)
    if head == "Model":
        seen = given["attention_mask"][:, :, None].float()
        want = (answer.last_hidden_state * seen).sum(1) / seen.sum(1)
    else:
        want = answer.logits
    close(result.call(texts(*LINES))[-1], want)
    close(torch.cat([result.call(texts(line))[-1] for line in LINES]), want)


@pytest.mark.parametrize("head", ["ForImageClassification", "Model"])
@pytest.mark.parametrize("model_type", IMAGES)
def test_pictures_answer_as_the_library_does(model_type: str, head: str, tmp_path: Path) -> None:
    result = loaded(saved(tmp_path, image_model(model_type, head), processor(model_type)))
    kind = imported().AutoModel if head == "Model" else imported().AutoModelForImageClassification
    images = pictures(50, 70)
    with quiet():
        model = kind.from_pretrained(tmp_path).eval()
        answer = model(**imported().AutoImageProcessor.from_pretrained(tmp_path)(list(images), return_tensors="pt"))
    want = answer.pooler_output.flatten(1) if head == "Model" else answer.logits
    close(result.call(torch.from_numpy(images))[-1], want)


def pictures(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers")
    saved(folder / "claim" / "text", text_model(), tokenizer())
    saved(folder / "claim" / "encoder", text_model("distilbert", "Model"), tokenizer())
    saved(folder / "claim" / "image", image_model(), processor("vit"))
    return folder


@pytest.fixture(scope="module")
def model() -> Deployment:
    return Deployment(classes=len(LABELS))


@pytest.fixture(scope="module")
def replica(home: Path, model: Deployment, service: Service) -> Iterator[Replica]:
    """A classifier of texts that gives receipts, shared by the module's tests."""
    found = Replica(home / "claim" / "text", home / "termination", model.told(home / "key", service.url))
    try:
        found.await_ready()
        yield found
    finally:
        found.kill()


def asked(replica: Replica, *lines: str) -> Answer:
    return replica.infer(
        {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(lines)], "data": list(lines)}]}
    )


def test_prepare_describes_the_folder(home: Path) -> None:
    status, found, log = run("prepare", home, {"EVENKEEL_MODEL_URI": "pvc://c/text"})
    assert status == 0, log
    assert isinstance(found, Prepared)
    assert (found.format, found.file) == ("Transformers", "text/")
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in (*found.inputs, *found.outputs)] == [
        ("text", "BYTES", (-1,)),
        ("label", "BYTES", (-1,)),
        ("probabilities", "FP32", (-1, 3)),
        ("logits", "FP32", (-1, 3)),
    ]


def test_receipts_hold_the_class_and_its_probability(replica: Replica, model: Deployment) -> None:
    answer = asked(replica, *LINES)
    text = answer.headers[receipts.HEADER]
    got = receipts.opened(text, lambda key_id, subject: model.key if subject == model.subject else None)
    label, probabilities, _ = answer.json["outputs"]
    shares = np.reshape(probabilities["data"], (len(LINES), len(LABELS)))
    for row, name in enumerate(label["data"]):
        class_, confidence = got.predicted(row)
        assert LABELS[class_] == name
        assert confidence == pytest.approx(shares[row].max(), abs=1e-4)


def test_a_text_that_is_none_is_answered_with_400(replica: Replica) -> None:
    raw = b"\x04\x00\x00\x00caf\xe9"
    entry = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
    answer = replica.infer_binary({"inputs": [entry]}, raw)
    assert answer.status == 400
    assert "inputs: text[0] is not UTF-8" in answer.json["error"]
    assert asked(replica, "wine").status == 200


def test_ids_in_place_of_texts_are_told_what_is_taken(replica: Replica) -> None:
    entry = {"name": "input_ids", "datatype": "INT64", "shape": [1, 3], "data": [2, 9, 3]}
    answer = replica.infer({"inputs": [entry]})
    assert answer.status == 400
    assert "the model has no input 'input_ids'; it has text" in answer.json["error"]


def test_metadata_say_how_texts_are_read(replica: Replica) -> None:
    parameters = replica.ask("GET", "/v2/models/m").json["parameters"]
    assert {key: parameters[key] for key in ("task", "max_tokens", "classes")} == {
        "task": "classification",
        "max_tokens": 40,
        "classes": list(LABELS),
    }
    assert parameters["max_batch_size"] > 1


@pytest.mark.parametrize("of", ["encoder", "image"])
def test_every_protocol_carries_pictures_and_embeddings(
    of: str, home: Path, tmp_path: Path, want: Callable[[str], tuple[Named, Named]]
) -> None:
    given, answers = want(of)
    replica = Replica(home / "claim" / of, tmp_path / "termination", {}, speaks_grpc=True)
    try:
        replica.await_ready()
        for way, ask in WAYS.items():
            got = ask(replica, given)
            assert got.keys() >= answers.keys(), way
            for name, values in answers.items():
                np.testing.assert_allclose(got[name], values, atol=1e-5, err_msg=f"{way}: {name}")
    finally:
        replica.kill()


@pytest.fixture
def want() -> Callable[[str], tuple[Named, Named]]:
    """Return what a replica is given, and what the library answers to it."""

    def of(name: str) -> tuple[Named, Named]:
        if name == "image":
            images = pictures(20, 30)
            values = processor("vit")(list(images), return_tensors="pt", input_data_format="channels_last")
            return {"image": images}, {"logits": image_model()(**values).logits.numpy()}
        vectors = []
        for line in LINES[:4]:
            ids = tokenizer()([line], truncation=True, return_tensors="pt")
            vectors.append(text_model("distilbert", "Model")(ids["input_ids"]).last_hidden_state.mean(1))
        embedding = torch.cat(vectors).numpy()
        assert embedding.shape == (4, WIDTH)
        return {"text": texts(*LINES[:4])}, {"embedding": embedding}

    return of
