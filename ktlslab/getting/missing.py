"""What curl has and `ktlslab get` has not, and why: for its help, and for whoever uses such an option.

The names are those of `curl --help all`, 7.88 to 8.17. `ktlslab get` moves bytes over one TLS connection of which it
can say who makes the records; what does not serve that is left to curl.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Missing:
    """Options that are missing for one reason. `what` names them for people; `why` may name what to do instead."""

    what: str
    why: str
    names: tuple[str, ...]


def _missing(what: str, why: str, names: str) -> Missing:
    return Missing(what, why, tuple(name if name.startswith("-") else f"--{name}" for name in names.split()))


MISSING = (
    _missing(
        "other protocols than https",
        "there are no TLS records of ours in them",
        "-a append -B use-ascii compressed-ssh crlf disable-eprt disable-epsv false-start ftp-account -P ftp-port -t"
        " ftp-alternative-to-user ftp-create-dirs ftp-method ftp-pasv ftp-pret ftp-skip-pasv-ip ftp-ssl-ccc"
        " ftp-ssl-ccc-mode ftp-ssl-control hostpubmd5 hostpubsha256 ipfs-gateway knownhosts krb -l list-only"
        " login-options mail-auth mail-from mail-rcpt mail-rcpt-allowfails proto proto-default proto-redir pubkey -Q"
        " quote sasl-authzid sasl-ir ssl ssl-reqd telnet-option tftp-blksize tftp-no-options upload-flags",
    ),
    _missing(
        "proxies",
        "ktlslab speaks to servers directly, without a proxy",
        "-x proxy preproxy -p proxytunnel -U proxy-user proxy1.0 haproxy-protocol haproxy-clientip socks4 socks4a"
        " socks5 socks5-basic socks5-gssapi socks5-gssapi-nec socks5-gssapi-service socks5-hostname"
        " suppress-connect-headers proxy-anyauth proxy-basic proxy-ca-native proxy-cacert proxy-capath proxy-cert"
        " proxy-cert-type proxy-ciphers proxy-crlfile proxy-digest proxy-header proxy-http2 proxy-insecure"
        " proxy-key proxy-key-type proxy-negotiate proxy-ntlm proxy-pass proxy-pinnedpubkey proxy-service-name"
        " proxy-ssl-allow-beast proxy-ssl-auto-client-cert proxy-tls13-ciphers proxy-tlsauthtype proxy-tlspassword"
        " proxy-tlsuser proxy-tlsv1",
    ),
    _missing(
        "HTTP/3, 1.0 and 0.9",
        "QUIC makes its own records, in userspace; the others are history",
        "http3 http3-only -0 http1.0 http0.9 alt-svc http2-prior-knowledge no-alpn no-npn",
    ),
    _missing(
        "transfers at once",
        "one at a time, so that its record layer, time and CPU are its own; start several processes",
        "-Z parallel parallel-immediate parallel-max parallel-max-host -: next rate",
    ),
    _missing(
        "forms",
        "make the body, and send it by --data-binary @FILE with -H 'Content-Type: ...'",
        "-F form form-escape form-string data-urlencode url-query",
    ),
    _missing(
        "cookie jars, HSTS, ETags",
        "nothing is kept from one run to the next but TLS sessions; send a cookie by -b NAME=VALUE",
        "-c cookie-jar -j junk-session-cookies hsts etag-compare etag-save",
    ),
    _missing(
        "other authentication than basic",
        "give a token by -H 'Authorization: ...'",
        "anyauth basic digest negotiate ntlm ntlm-wb oauth2-bearer aws-sigv4 delegation service-name location-trusted"
        " tlsauthtype tlspassword tlsuser",
    ),
    _missing(
        ".curlrc, .netrc, variables",
        "what is asked for stands in the command itself",
        "-K config -q disable -n netrc netrc-file netrc-optional variable disallow-username-in-url",
    ),
    _missing(
        "unchecked certificates",
        "it makes TLS pointless: trust a certificate by --ca, or say --accept-any-certificate",
        "-k insecure doh-insecure ssl-allow-beast ssl-no-revoke ssl-revoke-best-effort",
    ),
    _missing(
        "early data",
        "whoever sees it can send it again (RFC 8446, 8)",
        "tls-earlydata",
    ),
    _missing(
        "other choices in TLS",
        "--tls 1.2 or 1.3 and --suite choose; certificates and keys are PEM files without a password",
        "ca-native capath cert-status cert-type ciphers crlfile curves dump-ca-embed ech egd-file engine key-type"
        " no-sessionid pass pinnedpubkey random-file sigalgs ssl-auto-client-cert -2 sslv2 -3 sslv3 tls-max"
        " tls13-ciphers -1 tlsv1 tlsv1.0 tlsv1.1 tlsv1.2 tlsv1.3",
    ),
    _missing(
        "choices below TLS",
        "the stage `connect` is what all measurements use; --resolve names an address",
        "abstract-unix-socket connect-to dns-interface dns-ipv4-addr dns-ipv6-addr dns-servers doh-cert-status doh-url"
        " happy-eyeballs-timeout-ms interface ip-tos -4 ipv4 -6 ipv6 keepalive-cnt keepalive-time local-port mptcp"
        " no-keepalive tcp-fastopen tcp-nodelay unix-socket vlan-priority",
    ),
    _missing(
        "finer points of a request",
        "they are few people's; -H, -X and -d say most of it",
        "data-ascii expect100-timeout -g globoff ignore-content-length -M manual max-filesize path-as-is post301"
        " post302 post303 raw request-target -z time-cond tr-encoding url limit-rate retry-max-time follow",
    ),
    _missing(
        "finer points of output",
        "-i prints the head, -v and --json say everything else, and a file is whole or not there",
        "create-file-mode -D dump-header fail-early fail-with-body libcurl metalink -N no-buffer no-clobber"
        " no-progress-meter out-null output-dir -J remote-header-name remote-name-all -R remote-time remove-on-error"
        " skip-existing stderr styled-output trace trace-ascii trace-config trace-ids trace-time -V version xattr",
    ),
)
WHY = {name: missing for missing in MISSING for name in missing.names}
DIFFERENT = {
    "--json": "says what happened, for programs; curl's sends JSON: here -H 'Content-Type: application/json' -d DATA",
    "--retry": "prints the last answer only, where curl prints the failed ones as well",
    "-C": "takes - only, and keeps what has come in FILE.part: no file has its name before it is whole",
}


def epilog() -> str:
    """Return both tables for the help."""
    width = max(len(missing.what) for missing in MISSING)
    lines = ["What curl has and this has not, and why:"]
    lines += [f"  {missing.what:<{width}}  {missing.why}" for missing in MISSING]
    lines += ["What is not as curl's:"]
    lines += [f"  {name:<{width}}  {how}" for name, how in DIFFERENT.items()]
    return "\n".join(lines)
