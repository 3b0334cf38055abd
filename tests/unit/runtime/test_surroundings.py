"""Does the runtime understand its surroundings: environment, addresses, CPU quota, failures, commands?"""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import pickle
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from evenkeel_runtime import commands, config, report
from evenkeel_runtime.contract import RECEIPT_KEY_FILE, Env, Reason
from evenkeel_runtime.engine import cuda
from evenkeel_runtime.engine.calibrate import Calibrated
from evenkeel_runtime.engine.modes import mode_for
from evenkeel_runtime.engine.threads import spin_briefly, usable_cpus
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.address import read
from evenkeel_runtime.models import unpickling
from evenkeel_runtime.serve import engines
from tests.unit.runtime.hostile import Bomb


@pytest.mark.parametrize(
    ("files", "want"),
    [
        pytest.param({}, None, id="no cgroup file system"),
        pytest.param({"cpu.max": "max 100000\n"}, None, id="v2 without a quota"),
        pytest.param({"cpu.max": "50000 100000\n"}, 1, id="v2, half a CPU"),
        pytest.param({"cpu.max": "150000 100000\n"}, 2, id="v2, one and a half"),
        pytest.param({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, id="v1 without"),
        pytest.param({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1, id="v1, one CPU"),
    ],
)
def test_cpu_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], want: int | None) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cpus(tmp_path) == (want or 16)


@pytest.mark.parametrize(
    ("environ", "want"),
    [
        pytest.param({}, {"GOMP_SPINCOUNT": "2000"}, id="nothing said: briefly"),
        pytest.param({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}, id="a count of one's own"),
        pytest.param({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}, id="a policy of one's own"),
    ],
)
def test_spinning(environ: dict[str, str], want: dict[str, str]) -> None:
    spin_briefly(environ)
    assert environ == want


@pytest.mark.parametrize(
    ("forward_s", "largest_s", "device", "want"),
    [
        pytest.param(0.0001, 0.005, "cpu", "inline", id="short whatever it is given"),
        pytest.param(0.003, 0.003, "cpu", "thread", id="long with a single row"),
        pytest.param(0.001, 0.02, "cpu", "thread", id="long with its largest batch"),
        pytest.param(None, None, "cpu", "thread", id="unknown"),
        pytest.param(0.0001, 0.005, "cuda", "thread", id="on a GPU"),
    ],
)
def test_mode(forward_s: float | None, largest_s: float | None, device: str, want: str) -> None:
    assert mode_for(forward_s, largest_s, device) == want


@pytest.mark.parametrize(
    ("max_rows", "profile", "want"),
    [
        pytest.param(8, ((1, 0.001), (8, 0.004)), 0.004, id="the largest batch: what has more rows is cut"),
        pytest.param(0, ((1, 0.001),), 4.096, id="nothing is cut where rows are not independent"),
        pytest.param(0, (), None, id="a model that could not be tried out"),
    ],
)
def test_longest_call(max_rows: int, profile: tuple[tuple[int, float], ...], want: float | None) -> None:
    found = Calibrated(lambda *tensors: tensors, "eager", 1, max_rows, None, 0.0, profile)
    assert found.largest_s(4096) == want


def named(uri: str, claim_dir: Path) -> str:
    return read(uri, claim_dir, lambda place: place.file, lambda folder, _: folder.file, environ={})


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "",
            "digits.pt2",
            "pvc://",
            "pvc://claim",
            "pvc://claim/",
            "pvc://claim/../x",
            "pvc://claim//x",
            "pvc://c/a/./b",
        ),
        *(
            "s3://bucket",
            "s3://bucket/",
            "s3://B_U/x",
            "s3:///x",
            "gs://bucket",
            "gs://Bucket/x",
            "gs://bucket/a/../x",
            "hf://ann",
            "hf://ann/",
            "hf://ann/digits//",
            "hf://ann/digits@/x",
            "hf://ann/digits@v1/a//x",
            "oci://ghcr.io",
            "oci://ghcr.io/Ann/digits",
            "oci://ghcr.io/ann/digits:",
            "oci://ghcr.io/ann/digits@sha256:12",
            "oci://ann:word@ghcr.io/ann/digits",
            "oci://ghcr.io/ann/digits#../x",
            "http://host/x.pt2",
            "ftp://host/x",
            "file:///etc/passwd",
        ),
        *("https://", "https://user:password@host/x", "pvc://claim/a\0b"),
    ],
)
def test_address_that_cannot_be_read(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as failure:
        named(uri, tmp_path)
    assert failure.value.reason == Reason.INVALID


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("pvc://claim/v1/digits.pt2", "digits.pt2"),
        ("s3://bucket/v1/digits.pt2", "digits.pt2"),
        ("gs://bucket/v1/digits.pt2", "digits.pt2"),
        ("hf://ann/digits@refs%2Fpr%2F7/v1/digits.pt2", "digits.pt2"),
        ("oci://ghcr.io/ann/digits:v1", "digits"),
        ("oci://ghcr.io/ann/digits:v1#v1/digits.pt2", "digits.pt2"),
        ("https://host/v1/digits.pt2?X-Signature=a/b", "digits.pt2"),
        ("https://host/my%20model.pt2", "my model.pt2"),
        ("https://host/", "model"),
    ],
)
def test_file_name_of_an_address(uri: str, file: str, tmp_path: Path) -> None:
    assert named(uri, tmp_path) == file


class OutOfMemoryError(RuntimeError):
    """Named as torch's is."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelError(Reason.MODEL_NOT_FOUND, "x"), Reason.MODEL_NOT_FOUND),
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (OutOfMemoryError("CUDA out of memory"), Reason.OUT_OF_MEMORY),
        (RuntimeError("of TorchScript: CUDA out of memory. Tried to allocate"), Reason.OUT_OF_MEMORY),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
            Reason.OUT_OF_MEMORY,
        ),
        (OSError(errno.ENOSPC, "No space left on device"), Reason.DISK_FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), Reason.DISK_FULL),
        (KeyError("x"), Reason.LOAD_FAILED),
    ],
)
def test_what_a_failure_is_called(error: Exception, reason: Reason) -> None:
    assert report.failed(error).reason == reason


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {Env.MODEL_PATH: "/model/x", Env.MODEL_SHA256: "abc"},
        {Env.MODEL_PATH: "/model/x", Env.GRACE_PERIOD_S: "soon"},
        {Env.MODEL_PATH: "/model/x", Env.DRAIN_DELAY_S: "-1"},
        {Env.MODEL_PATH: "/model/x", Env.DRAIN_DELAY_S: "inf"},
        {Env.MODEL_PATH: "/model/x", config.ENGINES_ENV: "0"},
        {Env.MODEL_PATH: "/model/x", config.ENGINES_ENV: "1.5"},
        {Env.MODEL_PATH: "/model/x", config.ENGINES_ENV: "65"},
    ],
)
def test_environment_that_says_nothing_usable(environment: dict[str, str]) -> None:
    with pytest.raises(ModelError) as failure:
        config.serve(environment)
    assert failure.value.reason == Reason.INVALID


@pytest.mark.parametrize(
    ("told", "gpus", "want"),
    [
        pytest.param(None, 0, 1, id="no GPU: this process alone"),
        pytest.param(None, 1, 1, id="one GPU: so it is"),
        pytest.param(None, 4, 4, id="one for each of four"),
        pytest.param("1", 4, 1, id="one, where it is asked for, and three GPUs are idle"),
        pytest.param("3", 0, 3, id="three on CPUs"),
    ],
)
def test_how_many_engines(told: str | None, gpus: int, want: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "visible", lambda: gpus)
    environment = {Env.MODEL_PATH: "/model/x"} | ({} if told is None else {config.ENGINES_ENV: told})
    assert engines.count_of(config.serve(environment).engines) == want


@pytest.mark.parametrize(
    ("environment", "count", "want"),
    [
        pytest.param({}, 0, [], id="no GPU"),
        pytest.param({}, 2, ["0", "1"], id="by their numbers"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "2,5"}, 2, ["2", "5"], id="those that CUDA is told"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "GPU-a1,GPU-b2"}, 2, ["GPU-a1", "GPU-b2"], id="by their UUIDs"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "0,1,9,2"}, 2, ["0", "1"], id="none behind one that is not there"),
    ],
)
def test_which_gpus(environment: dict[str, str], count: int, want: list[str]) -> None:
    assert engines.devices(environment, count) == want


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("EVENKEEL_MAX_BODY_BYTES", "body_bytes"),
        ("EVENKEEL_MAX_CONNECTIONS", "connections"),
        ("EVENKEEL_MAX_QUEUED_ROWS", "queued_rows"),
        ("EVENKEEL_MAX_QUEUED_BYTES", "queued_bytes"),
        ("EVENKEEL_MAX_RECEIVING_BYTES", "receiving_bytes"),
    ],
)
def test_limits_are_told_by_the_environment(name: str, field: str) -> None:
    assert getattr(config.serve({Env.MODEL_PATH: "/m", name: "77"}).limits, field) == 77


KEY = "0123456789abcdef" * 4


def told_of_feedback(folder: Path, key: str, key_id: str = "3") -> config.Feedback | None:
    (folder / RECEIPT_KEY_FILE).write_text(key)
    environment = {
        Env.MODEL_PATH: "m.pt2",
        Env.FEEDBACK_URL: "http://feedback/",
        Env.UID: "6f1b54a4-6d1a-4a8e-9d0e-1c2f6f0f5f11",
        Env.RECEIPT_KEY_ID: key_id,
        config.RECEIPT_KEY_DIR_ENV: str(folder),
    }
    return config.serve(environment).feedback


@pytest.mark.parametrize("text", [KEY, KEY.upper(), f"{KEY}\n"])
@pytest.mark.parametrize("key_id", ["0", "3", "65535"])
def test_a_key_is_64_hex_digits(text: str, key_id: str, tmp_path: Path) -> None:
    got = told_of_feedback(tmp_path, text, key_id)
    assert got is not None
    assert (got.key, got.key_id, got.url) == (bytes.fromhex(KEY), int(key_id), "http://feedback")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("\n", id="an empty line"),
        pytest.param(KEY[:2], id="one byte"),
        pytest.param(KEY[:-2], id="one byte too few"),
        pytest.param(KEY + "00", id="one byte too many"),
        pytest.param(KEY[:-1] + "g", id="no hex digit"),
        pytest.param(KEY[:31] + "  " + KEY[33:], id="spaces inside"),
        pytest.param(KEY[:-1] + "\u0661", id="a digit of another script"),
    ],
)
def test_what_is_no_key_signs_nothing(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert told_of_feedback(tmp_path, text) is None
    assert "answers carry no receipts" in caplog.text
    assert KEY[:8] not in caplog.text


@pytest.mark.parametrize("key_id", ["65536", "1e9", "1.5", "-1", "first"])
def test_an_id_that_no_receipt_can_hold_is_told_by_name(key_id: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=Env.RECEIPT_KEY_ID) as raised:
        told_of_feedback(tmp_path, KEY, key_id)
    assert raised.value.reason == Reason.INVALID


def test_digest_with_and_without_its_algorithm() -> None:
    for text in ("ab" * 32, "sha256:" + "ab" * 32, " " + "AB" * 32):
        assert config.serve({Env.MODEL_PATH: "/m", Env.MODEL_SHA256: text}).model.sha256 == "ab" * 32


def test_trusted_types_are_separated_by_commas() -> None:
    for text, want in (("", set()), ("a.B", {"a.B"}), ("a.B,c.D", {"a.B", "c.D"})):
        assert config.serve({Env.MODEL_PATH: "/m", Env.TRUSTED_TYPES: text}).model.trusted_types == want


def _hello(arguments: list[str]) -> int:
    print("hello", *arguments)
    return 3


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["hello", "you", "--all"], 3, "hello you --all"),
        (["--help"], 0, "hello"),
        ([], 0, "COMMAND"),
        (["helo"], 2, "no command 'helo'"),
        (["broken"], 2, "pip install 'evenkeel[operator]'"),
    ],
)
def test_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, word: str
) -> None:
    monkeypatch.setitem(sys.modules, "hello_module", type(sys)("hello_module"))
    sys.modules["hello_module"].hello = _hello  # type: ignore[attr-defined]
    found = [
        EntryPoint("hello", "hello_module:hello", commands.GROUP),
        EntryPoint("broken", "evenkeel_operator_absent.cli:x", commands.GROUP),
    ]
    monkeypatch.setattr(commands, "entry_points", lambda group: found)
    assert commands.main(arguments) == status
    captured = capsys.readouterr()
    assert word in captured.out + captured.err


def test_front_end_does_not_import_torch() -> None:
    """The port answers before torch is imported, so nothing on the way there may import it."""
    code = "import sys, evenkeel_runtime.serve.server, evenkeel_runtime.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


ATTEMPTS: dict[str, str] = {
    "pickle.loads": "import pickle; pickle.loads(data)",
    "pickle.load": "import io, pickle; pickle.load(io.BytesIO(data))",
    "the unpickler written in Python": "import io, pickle; pickle._Unpickler(io.BytesIO(data)).load()",
    "torch.load": "import io, torch; torch.load(io.BytesIO(data), weights_only=False)",
    "torch.load by default": "import io, torch; torch.load(io.BytesIO(data))",
    "torch.export.load's own fallback": (
        "from torch._export.serde.serialize import deserialize_torch_artifact; deserialize_torch_artifact(saved)"
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what came of each attempt, all made in a process of their own: it cannot be taken back."""
    import torch

    folder = tmp_path_factory.mktemp("unpickling")
    bombs: dict[str, tuple[bytes, bytes]] = {}
    for number, name in enumerate(ATTEMPTS):
        bomb, stream = Bomb(folder / str(number)), io.BytesIO()
        torch.save((bomb,), stream)
        bombs[name] = pickle.dumps(bomb), stream.getvalue()
    process = multiprocessing.get_context("fork").Process(target=_attempt_all, args=(bombs, folder / "outcomes"))
    process.start()
    process.join(120)
    found: dict[str, str] = json.loads((folder / "outcomes").read_text())
    return found | {name: "ran code" for number, name in enumerate(ATTEMPTS) if (folder / str(number)).exists()}


def _attempt_all(bombs: dict[str, tuple[bytes, bytes]], answer: Path) -> None:
    unpickling.forbid()
    outcomes = {}
    for name, (data, saved) in bombs.items():
        try:
            exec(ATTEMPTS[name], {"data": data, "saved": saved})
            outcomes[name] = "read"
        except unpickling.UnpicklingForbidden:
            outcomes[name] = "forbidden"
    answer.write_text(json.dumps(outcomes))


@pytest.mark.parametrize("name", ATTEMPTS)
def test_no_way_to_unpickle_is_left(name: str, outcomes: dict[str, str]) -> None:
    assert outcomes[name] == "forbidden"
