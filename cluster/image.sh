#!/usr/bin/env bash
# An image of this checkout for Kubernetes, from Debian's packages and wheels: no registry, no daemon, no base image.
#
#     cluster/image.sh OUT.tar
#
# OUT.tar is an OCI archive: `skopeo copy oci-archive:OUT.tar docker://...`, `podman load -i OUT.tar`.
# Needs mmdebstrap, buildah and Python 3.11 with pip; root, or a user who may make user namespaces.
# The image installs from wheels that were fetched outside it, so that no address or password of an index gets in.
set -euo pipefail

out=$(realpath -- "${1:?usage: cluster/image.sh OUT.tar}")
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then exec buildah unshare "$PWD/cluster/image.sh" "$out"; fi

work=$(mktemp -d)
store=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
trap 'buildah "${store[@]}" rm --all > /dev/null 2>&1 || true; rm -rf "$work"' EXIT
say() { printf '%4d s  %s\n' "$SECONDS" "$*" >&2; }
mkdir "$work/context"

say "wheels"
git ls-files -z -- pyproject.toml README.md LICENSE core sweep analysis cluster \
    | tar --create --null --files-from=- | tar --extract --directory "$(mkdir "$work/source" && echo "$work/source")"
python3.11 -m pip wheel --quiet --quiet --wheel-dir "$work/wheels" --constraint constraints.txt pip "$work/source[kubernetes]"

say "Debian 12"
mmdebstrap --quiet --variant=essential --include=python3,ca-certificates,wget \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$work/context/debian.tar"

# Packages first, this project last: a change here alters the last layer, which is small, and the others are shared.
cat > "$work/Containerfile" <<'END'
FROM scratch
ADD debian.tar /
RUN python3 -m venv --without-pip /opt/bendscape \
 && ls /wheels/*.whl | grep -Ev '/(pip|bendscape)-' > /tmp/others \
 && /opt/bendscape/bin/python "$(ls /wheels/pip-*.whl)/pip" install -q --no-cache-dir --no-index --no-deps --no-compile \
      -r /tmp/others \
 && rm /tmp/others && echo bendscape:x:1000:1000::/home/bendscape:/bin/bash >> /etc/passwd \
 && echo bendscape:x:1000: >> /etc/group && mkdir -m 700 /home/bendscape && chown 1000:1000 /home/bendscape
RUN /opt/bendscape/bin/python "$(ls /wheels/pip-*.whl)/pip" install -q --no-cache-dir --no-index --no-deps --no-compile \
      /wheels/bendscape-*.whl
ENV PATH=/opt/bendscape/bin:/usr/local/bin:/usr/bin:/bin HOME=/home/bendscape LANG=C.UTF-8 PYTHONUNBUFFERED=1
WORKDIR /home/bendscape
USER 1000:1000
CMD ["bendscape", "--help"]
END
say "layers"
buildah "${store[@]}" bud --quiet --layers --isolation chroot --volume "$work/wheels:/wheels:ro" \
    --file "$work/Containerfile" --tag bendscape "$work/context" > /dev/null
say "archive"
rm -f "$out"
buildah "${store[@]}" push --quiet bendscape "oci-archive:$out:bendscape"
say "$out: $(du --block-size=1M "$out" | cut -f 1) MiB, unpacked $(buildah "${store[@]}" images --format '{{.Size}}' bendscape)"
