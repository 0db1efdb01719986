"""For any argument, a public function returns a result or raises a KtlsLabError that says what to do."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ktlslab
from ktlslab.errors import KtlsLabError, PeerTimeoutError, UsageError
from tests.handpeer import HandPeers

WRONG = (
    *(None, True, -1, 0, 1 << 70, 65536, 0.5, -1.5, float("nan"), float("inf")),
    *("", "x", "\0", "\udcff", "no such thing", "AES-128", "localhost:443", "a..b", "1.2", "here"),
    *(b"", b"x", bytearray(3), (), [], [None], ["x"], {}, {"x": 1}, {1, 2}, ("localhost", 443)),
    *(object(), object, len, Path("/no/such/file"), Path(), ktlslab.Direction.TX, ktlslab.Suite.TLS_SM4_CCM_SM3),
    *(pd.DataFrame(), pd.DataFrame({"x": [1]}), ktlslab.ClientConfig(), UsageError("x")),
)
ANYTHING = st.sampled_from(WRONG) | st.text(max_size=8) | st.binary(max_size=8) | st.integers() | st.floats()


@dataclass(frozen=True)
class Case:
    """A function and arguments that it takes. Those in `kept` are not replaced: junk could be valid there."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    kept: tuple[str, ...] = ()


class Room:
    """Arguments for the functions: made once, with new connections for each call."""

    def __init__(self, stack, certificates, folder):
        self.stack, self.certificates, self.folder = stack, certificates, folder
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        with socket.create_server(("127.0.0.1", 0)) as closed:
            self.closed_port = closed.getsockname()[1]
        self.client, self.server = (
            stack.enter_context(end) for end in ktlslab.session_pair(record_layer="userspace", io_engine="uring")
        )
        self.handshake, _ = stack.enter_context(HandPeers()).shake("syscall", "client")  # no Stream uses it
        self.ring = stack.enter_context(ktlslab.Ring(8))
        self.server_config = ktlslab.ServerConfig(certificate=certificates.server("good"))

    def connection(self):
        """Connect to a listener that does not answer."""
        made = ktlslab.connect("127.0.0.1", self.listener.getsockname()[1], io_engine="syscall", timeout=0.01)
        return self.stack.enter_context(made)

    def visited(self):
        """Return the listener once a client has connected to it and closed."""
        self.connection().close()
        return self.listener


def keys(room):
    return ktlslab.export(room.handshake)


ENGINE = {"io_engine": "syscall", "ring": None, "timeout": 0.01}
OPEN = {"record_layer": "auto", **ENGINE}


STREAM = (
    ("send", {"data": b"x", "more": False}),
    ("send_many", {"buffers": [b"x"]}),
    ("send_record", {"data": b"x", "record_type": 21}),
    ("sendfile", {"file": None, "offset": 0, "count": 1}),
    ("splice_from", {"pipe": -1, "count": 1}, "pipe"),
    ("recv_into", {"buffer": bytearray(1)}),
    ("recv", {"count": 1}),
    ("recv_exactly_into", {"buffer": bytearray(1)}),
    ("splice_into", {"pipe": -1, "count": 1}, "pipe"),
    ("update_keys", {"request_peer": False}),
    ("limit_records", {"size": 1}),
)
# Descriptors are kept: what is junk here may be another's. So are the time-outs of calls that wait: junk may be long.
RING = (
    ("supports", {"opcode": 0}),
    ("connect", {"fd": -1, "family": socket.AF_INET, "sockaddr": ("127.0.0.1", 1)}, "fd"),
    ("accept", {"fd": -1, "timeout": 0.01}, "fd"),
    ("send", {"fd": -1, "data": b"x", "flags": 0, "timeout": 0.01}, "fd"),
    ("recv_into", {"fd": -1, "buffer": bytearray(1), "flags": 0, "timeout": 0.01}, "fd"),
    ("send_record", {"fd": -1, "data": b"x", "record_type": 21, "timeout": 0.01}, "fd"),
    ("recv_record", {"fd": -1, "buffer": bytearray(1), "flags": 0, "timeout": 0.01}, "fd"),
    ("send_many", {"fd": -1, "buffers": [b"x"], "flags": 0, "timeout": 0.01}, "fd"),
    ("shutdown", {"fd": -1, "how": 0}, "fd"),
    ("sender", {"fd": -1, "timeout": 0.01}),
    ("record_receiver", {"fd": -1, "timeout": 0.01}),
    ("reap", {"wait_for": 1, "timeout": 0.01}, "timeout"),
    ("buffer_ring", {"count": 2, "size": 64}),
    ("recv_multishot", {"fd": -1, "buffers": None, "timeout": 0.01}, "fd"),
    ("register_files", {"fds": [-1]}),
    ("register_buffers", {"buffers": [b""]}),
    ("cancel", {"token": 1}),
)


def in_stream(room, name, arguments, kept):
    """Make a case of a stream's method: a new stream each time, on which nothing comes."""
    return lambda: Case(getattr(ktlslab.Stream(room.connection()), name), arguments, tuple(kept))


def in_ring(room, name, arguments, kept):
    """Make a case of a ring's method; what the kernel answers is OSError."""

    def call(**given):
        with contextlib.suppress(OSError):
            return getattr(room.ring, name)(**given)

    return lambda: Case(call, arguments, tuple(kept))


def cases(room):
    """Return what makes each case, by name."""
    return {
        "connect": lambda: Case(ktlslab.connect, {"host": "127.0.0.1", "port": room.closed_port, **ENGINE}),
        "accept": lambda: Case(ktlslab.accept, {"listener": room.visited(), **ENGINE}),
        "handshake": lambda: Case(ktlslab.handshake, {"connection": room.connection(), "config": None}),
        "export": lambda: Case(ktlslab.export, {"handshake": room.handshake, "directions": ()}),
        "install": lambda: Case(
            ktlslab.install, {"connection": room.connection(), "keys": keys(room), "directions": (), "wipe": True}
        ),
        "install_linked": lambda: Case(
            ktlslab.install_linked,
            {"connection": room.connection(), "keys": keys(room), "directions": (), "first": b"", "wipe": True},
        ),
        "ClientConfig": lambda: Case(
            ktlslab.ClientConfig,
            dict.fromkeys(("server_name", "ca", "verify", "versions", "suites", "groups", "alpn", "certificate", "key"))
            | {"verify": True, "versions": "1.3", "alpn": (), "resume": None, "psk": None, "library": "rustls"},
        ),
        "ServerConfig": lambda: Case(
            ktlslab.ServerConfig,
            {"certificate": "x.pem", "key": None, "versions": ["1.2"], "suites": None, "groups": None, "alpn": ()}
            | {"client_ca": None, "psk": None, "library": "rustls"},
        ),
        "Psk": lambda: Case(ktlslab.Psk, {"identity": "lab", "key": b"agreed on"}),
        "make_certificates": lambda: Case(
            ktlslab.make_certificates, {"folder": room.folder, "address": "127.0.0.1"}, kept=("folder",)
        ),
        "make_certificates in no folder": lambda: Case(ktlslab.make_certificates, {"folder": "/no/such/folder"}),
        "open_session": lambda: Case(
            ktlslab.open_session, {"host": "127.0.0.1", "port": room.closed_port, "config": None, **OPEN}
        ),
        "accept_session": lambda: Case(
            ktlslab.accept_session, {"listener": room.visited(), "config": room.server_config, **OPEN}
        ),
        "session_pair": lambda: Case(
            ktlslab.session_pair,
            {"record_layer": "plain", "io_engine": "syscall", "suite": "AES-128-GCM", "timeout": 0.1},
        ),
        "get": lambda: Case(
            ktlslab.get,
            {"url": f"https://127.0.0.1:{room.closed_port}/", "config": None, "record_layer": "auto"}
            | {"io_engine": "syscall", "timeout": 0.01},
        ),
        "post": lambda: Case(
            ktlslab.post,
            {"url": f"https://127.0.0.1:{room.closed_port}/", "body": b"x", "headers": (), "timeout": 0.01},
        ),
        "request": lambda: Case(
            ktlslab.request,
            {"method": "GET", "url": f"https://127.0.0.1:{room.closed_port}/", "redirects": 1, "stream": True}
            | {"connect_timeout": 0.01, "stall_timeout": 1.0, "resolve": None, "proxies": "ignore"},
        ),
        "Client": lambda: Case(
            ktlslab.Client,
            {"config": None, "timeout": 1.0, "stall_bytes": 1.0, "proxies": "refuse"}
            | {"http": "1.1", "no_proxy": None},
        ),
        "Relay": lambda: Case(ktlslab.Relay, {"target": ("localhost",), "fault": None, "seconds": 1}, kept=("target",)),
        "Relay to nowhere": lambda: Case(ktlslab.Relay, {"target": ("localhost", 1), "fault": 1}, kept=("fault",)),
        "Fault": lambda: Case(
            ktlslab.Fault,
            {
                "kind": "flip",
                "towards": "client",
                "record": 0,
                "byte": None,
                "handshake": False,
                "part": "tag",
                "bit": 0,
            }
            | {"keep": 0, "seconds": 1.0, "length": 0, "data": b"", "padding": 0},
        ),
        "Suite.of": lambda: Case(ktlslab.Suite.of, {"value": "AES-128-GCM"}),
        "Version.of": lambda: Case(ktlslab.Version.of, {"value": "1.3"}),
        "read_table": lambda: Case(ktlslab.read_table, {"path": "/no/such/table.parquet"}),
        "read_profile": lambda: Case(ktlslab.read_profile, {"path": "/no/such/profile.parquet"}),
        "read_estimate": lambda: Case(ktlslab.read_estimate, {"path": "/no/such/estimate.parquet"}),
        "profile": lambda: Case(
            ktlslab.profile, {"plan": "quick", "on": "no such machine", "progress": False}, kept=("on",)
        ),
        "estimate": lambda: Case(
            ktlslab.estimate,
            {"plan": "no such plan", "on": "newest", "check": False, "measured": None, "profiled": None},
            kept=("plan",),
        ),
        "estimate on nothing": lambda: Case(
            ktlslab.estimate, {"plan": "quick", "on": "no such machine", "check": False}, kept=("on",)
        ),
        "effects": lambda: Case(ktlslab.effects, {"frame": pd.DataFrame()}),
        "compare": lambda: Case(
            ktlslab.compare, {"a": pd.DataFrame(), "b": pd.DataFrame(), "tolerance": None, "quantities": None}
        ),
        "sweep": lambda: Case(ktlslab.sweep, {"plan": "quick", "on": "no such machine", "clock": None}, kept=("on",)),
        "Plan": lambda: Case(ktlslab.Plan, {field.name: field.default for field in fields(ktlslab.Plan) if field.init}),
        "Stream": lambda: Case(
            ktlslab.Stream, {"connection": room.connection(), "handshake": None, "kernel": (), "record_limit": None}
        ),
        **{f"Stream.{name}": in_stream(room, name, arguments, kept) for name, arguments, *kept in STREAM},
        "Ring": lambda: Case(ktlslab.Ring, {"entries": 4, "sqpoll": False, "defer_taskrun": False}),
        **{f"Ring.{name}": in_ring(room, name, arguments, kept) for name, arguments, *kept in RING},
        "sweep that is told to stop": lambda: Case(
            ktlslab.sweep, {"plan": "quick", "on": "no such machine", "stop": None}, kept=("on",)
        ),
        "SweepForm": lambda: Case(ktlslab.SweepForm, {"output": "form.parquet"}),
        "sweep of nothing": lambda: Case(ktlslab.sweep, {"plan": "no such plan", "on": "here"}, kept=("plan",)),
    }


NOT_HERE = {
    # What functions return; no one makes one by hand.
    *("Connection", "Handshake", "TrafficKeys", "DirectionKeys", "Installed", "Refused", "Resumption", "Response"),
    *("Session", "Certificates", "Counters"),
    # Functions without arguments, and names that are not functions.
    *("doctor", "kernel_suites", "probe", "Direction", "Why", "KtlsLabError"),
    *(
        "course",
        "errors",
        "estimating",
        "guests",
        "linux",
        "measure",
        "plots",
        "profiling",
        "promises",
        "show",
        "stages",
        "tls",
    ),
}


@pytest.fixture(scope="module")
def room(certificates, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        folder = tmp_path_factory.mktemp("room")
        stack.enter_context(contextlib.chdir(folder))  # some junk is a name that a file can have
        yield Room(stack, certificates, folder)


def test_every_public_function_is_among_them():
    assert {name.partition(".")[0].partition(" ")[0] for name in cases(None)} | NOT_HERE >= set(ktlslab.__all__)
    assert not NOT_HERE & set(cases(None))


def shown(arguments):
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


@pytest.mark.parametrize("name", cases(None))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bad_input_is_an_error_with_a_remedy(name, room, data):
    case = cases(room)[name]()
    chosen = data.draw(st.lists(st.sampled_from(sorted(set(case.arguments) - set(case.kept))), min_size=1, max_size=2))
    arguments = dict(case.arguments)
    for argument in chosen:
        # None means no timeout: a valid value, but nothing would ever connect.
        junk = ANYTHING.filter(lambda value: value is not None) if argument == "timeout" else ANYTHING
        arguments[argument] = data.draw(junk, label=argument)
    try:
        result = case.function(**arguments)
    except KtlsLabError as error:
        told = error.remedy if isinstance(error, UsageError) else error.answered
    else:
        told = "a result"
        for one in result if isinstance(result, tuple) else (result,):
            if hasattr(one, "close"):
                with contextlib.suppress(PeerTimeoutError):  # with a time-out of next to nothing
                    one.close()
    assert told


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ktlslab.connect("localhost:443"), r'separately: connect\("localhost", 443\)'),
        (lambda: ktlslab.connect(("localhost", 443)), r'separately: connect\("localhost", 443\)'),
        (lambda: ktlslab.ClientConfig(suites=("TLS_AES_128_GCM_SHA265",)), "Did you mean TLS_AES_128_GCM_SHA256"),
        (lambda: ktlslab.ClientConfig(verify="no"), "verify.*bool"),
        (lambda: ktlslab.Psk(identity="lab", key="not bytes"), "key.*str.*bytes"),
        (lambda: ktlslab.open_session("localhost", record_layer="kerne"), "Did you mean kernel"),
        (lambda: ktlslab.handshake("localhost"), "connect or accept makes one"),
    ],
)
def test_the_message_names_the_way_out(call, says):
    with pytest.raises(UsageError, match=says):
        call()


def test_no_message_holds_a_key():
    with pytest.raises(UsageError) as caught:
        ktlslab.Psk(identity="lab", key="secret words")
    assert "secret words" not in str(caught.value)


def test_names_lists_and_strings_stand_for_suites_versions_tuples_and_paths(certificates):
    suite = ktlslab.Suite.TLS_AES_128_GCM_SHA256
    for given_suites in (suite, [suite], "AES-128-GCM", ["TLS_AES_128_GCM_SHA256"], (suite.openssl_name,)):
        config = ktlslab.ClientConfig(suites=given_suites, ca=str(certificates.ca), alpn="h2", versions=["1.3"])
        assert config == ktlslab.ClientConfig(
            suites=(suite,), ca=certificates.ca, alpn=("h2",), versions=(ktlslab.Version.TLS13,)
        )


# The order of the stages


def test_a_handshake_is_done_once(tls_pair):
    pair = tls_pair()
    with pytest.raises(UsageError, match="handshake was already called on this connection"):
        ktlslab.handshake(pair.connection)


def test_stages_on_a_closed_connection_say_so(tls_pair, room):
    pair = tls_pair()
    traffic_keys = ktlslab.export(pair.handshake)
    pair.connection.close()
    for call in (
        lambda: ktlslab.handshake(pair.connection),
        lambda: ktlslab.export(pair.handshake),
        lambda: ktlslab.install(pair.connection, traffic_keys),
        lambda: ktlslab.install_linked(pair.connection, traffic_keys),
    ):
        with pytest.raises(UsageError, match="connection is closed"):
            call()
    room.visited().getsockname()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.close()
    with pytest.raises(UsageError, match="listening socket is closed"):
        ktlslab.accept(listener)


def test_keys_that_were_wiped_are_not_installed(tls_pair):
    pair = tls_pair()
    traffic_keys = ktlslab.export(pair.handshake)
    traffic_keys.wipe()
    with pytest.raises(UsageError, match="keys were wiped"):
        ktlslab.install(pair.connection, traffic_keys)
