#!/bin/sh
# Debian's packages that `make test-deploy` uses: installed as root, else named. What is missing is not run, and says so.
set -eu

missing=
need() {  # PROGRAM PACKAGE
  command -v "$1" > /dev/null || missing="$missing $2"
}
need promtool prometheus
need buildah buildah
need debootstrap debootstrap
need systemd-analyze systemd
need npm npm
need chromium chromium
need chromedriver chromium-driver
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
  echo "installing:$missing"
  apt-get update -qq
  # shellcheck disable=SC2086  # several names
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $missing > /dev/null
else
  echo "not installed, and what needs it is not run:$missing (apt-get install$missing)" >&2
fi
