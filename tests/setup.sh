# Sourced by tests/run and notebooks/run, from the project's folder: installs what is missing and leaves the interpreter
# of the project's own environment in $python. `source tests/setup.sh tests` also brings what only tests need. May be
# run again: what is there is left alone.
# shellcheck shell=bash

export PATH="$PATH:/usr/sbin:/sbin"
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }

# Packages: a check, then the name for apt, dnf and pacman.
missing_apt=() missing_dnf=() missing_pacman=()
need() {
  if ! eval "$1" >/dev/null 2>&1; then
    missing_apt+=("$2") missing_dnf+=("$3") missing_pacman+=("$4")
  fi
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

collect_missing() {
  missing_apt=() missing_dnf=() missing_pacman=()
  need 'command -v qemu-system-x86_64' qemu-system-x86 qemu-system-x86-core qemu-system-x86
  need 'command -v busybox && ! ldd "$(command -v busybox)"' busybox-static busybox busybox
  need 'command -v depmod' kmod kmod kmod
  need 'command -v mke2fs' e2fsprogs e2fsprogs e2fsprogs
  need 'command -v zstd' zstd zstd zstd
  need 'command -v cc || command -v gcc' gcc gcc gcc
  need 'test -e /usr/include/stdio.h' libc6-dev glibc-devel glibc
  need 'test -e /usr/include/linux/tls.h' linux-libc-dev kernel-headers linux-api-headers
  need 'test -e /usr/include/liburing.h' liburing-dev liburing-devel liburing
  need 'test -e /etc/ssl/certs/ca-certificates.crt || test -e /etc/pki/tls/certs/ca-bundle.crt' ca-certificates ca-certificates ca-certificates
  if command -v apt-get >/dev/null; then
    need 'test -e /usr/share/keyrings/debian-archive-keyring.gpg' debian-archive-keyring "" ""
  fi
  if ! venv_works; then
    need 'find_python' python3 python3 python
    need '"$(find_python)" -c "import ensurepip"' python3-venv python3-pip python-pip
  fi
  if [ "${1:-}" = tests ]; then
    need 'command -v openssl' openssl openssl openssl
    need 'command -v nginx' nginx nginx nginx
    need 'command -v cpio' cpio cpio cpio
    need 'command -v chromium || command -v chromium-browser' chromium chromium chromium
  fi
}

install_packages() {
  collect_missing "$@"
  [ "${#missing_apt[@]}" -gt 0 ] || return 0
  if command -v apt-get >/dev/null; then
    if [ "$(id -u)" -eq 0 ]; then
      say "Installing ${missing_apt[*]}"
      apt-get update -qq >&2 </dev/null
      # A service that a package brings is not to be started: the tests start their own.
      RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing_apt[@]}" >&2 </dev/null
      return
    fi
    say "Some packages are missing. Run this, then start again:"
    say "  sudo apt-get install --no-install-recommends ${missing_apt[*]}"
  elif command -v dnf >/dev/null; then
    say "Some packages are missing. Run this, then start again:"
    say "  sudo dnf install ${missing_dnf[*]}"
  elif command -v pacman >/dev/null; then
    say "Some packages are missing. Run this, then start again:"
    say "  sudo pacman -S --needed ${missing_pacman[*]}"
  else
    say "Some packages are missing, and this machine has neither apt, dnf nor pacman. By Debian's names they are:"
    say "  ${missing_apt[*]}"
  fi
  exit 1
}

make_environment() {
  venv_works && return
  local base
  if ! base=$(find_python); then
    say "ktlslab needs Python 3.11 or newer; this machine has $(python3 --version 2>/dev/null || echo none)."
    say "Install one, e.g. \`apt-get install python3.12 python3.12-venv\` where your release has it, and start again."
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
