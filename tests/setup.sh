# Sourced by tests/run and notebooks/run in the project's folder. Installs what is missing and sets $python to the
# interpreter in .venv. `source tests/setup.sh tests` also installs what only tests need, `handouts` what prints PDFs.
# Running it again is safe: it does not touch what is already installed.
# shellcheck shell=bash

export PATH="$PATH:/usr/sbin:/sbin"
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }

# need NAME TEST: note NAME, listed in ktlslab/packages.txt, as missing unless TEST succeeds.
missing=()
need() {
  eval "$2" >/dev/null 2>&1 || missing+=("$1")
}

# want NAME TEST: the same for what ktlslab does less without. All of it is needed by the tests.
wanted=()
want() {
  eval "$2" >/dev/null 2>&1 || wanted+=("$1")
}

# packages COLUMN: print the packages for what is missing or wanted; column 2 is apt-get's, 3 dnf's, 4 pacman's.
packages() {
  local version name
  version=$("$(interpreter)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=3
  for name in "${missing[@]}" "${wanted[@]}"; do
    awk -v name="$name" -v column="$1" '$1 == name { print $column }' ktlslab/packages.txt
  done | sed "s/X\.Y/$version/" | sort -u | paste -sd ' '
}

find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}

python=.venv/bin/python
venv_works() { "$python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# The interpreter whose headers ktlslab is compiled with: that of .venv, or the one that will make it.
interpreter() { if venv_works; then echo "$python"; else find_python || echo python3; fi; }

collect_missing() {
  missing=()
  wanted=()
  want qemu-system-x86_64 'command -v qemu-system-x86_64'
  need busybox 'command -v busybox && ! ldd "$(command -v busybox)"'
  need depmod 'command -v depmod'
  need mke2fs 'command -v mke2fs'
  need zstd 'command -v zstd'
  want strace 'command -v strace' # notebook 11 shows system calls
  need cc 'command -v cc || command -v gcc'
  need stdio.h 'test -e /usr/include/stdio.h'
  need linux/tls.h 'test -e /usr/include/linux/tls.h'
  need liburing.h 'test -e /usr/include/liburing.h'
  need ca-certificates 'test -e /etc/ssl/certs/ca-certificates.crt || test -e /etc/pki/tls/certs/ca-bundle.crt'
  if command -v apt-get >/dev/null; then
    need debian-archive-keyring 'test -e /usr/share/keyrings/debian-archive-keyring.gpg'
    want libslirp.so.0 '"$(interpreter)" -c "import ctypes; ctypes.CDLL(\"libslirp.so.0\")"'
  fi
  if ! venv_works; then
    need python3 find_python
    need ensurepip '"$(find_python)" -c "import ensurepip"'
  fi
  need Python.h 'test -e "$("$(interpreter)" -c "import sysconfig; print(sysconfig.get_path(\"include\"))")/Python.h"'
  if [ "${1:-}" = handouts ]; then
    want chromium 'command -v chromium || command -v chromium-browser'
  fi
  if [ "${1:-}" = tests ]; then
    missing+=("${wanted[@]}")
    need ip 'command -v ip'
    need tc 'command -v tc'
    need nsenter 'command -v nsenter'
    need openssl 'command -v openssl'
    need nginx 'command -v nginx'
    need cpio 'command -v cpio'
    need curl 'command -v curl'
    # The stacks of tests/interop.
    need apache2 'command -v apache2 || command -v httpd'
    need lighttpd 'command -v lighttpd'
    need caddy 'command -v caddy'
    need haproxy 'command -v haproxy'
    need stunnel 'command -v stunnel'
    need gnutls-serv 'command -v gnutls-serv'
    need selfserv 'command -v selfserv'
    need java 'command -v java'
    need node 'command -v node'
    if command -v apt-get >/dev/null; then
      need lighttpd-openssl 'test -e /usr/lib/lighttpd/mod_openssl.so'
      need lighttpd-gnutls 'test -e /usr/lib/lighttpd/mod_gnutls.so'
      need lighttpd-mbedtls 'test -e /usr/lib/lighttpd/mod_mbedtls.so'
      need lighttpd-nss 'test -e /usr/lib/lighttpd/mod_nss.so'
      need lighttpd-wolfssl 'test -e /usr/lib/lighttpd/mod_wolfssl.so'
    fi
    need chromium 'command -v chromium || command -v chromium-browser'
  fi
}

install_packages() {
  collect_missing "$@"
  [ "$((${#missing[@]} + ${#wanted[@]}))" -gt 0 ] || return 0
  local names again="Some packages are missing. Run this, then start again:"
  [ "${#missing[@]}" -gt 0 ] || again="Less is possible until you run this:"
  if command -v apt-get >/dev/null; then
    names=$(packages 2)
    if [ "$(id -u)" -eq 0 ]; then
      say "Installing $names"
      apt-get update -qq >&2 </dev/null
      # RUNLEVEL=1: do not start the packages' services; the tests start their own.
      # shellcheck disable=SC2086 # one word per package
      RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $names >/dev/null </dev/null
      return
    fi
    say "$again"
    say "  sudo apt-get install --no-install-recommends $names"
  elif command -v dnf >/dev/null; then
    say "$again"
    say "  sudo dnf install $(packages 3)"
  elif command -v pacman >/dev/null; then
    say "$again"
    say "  sudo pacman -S --needed $(packages 4)"
  else
    say "Some packages are missing, and this machine has none of apt, dnf and pacman. Their names on Debian are:"
    say "  $(packages 2)"
  fi
  [ "${#missing[@]}" -eq 0 ] || exit 1
}

make_environment() {
  venv_works && return
  local base
  if ! base=$(find_python); then
    say "ktlslab needs Python 3.11 or newer; this machine has $(python3 --version 2>/dev/null || echo none)."
    say "Install one, e.g. \`apt-get install python3.12 python3.12-venv python3.12-dev\` where your release has it, and start again."
    exit 1
  fi
  say "Making .venv with $base"
  "$base" -m venv --clear .venv
}

install_ktlslab() {
  local stamp=.venv/ktlslab-installed now
  now=$(cat pyproject.toml ktlslab/linux/native/* | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$now" ]; then
    say "Installing ktlslab into .venv"
    "$python" -m pip install --quiet --editable '.[lab,dev]' >&2 </dev/null
    printf '%s\n' "$now" >"$stamp"
  fi
}

install_packages "$@"
make_environment
install_ktlslab
