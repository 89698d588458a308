#!/usr/bin/env bash
# Runs the README's two commands on a machine that has nothing: a Debian 13 root (glibc 2.41, Python
# 3.13) made by debootstrap, and a fresh clone of this repository in it. By hand, not in CI: it needs
# root, debootstrap, and several GB of disk and download.
#
#   scripts/fresh_machine.sh ROOT [COMMAND...]
#
#   ROOT     the folder of the root file system, made when it is missing; the clone is made each time
#   COMMAND  what to run in the clone, instead of `make demo` and `make test`
#   SUITE    Debian's release, by default trixie
#   BIND     folders of this machine that the root sees too, for instance with other Pythons or wheels:
#            BIND="/root/.pyenv /opt/wheels" scripts/fresh_machine.sh /tmp/fresh make demo PYTHON=3.10
#
# pip's configuration comes along, in its variables (PIP_...) and in what is bound. It ends with the
# root mounted nowhere, and leaves it in place.
set -euo pipefail

root=$1
shift
packages=ca-certificates,git,make,python3,python3-venv
here=$(cd "$(dirname "$0")/.." && pwd)

if [ ! -e "$root/usr/bin/make" ]; then
  debootstrap --variant=minbase --include=$packages "${SUITE:-trixie}" "$root"
fi

mounted=()
bind() { # FOLDER [OPTION]
  mkdir -p "$root$1"
  mount --bind ${2:+-o "$2"} "$1" "$root$1"
  mounted=("$root$1" "${mounted[@]}")
}
trap 'for each in "${mounted[@]}"; do umount "$each"; done' EXIT
for folder in /proc /dev /dev/pts /dev/shm; do bind "$folder"; done
for folder in ${BIND:-}; do bind "$folder" ro; done

# The machine's own certificates too: what it downloads may come through a proxy that has one.
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"

rm -rf "$root/root/clone"
git clone --quiet --no-local "$here" "$root/root/clone"

variables=$(env | grep -E '^(PIP_|UV_|SSL_CERT|REQUESTS_CA|[a-z]+_proxy)' || true)
run() {
  echo "+ $*   # $(. "$root/etc/os-release" && echo "$PRETTY_NAME")"
  # shellcheck disable=SC2086,SC2016
  (unset IFS; IFS=$'\n'; exec chroot "$root" env -i HOME=/root PATH=/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 $variables sh -c 'cd /root/clone && exec "$@"' sh "$@")
}
run python3 -c 'import os, sys; print("Python", *sys.version_info[:3], os.confstr("CS_GNU_LIBC_VERSION"))'
if [ $# -gt 0 ]; then
  run "$@"
else
  run make demo
  run make test
fi
