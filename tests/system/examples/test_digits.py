"""Is the network the one that is described, is the split fair, and does the exported file say what was trained?"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from examples.digits import data, evaluate, export, train
from examples.digits.model import Net
from tests.system.examples.recognised import recognised

FOLDER = Path(train.__file__).parent

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits() -> data.Digits:
    return data.load()


@pytest.fixture(scope="module")
def few(digits: data.Digits) -> data.Digits:
    """A few of the digits: enough for a loss to fall, and every digit among those held out."""
    return data.Digits(
        digits.train_images[:64], digits.train_labels[:64], digits.heldout_images[:64], digits.heldout_labels[:64]
    )


def fitted(few: data.Digits, **options: float) -> tuple[Net, list[float]]:
    torch.manual_seed(3)
    net = Net()
    given = train.Options(**{"epochs": 4, "batch_size": 16, **options})  # type: ignore[arg-type]
    return net, list(train.fit(net, few.train_images, few.train_labels, given))


def weights(net: Net) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_net_turns_any_batch_of_images_into_log_probabilities_of_ten_digits() -> None:
    for batch in (1, 5):
        answer = Net()(torch.rand(batch, 1, 28, 28))
        assert answer.shape == (batch, 10)
        torch.testing.assert_close(answer.exp().sum(dim=1), torch.ones(batch))


def test_net_has_the_weights_of_two_convolutions_and_two_linear_layers() -> None:
    got = {name: tuple(parameter.shape) for name, parameter in Net().named_parameters() if "weight" in name}
    assert got == {
        "conv1.weight": (32, 1, 3, 3),
        "conv2.weight": (64, 32, 3, 3),
        "linear1.weight": (128, 9216),
        "linear2.weight": (10, 128),
    }
    assert sum(parameter.numel() for parameter in Net().parameters()) == 1_199_882


def test_net_drops_out_in_training_only() -> None:
    net, image = Net(), torch.rand(1, 1, 28, 28)
    assert not torch.equal(net.train()(image), net(image))
    assert torch.equal(net.eval()(image), net(image))


def test_resized_scales_ink_to_one_and_keeps_its_place() -> None:
    blocks = torch.zeros(2, 8, 8, dtype=torch.float64)
    blocks[0] = data.FULL_INK
    blocks[1, 0, 7] = data.FULL_INK
    image = data.resized(blocks)
    assert image.shape == (2, 1, 28, 28)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image[0], torch.ones(1, 28, 28))
    assert image[1, 0, 0, 27] == 1.0
    assert image[1, 0, 14:].sum() == image[1, 0, :, :14].sum() == 0.0


def test_shifted_moves_whole_images_by_at_most_two_pixels_each_way() -> None:
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 10, 15] = 1.0
    torch.manual_seed(0)
    moved = data.shifted(image.expand(500, -1, -1, -1))
    assert moved.shape == (500, 1, 28, 28)
    assert torch.equal(moved.sum(dim=(1, 2, 3)), torch.ones(500))
    places = {(row, column) for _, _, row, column in moved.nonzero().tolist()}
    assert places == {(row, column) for row in range(8, 13) for column in range(13, 18)}


def test_split_is_disjoint_complete_and_stratified() -> None:
    labels = torch.arange(10).repeat_interleave(50)
    train_indices, heldout = data.split_indices(labels)
    assert sorted([*train_indices.tolist(), *heldout.tolist()]) == list(range(500))
    assert torch.bincount(labels[heldout]).tolist() == [10] * 10


def test_split_does_not_depend_on_the_seed_of_the_training() -> None:
    labels = torch.arange(10).repeat(20)
    torch.manual_seed(1)
    _, want = data.split_indices(labels)
    torch.manual_seed(2)
    _, got = data.split_indices(labels)
    assert torch.equal(got, want)


def test_bundled_digits_are_real_ones_split_four_to_one(digits: data.Digits) -> None:
    assert digits.train_images.shape == (1437, 1, 28, 28)
    assert digits.heldout_images.shape == (360, 1, 28, 28)
    assert digits.train_images.min() == 0.0
    assert digits.train_images.max() == 1.0
    together = torch.bincount(digits.train_labels) + torch.bincount(digits.heldout_labels)
    assert together.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert ((torch.bincount(digits.heldout_labels) - together / 5).abs() < 1).all()


def test_training_lowers_the_loss(few: data.Digits) -> None:
    _, losses = fitted(few, epochs=10)
    assert len(losses) == 10
    assert losses[-1] < 0.7 * losses[0]


def test_equal_seeds_give_equal_weights(few: data.Digits) -> None:
    assert torch.equal(weights(fitted(few, epochs=1)[0]), weights(fitted(few, epochs=1)[0]))


def test_weight_decay_shrinks_the_weights(few: data.Digits) -> None:
    free, _ = fitted(few, weight_decay=0.0)
    held, _ = fitted(few, weight_decay=0.1)
    assert weights(held).norm() < 0.95 * weights(free).norm()


def test_quality_averages_over_digits_and_counts_confusions() -> None:
    labels = torch.arange(10).repeat_interleave(2)
    predicted = labels.clone()
    predicted[0] = 1  # one of the two zeros is read as a one
    got = evaluate.quality(labels, predicted)
    assert got.accuracy == pytest.approx(19 / 20)
    assert got.recall == pytest.approx((9 + 1 / 2) / 10)
    assert got.precision == pytest.approx((9 + 2 / 3) / 10)
    assert got.f1 == pytest.approx((8 + 2 / 3 + 4 / 5) / 10)
    assert got.confusion_matrix[0] == (1, 1, 0, 0, 0, 0, 0, 0, 0, 0)


def test_exported_file_takes_any_batch_of_an_input_named_image(tmp_path: Path) -> None:
    net, path = Net().eval(), tmp_path / "digits.pt2"
    model = export.save(net, path, torch.rand(3, 1, 28, 28))
    for batch in (1, 7):
        image = torch.rand(batch, 1, 28, 28)
        torch.testing.assert_close(model(image), net(image), atol=export.TOLERANCE, rtol=0)
    program = torch.export.load(path)
    assert program.graph_signature.user_inputs == ("image",)
    (image_node,) = (node for node in program.graph.nodes if node.name == "image")
    free, *fixed = image_node.meta["val"].shape
    assert not isinstance(free, int)
    assert fixed == [1, 28, 28]


def test_equal_weights_give_equal_bytes_without_paths_of_this_machine(tmp_path: Path) -> None:
    net = Net()
    first, second = tmp_path / "a.pt2", tmp_path / "b.pt2"
    for path in (first, second):
        export.save(net, path, torch.rand(1, 1, 28, 28))
    with zipfile.ZipFile(first) as one, zipfile.ZipFile(second) as other:
        contents = [[archive.read(entry) for entry in archive.infolist()] for archive in (one, other)]
    assert contents[0] == contents[1]
    assert not any(b"site-packages" in content or bytes(FOLDER) in content for content in contents[0])


def test_a_saved_file_that_answers_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    another = export.exported(Net())
    monkeypatch.setattr(export, "exported", lambda net: another)
    with pytest.raises(ValueError, match="differs from the trained network by"):
        export.save(Net(), tmp_path / "digits.pt2", torch.rand(2, 1, 28, 28))
    assert not list(tmp_path.iterdir())


def test_a_run_leaves_the_model_its_checksum_its_metrics_and_requests_with_known_answers(
    tmp_path: Path, few: data.Digits, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "load", lambda: few)
    monkeypatch.setattr(train, "ACCURACY_FLOOR", 0.0)
    train.main(["--out", str(tmp_path / "out"), "--epochs", "2", "--seed", "5"])
    out = tmp_path / "out"

    printed = capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert [f"epoch  {n}/2  loss {loss:.4f}" in printed for n, loss in enumerate(metrics["loss_per_epoch"], 1)] == [
        True,
        True,
    ]
    assert {"accuracy", "precision", "recall", "f1", "confusion_matrix"} <= metrics.keys()
    assert metrics["options"]["seed"] == 5

    digest = hashlib.sha256((out / "digits.pt2").read_bytes()).hexdigest()
    assert (out / "digits.pt2.sha256").read_text() == f"{digest}  digits.pt2\n"
    assert metrics["sha256"] == digest
    assert recognised(out / "digits.pt2") == "TorchExport"

    model = torch.export.load(out / "digits.pt2").module()
    for entry, digit in zip(json.loads((out / "heldout.json").read_text()), range(10), strict=True):
        assert (entry["file"], entry["label"]) == (f"heldout/{digit}.json", digit)
        (tensor,) = json.loads((out / entry["file"]).read_text())["inputs"]
        assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("image", "FP32", [1, 1, 28, 28])
        image = torch.tensor(tensor["data"]).reshape(tensor["shape"])
        assert (few.heldout_images[few.heldout_labels == digit] - image).abs().amax((1, 2, 3)).min() <= 5.1e-5
        torch.testing.assert_close(model(image)[0], torch.tensor(entry["log_probabilities"]), atol=2e-5, rtol=0)


def test_a_model_below_the_floor_is_not_exported(
    tmp_path: Path, few: data.Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "load", lambda: few)
    with pytest.raises(SystemExit, match=r"accuracy 0\.\d+ on held-out digits is below 0\.97, nothing was exported"):
        train.main(["--out", str(tmp_path / "out"), "--epochs", "1", "--lr", "0.000001"])
    assert not (tmp_path / "out").exists()


def test_steps_that_are_too_large_end_with_the_way_out(
    tmp_path: Path, few: data.Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "load", lambda: few)
    with pytest.raises(SystemExit, match="train with a smaller --lr than 1e"):
        train.main(["--out", str(tmp_path / "out"), "--lr", "1e30"])


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--epochs", "0"),
        ("--lr", "0"),
        ("--lr", "nan"),
        ("--momentum", "1"),
        ("--weight-decay", "-1"),
        ("--batch-size", "0"),
        ("--seed", "-1"),
        ("--out", __file__),
    ],
)
def test_a_bad_option_is_named(flag: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--out", str(tmp_path), flag, value])
    assert f"error: {flag}" in capsys.readouterr().err
