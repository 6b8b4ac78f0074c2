"""The one download: a file appears complete and with the right hash, or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.weight_files import fetch, weights_folder

DATA = bytes(range(256)) * 10_000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server() -> Iterator[str]:
    """A loopback server: /whole serves the data, /cut breaks off early, other paths are not found."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in ("/whole", "/cut"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()
            self.wfile.write(DATA if self.path == "/whole" else DATA[:1000])

        def log_message(self, *arguments: object) -> None:
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_file_is_fetched_once_and_progress_is_reported(tmp_path: Path, server: str) -> None:
    target, calls = tmp_path / "a" / "weights.pth", []
    assert fetch(f"{server}/whole", target, SHA256, lambda *now: calls.append(now))
    assert target.read_bytes() == DATA
    assert list(target.parent.iterdir()) == [target]
    assert calls[-1] == (len(DATA), len(DATA))
    assert calls == sorted(calls)
    assert not fetch(f"{server}/gone", target, SHA256, lambda *now: calls.append(now))  # no request at all


def test_a_damaged_file_is_fetched_again(tmp_path: Path, server: str) -> None:
    target = tmp_path / "weights.pth"
    target.write_bytes(DATA[:-1])
    assert fetch(f"{server}/whole", target, SHA256, lambda *now: None)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/gone", "cannot be fetched into .*404"),
        ("/cut", "is not the published file"),
        ("/whole", "expected 000000000000"),
    ],
)
def test_a_failed_download_leaves_no_file(tmp_path: Path, server: str, path: str, message: str) -> None:
    target = tmp_path / "weights.pth"
    with pytest.raises(UserError, match=message):
        fetch(server + path, target, "0" * 64 if path == "/whole" else SHA256, lambda *now: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["file:///nowhere/at/all", "nonsense", "http://127.0.0.1:9/x"])
def test_an_unreachable_address_gives_a_one_line_error(tmp_path: Path, address: str) -> None:
    with pytest.raises(UserError, match=f"^{address} cannot be fetched into {tmp_path} .*: nothing was kept$"):
        fetch(address, tmp_path / "weights.pth", SHA256, lambda *now: None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_gives_a_one_line_error(tmp_path: Path, server: str) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=f"cannot be fetched into {tmp_path}/taken/weights"):
        fetch(f"{server}/whole", tmp_path / "taken" / "weights" / "w.pth", SHA256, lambda *now: None)


def test_an_environment_variable_names_the_folder_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMD_BENCH_WEIGHTS", str(tmp_path))
    assert weights_folder() == tmp_path
    monkeypatch.delenv("UMD_BENCH_WEIGHTS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_folder() == tmp_path / ".cache" / "umd-bench" / "weights"
