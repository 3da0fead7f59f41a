#!/bin/sh
# The container image: `deploy/image.sh NAME[:TAG] [BASE]`, by buildah, podman or docker, whichever is there.
#
# BASE replaces the Dockerfile's own base image. `stand-in` makes one from Debian's packages (as root, with debootstrap),
# where no image registry can be reached.
set -eu
name=$1
base=${2:-}
cd "$(dirname "$0")/.."

engine=
for each in buildah podman docker; do
  if command -v "$each" > /dev/null; then engine=$each && break; fi
done
[ -n "$engine" ] || { echo "image: install buildah, podman or docker" >&2; exit 1; }

stand_in() {
  if ! buildah inspect --type image "$1" > /dev/null 2>&1; then
    root=$(mktemp -d)
    trap 'exit 1' INT TERM  # so that what follows is done then, too
    trap 'umount "$root/proc" 2> /dev/null || true; rm -rf --one-file-system "$root"' EXIT
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root" >&2
    umount "$root/proc" 2> /dev/null || true
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$root" / > /dev/null
    buildah commit --quiet "$container" "$1" > /dev/null
    buildah rm "$container" > /dev/null
  fi
}

set --
if [ "$base" = stand-in ]; then
  base=localhost/tiled-ingest-stand-in:bookworm
  stand_in "$base"
  set -- --pull-never
fi
if [ -n "$base" ]; then
  set -- "$@" --build-arg "BASE=$base"
fi
# A site's own certificate authorities, for its package mirror; docker cannot mount in a build.
if [ "$engine" != docker ] && [ -d /etc/ssl/certs ]; then
  set -- "$@" --volume /etc/ssl/certs:/etc/ssl/certs:ro
fi
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' service/tiled_ingest/__init__.py)
revision=$(git rev-parse --verify --quiet HEAD || echo unknown)
"$engine" build "$@" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --tag "$name" .
