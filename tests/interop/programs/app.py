"""The application that granian serves, by WSGI; the folder is that of the environment's variable WWW."""

from __future__ import annotations

import os
from pathlib import Path

from tests.interop.programs.answering import answer_to


def app(environ, start_response):
    size = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(size) if size else b""
    name = environ["PATH_INFO"].rpartition("/")[2]
    answer = answer_to(environ["REQUEST_METHOD"], name, body, Path(os.environ["WWW"]))
    start_response("200 OK", [("Content-Length", str(len(answer))), ("Content-Type", "application/octet-stream")])
    return [answer]
