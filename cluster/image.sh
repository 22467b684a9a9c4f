#!/usr/bin/env bash
# An image of this checkout for Kubernetes, from Debian's packages and wheels: no registry, no daemon, no base image.
#
#     cluster/image.sh OUT.tar
#
# OUT.tar is an OCI archive: `skopeo copy oci-archive:OUT.tar docker://REGISTRY/bendscape:1` hands it to a registry.
# Needs mmdebstrap, buildah and Python 3.11 with pip; root, or a user who may make user namespaces.
# Everything is installed from wheels that are fetched outside the image, so that no address or password of a
# package index gets into it.
set -euo pipefail

out=$(realpath -- "${1:?usage: cluster/image.sh OUT.tar}")
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then exec buildah unshare "$PWD/cluster/image.sh" "$out"; fi

work=$(mktemp -d)
store() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
trap 'store rm --all > /dev/null 2>&1 || true; rm -rf "$work"' EXIT
say() { printf '%4d s  %s\n' "$SECONDS" "$*" >&2; }

say "wheels"
mkdir "$work/source"
git ls-files -z -- pyproject.toml README.md LICENSE core sweep analysis cluster \
    | tar --create --null --files-from=- | tar --extract --directory "$work/source"
python3.11 -m pip wheel -qq --wheel-dir "$work/wheels" --constraint constraints.txt pip "$work/source[kubernetes]"

say "Debian 12"
mmdebstrap --quiet --variant=essential --include=python3,libstdc++6,tzdata,ca-certificates,wget \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$work/debian.tar"

# Three layers, which nodes fetch side by side. Each build makes all of them anew, as files have the time of now.
say "layers"
run() { # CONTAINER COMMAND: as root in a container that sees the wheels
    store run --isolation chroot --volume "$work/wheels:/wheels:ro" "$1" -- bash -euc "$2"
}
install='/opt/bendscape/bin/python $(ls /wheels/pip-*.whl)/pip install -q --no-cache-dir --no-index --no-deps'

made=$(store from scratch)
store add --quiet "$made" "$work/debian.tar" / > /dev/null
run "$made" '
    echo bendscape:x:1000:1000::/home/bendscape:/bin/bash >> /etc/passwd
    echo bendscape:x:1000: >> /etc/group
    mkdir -m 700 /home/bendscape
    chown 1000:1000 /home/bendscape
    python3 -m venv --without-pip /opt/bendscape'
store commit --quiet --rm "$made" debian > /dev/null

made=$(store from debian)
run "$made" "$install \$(ls /wheels/*.whl | grep -Ev '/(pip|bendscape)-')"
store commit --quiet --rm "$made" packages > /dev/null

made=$(store from packages)
run "$made" "$install /wheels/bendscape-*.whl"
run "$made" '
    cd /opt/bendscape/bin
    ./bendscape kernels > /dev/null
    ./ray --version > /dev/null
    ./python -c "import zoneinfo; zoneinfo.ZoneInfo(\"Europe/Rome\")"  # which a schedule needs'
store config --user 1000:1000 --workingdir /home/bendscape --env HOME=/home/bendscape --env LANG=C.UTF-8 \
    --env PATH=/opt/bendscape/bin:/usr/local/bin:/usr/bin:/bin --cmd 'bendscape --help' "$made"
store commit --quiet --rm "$made" bendscape > /dev/null

say "archive"
rm -f "$out"
store push --quiet bendscape "oci-archive:$out:bendscape"
say "$out: $(du --block-size=1M "$out" | cut -f 1) MiB, unpacked $(store images --format '{{.Size}}' bendscape)"
