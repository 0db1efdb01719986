"""An HTTPS client: h11 and h2 speak HTTP without I/O, as our handshake does TLS, and a session moves the bytes.

* `urls`: what a URL says, also one as people type it; `proxies`: those of the environment, which are refused;
* `messages`: what is asked; `bodies`: what is sent with it;
* `limits`: how long it may take; `exchange`: one request and its answer on a session, by `http1` or `http2`;
* `channel`: a session and what is kept of HTTP on it between two requests;
* `sessions`: TLS sessions in a file, for the next run to resume;
* `response`: an answer, whose body may be read in pieces; `saving`: into a file, whole or not at all;
* `client`: `Client`, which keeps connections and follows redirects; `get`, `post`, `request`.
"""
