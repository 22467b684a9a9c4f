"""A real S3 server on loopback (moto) that can ignore conditions, deny keys, be slow, fail or disappear."""

from __future__ import annotations

import http.client
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

KEY, SECRET = "AKIALOOPBACK", "loopback/secret+not+to+be+seen"
BUCKET = "campaigns"
DENIED = (
    "<?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code>"
    "<Message>The request signature does not match</Message><AWSAccessKeyId>{key}</AWSAccessKeyId></Error>"
)


class S3Server:
    """Serves until `stop`; `ignored` names conditions that it drops, as some look-alikes do.

    While `failing`, every answer is 500 or 503; half of the time the request was obeyed nevertheless. Every
    answer is delayed by `latency` seconds, independently of other requests. `requests` holds methods and
    paths, without the heartbeats of drivers, which come by the clock; `received` and `sent` count the bytes
    of all bodies.
    """

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.ignored: tuple[str, ...] = ()
        self.failing = False
        self.latency = 0.0
        self.received = self.sent = 0
        self.requests: list[tuple[str, str]] = []
        self._moto: Callable[..., Iterable[bytes]] = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()  # moto looks at a condition and writes in two steps
        self._port = 0
        self.serve()
        self.call("PUT", f"/{BUCKET}")

    def serve(self) -> None:
        """Open the port; after a `stop`, the same one, with all that was stored."""
        self._server = make_server("127.0.0.1", self._port, self._app, threaded=True)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ALLOW_HTTP": "true",
        }

    def _app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        if f"Credential={KEY}/" not in authorization:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [DENIED.format(key=authorization.partition("Credential=")[2].partition("/")[0]).encode()]
        for condition in self.ignored:
            environ.pop(f"HTTP_{condition.upper().replace('-', '_')}", None)
        time.sleep(self.latency)
        with self._one_at_a_time:
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            if method != "PUT" or not path.endswith(".beat"):
                self.requests.append((method, path))
            if self.failing:
                number = len(self.requests)
                if number % 2:
                    b"".join(self._moto(environ, lambda *_: None))
                start_response(("500 Internal Server Error", "503 Slow Down")[number // 2 % 2], [])
                return [b"no"]
            answer = list(self._moto(environ, start_response))
            self.received += int(environ.get("CONTENT_LENGTH") or 0)
            self.sent += sum(map(len, answer))
            return answer

    def call(self, method: str, path: str) -> None:
        """One request of the server's own, for what obstore cannot ask."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        credential = f"AWS4-HMAC-SHA256 Credential={KEY}/20261122/us-east-1/s3/aws4_request"
        connection.request(method, path, headers={"Authorization": credential, "Host": "localhost"})
        assert connection.getresponse().status == 200
        connection.close()

    def new_url(self) -> str:
        """The URL of a store that is not there yet."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}/sweep.zarr"

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
