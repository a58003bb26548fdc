#!/usr/bin/env bash
# make deb: packs bin/ as a Debian package into the given folder, and prints its path. The same sources give the same
# package. VERSION sets its version.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"
out=$1

SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
version=${VERSION:-0.0.0~git$(git log -1 --format=%cd --date=format:%Y%m%d%H%M%S).$(git rev-parse --short=8 HEAD)}
arch=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

for program in penstock containerd-shim-runc-v2 runc; do
  install -D -m 755 "bin/$program" "$work/usr/lib/penstock/$program"
done
install -d "$work/usr/bin"
ln -s ../lib/penstock/penstock "$work/usr/bin/penstock"
install -d "$work/usr/share/bash-completion/completions"
bin/penstock completion bash >"$work/usr/share/bash-completion/completions/penstock"
install -D -m 644 packaging/penstock.service "$work/lib/systemd/system/penstock.service"
install -D -m 644 packaging/config.yaml "$work/etc/penstock/config.yaml"
for doc in docs/operate.md docs/compatibility.md CHANGELOG.md; do
  install -D -m 644 "$doc" "$work/usr/share/doc/penstock/$(basename "$doc")"
done
install -D -m 644 LICENSE "$work/usr/share/doc/penstock/copyright"
install -d "$work/DEBIAN"
install -m 755 packaging/deb/* "$work/DEBIAN/"
echo /etc/penstock/config.yaml >"$work/DEBIAN/conffiles"
cat >"$work/DEBIAN/control" <<CONTROL
Package: penstock
Version: $version
Architecture: $arch
Maintainer: $(git log -1 --format='%an <%ae>')
Installed-Size: $(du -sk --exclude=DEBIAN "$work" | cut -f1)
Depends: e2fsprogs
Section: net
Priority: optional
Description: serves AI models as APIs on machines you own
 One server with the semantics, the API and the vocabulary of Azure Container Apps: revisions, scaling,
 probes, traffic weights, logs. Containers run in a containerd of its own.
CONTROL
mkdir -p "$out"
file=$out/penstock_${version}_$arch.deb
dpkg-deb --root-owner-group -Zzstd -z3 --build "$work" "$file" >&2
echo "$file"
