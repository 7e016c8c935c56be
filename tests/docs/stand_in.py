"""A stand-in for the model providers' servers, so that the pages' code runs offline with the real clients."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "May in Lisbon is mild, about 22 degrees."


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        """Answers a request to either API with the same sentence."""
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if request.get("stream"):
            raw = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in _chunks(request)) + "data: [DONE]\n\n"
            self._send(raw.encode(), "text/event-stream")
        elif self.path.endswith("/chat/completions"):
            self._send(json.dumps(_chat(request)).encode())
        else:
            self._send(json.dumps(_claude(request)).encode())

    def _send(self, raw: bytes, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def _chat(request: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": ANSWER, "refusal": None}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_764_000_000, "model": request["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 31, "completion_tokens": 12, "total_tokens": 43},
    }  # fmt: skip


def _chunks(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 1_764_000_000, "model": request["model"]}
    for delta, finish in (({"role": "assistant", "content": ANSWER[:6]}, None), ({"content": ANSWER[6:]}, "stop")):
        yield {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    if (request.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 52, "completion_tokens": 12, "total_tokens": 64}
        yield {**frame, "choices": [], "usage": usage}


def _claude(request: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": request["model"],
        "content": [{"type": "text", "text": ANSWER}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 29, "output_tokens": 13},
    }  # fmt: skip


@contextmanager
def providers() -> Iterator[dict[str, str]]:
    """The environment variables that lead the clients to a server on this machine, while it runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        yield {
            "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "none",
            "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "none",
        }  # fmt: skip
        server.shutdown()
        thread.join()
