"""What does this replica count, and how is it told to Prometheus?

Own counters: a bound child of prometheus_client costs 0.8 us per observation, a list and a bisection 0.15, and the
times of answered requests, which are binned together (timings.py), 0.05. Label sets are fixed or bounded (status codes,
reasons), so neither memory nor a scrape grows with traffic.
"""

from __future__ import annotations

import os
import resource
import time
from bisect import bisect_left
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evenkeel_runtime.serve.tally import Tally

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
GRPC_CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
"""gRPC's status codes by number. HTTP's begin at 100, so a number tells which protocol answered."""
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_STARTED = time.time()


class Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def observe_all(self, values: NDArray[np.float64]) -> None:
        """Observe many values, which takes as long as a few. A thread that reads meanwhile sees all of them or none."""
        found = np.bincount(np.searchsorted(self.bounds, values), minlength=len(self.counts)).tolist()
        counts = [before + more for before, more in zip(self.counts, found, strict=True)]
        self.counts, self.total = counts, self.total + float(values.sum())

    def lines(self, name: str, labels: str) -> list[str]:
        counts, total = self.counts, self.total
        found = []
        running = 0
        for bound, count in zip(self.bounds, counts, strict=False):
            running += count
            found.append(f'{name}_bucket{{{labels},le="{bound:g}"}} {running}')
        running += counts[-1]
        found.append(f'{name}_bucket{{{labels},le="+Inf"}} {running}')
        found += [f"{name}_sum{{{labels}}} {total:.9g}", f"{name}_count{{{labels}}} {running}"]
        return found


@dataclass(frozen=True, slots=True)
class Info:
    """What `model_info` says of a loaded model."""

    format: str
    sha256: str
    execution_mode: str
    max_batch_size: int
    torch_version: str


class Metrics:
    def __init__(self, model: str, version: str, *, has_triton_names: bool = False) -> None:
        self._model = f'model_name="{escaped(model)}"'
        self._labels = f'{self._model},model_version="{escaped(version)}"'
        self._triton = f'model="{escaped(model)}",version="{escaped(version)}"' if has_triton_names else None
        self.requests: dict[int, int] = {}
        self.durations: dict[int, Histogram] = {}
        self.preprocess = Histogram(SECONDS)
        self.predict = Histogram(SECONDS)
        self.postprocess = Histogram(SECONDS)
        self.queue = Histogram(SECONDS)
        self.compute = Histogram(SECONDS)
        self.batch_rows = Histogram(ROWS)
        self.rows = 0
        self.rejected: dict[str, int] = {}
        self.cancelled = 0
        self.in_flight = 0
        self.is_ready = False
        self.load_s: float | None = None
        self.difference: float | None = None
        self.info: Info | None = None
        self.canary: Tally | None = None

    def answered(self, code: int, seconds: float) -> None:
        self._answered(code, 1).observe(seconds)

    def answered_all(self, code: int, seconds: NDArray[np.float64]) -> None:
        self._answered(code, len(seconds)).observe_all(seconds)

    def _answered(self, code: int, times: int) -> Histogram:
        self.requests[code] = self.requests.get(code, 0) + times
        found = self.durations.get(code)
        if found is None:
            found = self.durations[code] = Histogram(SECONDS)
        return found

    def end_beside(self, within_s: float, took_s: float, *, has_failed: bool) -> None:
        """Count what has ended without an answer, where it is held beside the canary's (`caller.Caller.within_s`)."""
        if within_s and self.canary is not None:
            self.canary.beside.end(took_s, within_s, has_failed=has_failed)

    def reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def reject_early(self, status: int) -> None:
        """Count a request that the protocol refused before it was complete."""
        self.reject(f"http_{status}")
        self.requests[status] = self.requests.get(status, 0) + 1

    def render(self, queued: int) -> bytes:
        """Return the whole page. What may grow is copied first: another thread than this one counts on."""
        lines: list[str] = []
        for name, text, value in (
            ("inference_rows_total", "Rows answered.", self.rows),
            ("inference_cancelled_total", "Requests whose client left before the answer.", self.cancelled),
        ):
            lines += family(name, "counter", text, [f"{name}{{{self._labels}}} {value}"])
        for name, text, value in (
            ("inference_requests_in_flight", "Requests admitted and not yet answered.", self.in_flight),
            ("inference_queue_depth", "Requests that wait for the model.", queued),
            ("model_ready", "1 when requests are accepted.", int(self.is_ready)),
        ):
            lines += family(name, "gauge", text, [f"{name}{{{self._labels}}} {value}"])
        for name, labels, found, text in (
            ("inference_queue_duration_seconds", self._labels, self.queue, "From admission to the forward's start."),
            ("inference_compute_duration_seconds", self._labels, self.compute, "The forward a request was in."),
            ("inference_batch_size", self._labels, self.batch_rows, "Rows per forward."),
            ("request_preprocess_seconds", self._model, self.preprocess, "Reading a request (KServe's name)."),
            ("request_predict_seconds", self._model, self.predict, "Waiting and forward (KServe's name)."),
            ("request_postprocess_seconds", self._model, self.postprocess, "Writing an answer (KServe's name)."),
        ):
            lines += family(name, "histogram", text, found.lines(name, labels))
        lines += self._by_code_and_reason()
        lines += self._model_lines()
        lines += self._triton_lines(queued)
        lines += [] if self.canary is None else self.canary.lines(self._labels)
        lines += _process()
        return ("\n".join(lines) + "\n").encode()

    def _by_code_and_reason(self) -> list[str]:
        counted, timed = "inference_requests_total", "inference_request_duration_seconds"
        requests, durations = self.requests.copy(), self.durations.copy()
        labels = {code: f"{self._labels},{_protocol_and_code(code)}" for code in sorted(requests)}
        counts = [f"{counted}{{{labels[code]}}} {requests[code]}" for code in labels]
        times = [line for code in labels if code in durations for line in durations[code].lines(timed, labels[code])]
        sent_away = [
            f'inference_rejected_total{{{self._labels},reason="{reason}"}} {count}'
            for reason, count in sorted(self.rejected.copy().items())
        ]
        return [
            *family(counted, "counter", "Inference requests answered, by status code.", counts),
            *family(timed, "histogram", "From the last byte of a request to its answer.", times),
            *family("inference_rejected_total", "counter", "Requests that did not reach the model.", sent_away),
        ]

    def _triton_lines(self, queued: int) -> list[str]:
        """Return the same counts under Triton's names, for its dashboards; sums of microseconds, as Triton's are."""
        if self._triton is None:
            return []
        requests, durations = self.requests.copy(), self.durations.copy()
        good = sum(count for code, count in requests.items() if code in (0, 200))
        took_s = sum(found.total for code, found in durations.items() if code in (0, 200))
        counters = (
            ("request_success", good),
            ("request_failure", sum(requests.values()) - good),
            ("count", self.rows),
            ("exec_count", self.batch_rows.count),
            ("request_duration_us", round(took_s * 1e6)),
            ("queue_duration_us", round(self.queue.total * 1e6)),
            ("compute_infer_duration_us", round(self.compute.total * 1e6)),
        )
        lines: list[str] = []
        for name, value in counters:
            name = f"nv_inference_{name}"
            lines += family(name, "counter", "Triton's name.", [f"{name}{{{self._triton}}} {value}"])
        name = "nv_inference_pending_request_count"
        return [*lines, *family(name, "gauge", "Triton's name.", [f"{name}{{{self._triton}}} {queued}"])]

    def _model_lines(self) -> list[str]:
        lines: list[str] = []
        if self.load_s is not None:
            name = "model_load_duration_seconds"
            lines += family(name, "gauge", "From start to ready.", [f"{name}{{{self._labels}}} {self.load_s:.6g}"])
        if self.difference is not None:
            name, text = "model_difference_to_fp32", "Largest change of an answer's number by spec.runtime.precision."
            lines += family(name, "gauge", text, [f"{name}{{{self._labels}}} {self.difference:.6g}"])
        if (info := self.info) is not None:
            said = ",".join(f'{field.name}="{escaped(str(getattr(info, field.name)))}"' for field in fields(info))
            lines += family("model_info", "gauge", "What is loaded.", [f"model_info{{{self._labels},{said}}} 1"])
        return lines


def _protocol_and_code(code: int) -> str:
    if code < len(GRPC_CODES):
        return f'protocol="grpc",code="{GRPC_CODES[code]}"'
    return f'protocol="http",code="{code}"'


def family(name: str, kind: str, text: str, samples: list[str]) -> list[str]:
    """Return a metric's lines with those that describe it."""
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *samples]


def _process() -> list[str]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = [
        "# TYPE process_cpu_seconds_total counter",
        f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.6g}",
        "# TYPE process_start_time_seconds gauge",
        f"process_start_time_seconds {_STARTED:.3f}",
    ]
    try:
        with open("/proc/self/statm") as stream:
            pages = stream.read().split()
        found += [
            "# TYPE process_resident_memory_bytes gauge",
            f"process_resident_memory_bytes {int(pages[1]) * os.sysconf('SC_PAGE_SIZE')}",
            "# TYPE process_virtual_memory_bytes gauge",
            f"process_virtual_memory_bytes {int(pages[0]) * os.sysconf('SC_PAGE_SIZE')}",
            "# TYPE process_open_fds gauge",
            f"process_open_fds {len(os.listdir('/proc/self/fd'))}",
            "# TYPE process_max_fds gauge",
            f"process_max_fds {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}",
        ]
    except OSError:
        pass  # no /proc: the series is absent, not zero
    return found


def escaped(value: str) -> str:
    """Return a label's value as it stands between quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
