"""What does an application do that learns the truth later? Runs in a pod, with Python's standard library alone.

Sends the requests of a file, one after the other and again from the beginning, at a constant rate from a few threads;
keeps the receipts of the answers and posts the truths, which the file holds too, in batches to the replicas. Half the
threads keep their connections. Prints a line of JSON with all counts every two seconds, for as long as it runs.

The file has a line of JSON per request: `body` (an Open Inference request) and `label`. Usage: URL FILE RPS SHARE,
where SHARE of the answers get their label.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import sys
import threading
import time
import urllib.parse
from collections import Counter

THREADS, BATCH = 4, 25


class Client:
    """The counts of all threads."""

    def __init__(self, url: str, rows: list[tuple[bytes, object]], rps: float, share: float) -> None:
        parts = urllib.parse.urlsplit(url)
        self.host, self.path = parts.netloc, parts.path
        self.rows, self.rps, self.share = rows, rps, share
        self.lock = threading.Lock()
        self.answered = 0
        self.failed: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.first = ""

    def run(self, number: int) -> None:
        """Send and label for ever."""
        keeps, chance, waiting = number % 2 == 0, random.Random(number), []
        connection = None
        due = time.monotonic()
        for row in itertools.count(number, THREADS):
            due = max(due + THREADS / self.rps, time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))
            body, label = self.rows[row % len(self.rows)]
            if connection is None:
                connection = http.client.HTTPConnection(self.host, timeout=30)
            receipt, failure, version = None, "", ""
            try:
                connection.request("POST", self.path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                receipt = answer.getheader("evenkeel-receipt")
                if answer.status != 200:
                    failure = f"status {answer.status}"
                else:
                    version = json.loads(text).get("model_version", "")
                is_over = answer.will_close
            except (OSError, http.client.HTTPException) as problem:
                failure, is_over = type(problem).__name__, True
            if is_over or not keeps:
                connection.close()
                connection = None
            with self.lock:
                if failure:
                    self.failed[failure] += 1
                    self.first = self.first or f"{time.strftime('%H:%M:%S')} {failure}"
                else:
                    self.answered += 1
                    self.versions[version] += 1
            if receipt is not None and chance.random() < self.share:
                waiting.append({"receipt": receipt, "label": label})
            if len(waiting) >= BATCH:
                waiting = self.tell(waiting)

    def tell(self, items: list[dict[str, object]]) -> list[dict[str, object]]:
        """Post labels; return those that have to be posted again."""
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.request("POST", "/v1/feedback", json.dumps(items), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as problem:
            with self.lock:
                self.labels[type(problem).__name__] += 1
            return items[-1000:]
        finally:
            connection.close()
        with self.lock:
            if answer.status != 200:
                self.labels[f"status {answer.status}"] += 1
                return items[-1000:]
            for told in json.loads(text)["results"]:
                self.labels[told["outcome"]] += 1
        return []

    def told(self) -> str:
        """Return all counts."""
        with self.lock:
            return json.dumps(
                {
                    "answered": self.answered,
                    "failed": dict(self.failed),
                    "versions": dict(self.versions),
                    "labels": dict(self.labels),
                    "first": self.first,
                }
            )


def main() -> None:
    url, file, rps, share = sys.argv[1:]
    with open(file) as lines:
        rows = [(json.dumps(row["body"]).encode(), row["label"]) for row in map(json.loads, lines)]
    client = Client(url, rows, float(rps), float(share))
    for number in range(THREADS):
        threading.Thread(target=client.run, args=(number,), daemon=True).start()
    while True:
        time.sleep(2)
        print(client.told(), flush=True)


if __name__ == "__main__":
    main()
