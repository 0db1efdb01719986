"""Web servers: nginx, Apache, lighttpd with each of its TLS libraries, and caddy, which is Go's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ktlslab.tls.suites import Version
from tests.interop import stacks
from tests.interop.stacks import RETRY_GROUP, USUAL, Server, Setup, Started, process

COMMON = {
    stacks.DEFAULT,
    stacks.RESUMED,
    stacks.BOTH_UPDATE,
    stacks.CLIENT_CERTIFICATE,
    stacks.NO_CERTIFICATE,
    stacks.RETRY,
    stacks.UPLOAD,
}
USER = "root" if os.geteuid() == 0 else ""


@contextlib.contextmanager
def nginx(setup: Setup) -> Iterator[Started]:
    material, folder = setup.material, setup.folder
    more = [
        *setup.when(stacks.TICKETS[0], "ssl_session_tickets off;"),
        *setup.when(stacks.EARLY, "ssl_early_data on;"),
        *setup.when(stacks.RETRY, f"ssl_ecdh_curve {RETRY_GROUP};"),
        *setup.when(stacks.SMALL, "ssl_buffer_size 1k;"),
    ]
    if setup.wants_certificate:
        more.append(f"ssl_verify_client on; ssl_client_certificate {material.ca};")
    temporary = " ".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = f"""
    daemon off; master_process off; pid {folder}/pid; error_log stderr; {f"user {USER};" if USER else ""}
    events {{ worker_connections 64; }}
    http {{
      access_log off; {temporary} client_max_body_size 0;
      server {{
        listen 127.0.0.1:{setup.port} ssl; root {material.www};
        ssl_certificate {material.file("server.crt")}; ssl_certificate_key {material.file("server.key")};
        ssl_protocols TLSv1.2 TLSv1.3; {" ".join(more)}
        location /upload {{ proxy_pass http://127.0.0.1:{setup.backend}; }}
      }}
    }}
    """
    with process(setup, "nginx", "-p", folder, "-c", setup.write("nginx.conf", text), "-e", "stderr") as started:
        yield started


APACHE_MODULES = Path("/usr/lib/apache2/modules")


@contextlib.contextmanager
def apache(setup: Setup) -> Iterator[Started]:
    material, folder = setup.material, setup.folder
    modules = ("mpm_event", "authz_core", "ssl", "proxy", "proxy_http")
    more = [
        *setup.when(stacks.TICKETS[0], "SSLSessionTickets off"),
        *setup.when(stacks.RETRY, "SSLOpenSSLConfCmd Curves P-384"),
    ]
    if setup.wants_certificate:
        more += ["SSLVerifyClient require", f"SSLCACertificateFile {material.ca}"]
    lines = [
        *(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in modules),
        *(["User www-data", "Group www-data"] if USER else []),
        f"PidFile {folder}/pid",
        f"DefaultRuntimeDir {folder}",
        "ErrorLog /dev/stderr",
        "ServerName localhost",
        "StartServers 1",
        "ThreadsPerChild 4",
        "MaxRequestWorkers 4",
        "ServerLimit 1",
        f"Listen 127.0.0.1:{setup.port}",
        f"DocumentRoot {material.www}",
        "SSLEngine on",
        "SSLProtocol -all +TLSv1.2 +TLSv1.3",
        f"SSLCertificateFile {material.file('server.crt')}",
        f"SSLCertificateKeyFile {material.file('server.key')}",
        f"ProxyPass /upload http://127.0.0.1:{setup.backend}/upload",
        *more,
    ]
    with process(
        setup, "apache2", "-f", setup.write("apache.conf", "\n".join(lines) + "\n"), "-DFOREGROUND"
    ) as started:
        yield started


@contextlib.contextmanager
def lighttpd(module: str, setup: Setup) -> Iterator[Started]:
    material = setup.material
    commands = {"MinProtocol": "TLSv1.2"}
    if setup.feature == stacks.RETRY:
        commands["Curves"] = "P-384"
    if setup.feature == stacks.BOTH_UPDATE and module == "mod_openssl":
        commands["Options"] = "-KTLS"  # OpenSSL 3.0 goes on with the kernel's former keys
    said = ", ".join(f'"{name}" => "{value}"' for name, value in commands.items())
    lines = [
        f'server.modules = ("mod_proxy", "{module}")',
        f'server.document-root = "{material.www}"',
        f"server.port = {setup.port}",
        'server.bind = "127.0.0.1"',
        'server.errorlog = "/dev/stderr"',
        'ssl.engine = "enable"',
        f'ssl.pemfile = "{material.file("server.crt")}"',
        f'ssl.privkey = "{material.file("server.key")}"',
        f"ssl.openssl.ssl-conf-cmd = ({said})",
        f'$HTTP["url"] =~ "^/upload" {{ proxy.server = ("" => (("host" => "127.0.0.1", "port" => {setup.backend}))) }}',
    ]
    if setup.wants_certificate:
        lines += [
            'ssl.verifyclient.activate = "enable"',
            'ssl.verifyclient.enforce = "enable"',
            f'ssl.ca-file = "{material.ca}"',
        ]
    with process(setup, "lighttpd", "-D", "-f", setup.write("lighttpd.conf", "\n".join(lines) + "\n")) as started:
        yield started


@contextlib.contextmanager
def caddy(setup: Setup) -> Iterator[Started]:
    material = setup.material
    inner = ["protocols tls1.2 tls1.3"]
    if setup.feature == stacks.RETRY:
        inner.append(f"curves {RETRY_GROUP}")
    if setup.wants_certificate:
        inner.append(f"client_auth {{\nmode require_and_verify\ntrusted_ca_cert_file {material.ca}\n}}")
    said = "\n".join(inner)
    text = f"""
    {{
      admin off
      auto_https off
    }}
    https://localhost:{setup.port} {{
      bind 127.0.0.1
      tls {material.file("server.crt")} {material.file("server.key")} {{
        {said}
      }}
      root * {material.www}
      handle /upload {{
        reverse_proxy 127.0.0.1:{setup.backend}
      }}
      handle {{
        file_server
      }}
    }}
    """
    argv = ["caddy", "run", "--config", setup.write("Caddyfile", text), "--adapter", "caddyfile"]
    with process(
        setup, *argv, env={"XDG_DATA_HOME": str(setup.folder), "XDG_CONFIG_HOME": str(setup.folder)}
    ) as started:
        yield started


def _lighttpd(library: str, module: str, **options: object) -> Server:
    given: dict[str, object] = {"features": frozenset(COMMON), **options}
    return Server(
        name=f"lighttpd on {library}",
        library=library,
        package=f"lighttpd-mod-{module}",
        needs=("lighttpd", f"/usr/lib/lighttpd/mod_{module}.so"),
        version=("lighttpd", "-v"),
        start=partial(lighttpd, f"mod_{module}"),
        **given,
    )


STACKS: tuple[Server, ...] = (
    Server(
        name="nginx",
        library="OpenSSL",
        package="nginx",
        needs=("nginx",),
        version=("nginx", "-v"),
        features=frozenset({*COMMON, stacks.EARLY, stacks.SMALL}),
        start=nginx,
        refuses=frozenset({"400"}),
    ),
    Server(
        name="Apache httpd",
        library="OpenSSL",
        package="apache2-bin",
        needs=("apache2",),
        version=("apache2", "-v"),
        features=frozenset(COMMON),
        start=apache,
    ),
    _lighttpd("OpenSSL", "openssl"),  # which lets the kernel make its records
    _lighttpd("GnuTLS", "gnutls", refuses=frozenset({"alert", "close"})),
    _lighttpd(
        "mbedTLS",
        "mbedtls",
        suites=tuple(suite for suite in USUAL if suite.version is Version.TLS12),
        refuses=frozenset({"alert", "close"}),
    ),
    _lighttpd(  # it takes no authority from a file, and knows no suite of TLS 1.3
        "NSS",
        "nss",
        suites=tuple(suite for suite in USUAL if suite.version is Version.TLS12),
        features=frozenset(COMMON - {stacks.CLIENT_CERTIFICATE, stacks.NO_CERTIFICATE}),
    ),
    _lighttpd(  # it takes no names of curves, and has them all
        "wolfSSL", "wolfssl", features=frozenset(COMMON - {stacks.RETRY}), refuses=frozenset({"alert", "close"})
    ),
    Server(
        name="caddy",
        library="Go crypto/tls",
        package="caddy",
        needs=("caddy",),
        version=("caddy", "version"),
        features=frozenset(COMMON),
        start=caddy,
    ),
)
Start = Callable[[Setup], contextlib.AbstractContextManager[Started]]
