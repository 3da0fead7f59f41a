#!/bin/sh
# Debian's packages that `make test-deploy` uses: installed as root (or, in CI, where sudo asks for nothing), else named.
# What is missing is not run, and says so.
set -eu

missing=
need() {  # PROGRAM PACKAGE
  command -v "$1" > /dev/null || missing="$missing $2"
}
need promtool prometheus
need buildah buildah
need debootstrap debootstrap
need systemd-analyze systemd
need chromium chromium
need chromedriver chromium-driver
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
  as_root=no
  if [ -n "${CI:-}" ] && sudo -n true 2> /dev/null; then as_root=sudo; fi
fi
if [ "$as_root" != no ] && command -v apt-get > /dev/null; then
  echo "installing:$missing"
  $as_root apt-get update -qq
  # shellcheck disable=SC2086  # several names
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $missing > /dev/null
else
  echo "not installed, and what needs it is not run:$missing (apt-get install$missing)" >&2
fi
