"""As much of a W&B server as its client asks for, so that what is sent can be counted."""

from __future__ import annotations

__all__ = ["KEY", "Server", "environment"]

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "0123456789abcdef" * 2 + "cafebabe"  # the form of a W&B key, and nobody's


class Server(ThreadingHTTPServer):
    """As much of a W&B server as a client asks for. It can vanish: `refuse` connections, or take them and `hang`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.hanging = threading.Event()
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def refuse(self) -> None:
        self.shutdown()
        self.server_close()

    def hang(self) -> None:
        self.hanging.set()

    def operations(self, name: str) -> list[dict[str, Any]]:
        """The variables of the GraphQL operations of this name."""
        return [body["variables"] for _, body in self.received if body.get("operationName") == name]

    def streamed(self, name: str) -> list[dict[str, Any]]:
        """The lines that were streamed to a file of the run, such as wandb-history.jsonl."""
        bodies = [body for path, body in self.received if path.endswith("/file_stream")]
        contents = [body.get("files", {}).get(name, {}).get("content", []) for body in bodies]
        return [json.loads(line) for lines in contents for line in lines]

    @property
    def exit_codes(self) -> list[int]:
        return [body["exitcode"] for _, body in self.received if body.get("complete")]

    def history(self, run: str) -> list[dict[str, Any]]:
        """The history that the server holds of one run, by its id: what comes to a line twice is there once."""
        lines: dict[int, dict[str, Any]] = {}
        for path, body in self.received:
            if path.endswith(f"/{run}/file_stream") and (sent := body.get("files", {}).get("wandb-history.jsonl")):
                lines |= {sent["offset"] + i: json.loads(line) for i, line in enumerate(sent["content"])}
        return [lines[number] for number in sorted(lines)]

    def written(self, run: str) -> dict[str, Any]:
        """What the server knows of a run that asks whether it was begun before; "t" is a sign of that."""
        history = self.history(run)
        begun = {"wandbConfig": '{"t": {}}' if history else "{}", "summaryMetrics": "{}", "displayName": "row"}
        counts = {"historyLineCount": len(history), "eventsLineCount": 0, "logLineCount": 0}
        tails = {"historyTail": json.dumps([json.dumps(row) for row in history[-1:]]), "eventsTail": "[]"}
        return {**begun, **counts, **tails}

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        run = {"id": "cnVu", "config": "{}", "project": {"id": "p", "name": "vac", "entity": {"id": "e", "name": "us"}}}
        if operation == "Viewer":
            return {"viewer": {"id": "u", "entity": "us", "username": "us", "flags": "{}", "teams": {"edges": []}}}
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if operation == "RunResumeStatus":
            return {"model": {"bucket": {**run, **self.written(variables["name"]), "name": variables["name"]}}}
        if operation == "UpsertBucket":
            names = {"name": variables["name"], "displayName": variables["displayName"], "historyLineCount": 0}
            return {"upsertBucket": {"bucket": {**run, **names}, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "cnVu", "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":  # a table's; the server says that it has it already
            versions = {"id": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}
            return {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": versions}}}
        return {}


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def _reply(self) -> None:
        if self.server.hanging.is_set():
            self.server.released.wait()
            return
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        body = json.loads(data) if data and is_json else {}
        self.server.received.append((self.path, body))
        answer = {}
        if self.path == "/graphql":
            answer = {"data": self.server.answer(body["operationName"], body.get("variables") or {})}
        reply = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    do_GET = do_POST = do_PUT = do_HEAD = _reply

    def log_message(self, *arguments: Any) -> None:
        pass


def environment(server: Server, home: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    wandb = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    return {**ours, **wandb, "HOME": str(home), "NETRC": str(home / "netrc"), "OMP_NUM_THREADS": "1"}
