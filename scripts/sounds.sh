#!/usr/bin/env bash
# Unpacks the WAV files of Debian's alsa-utils into a folder. The package is not installed.
set -euo pipefail

to=$(realpath -m "$1")
[ -e "$to/Front_Center.wav" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"
apt-get -o APT::Sandbox::User=root download alsa-utils || { apt-get update && apt-get -o APT::Sandbox::User=root download alsa-utils; }
dpkg-deb -x alsa-utils_*.deb .
mkdir -p "$to"
cp usr/share/sounds/alsa/*.wav usr/share/doc/alsa-utils/copyright "$to"
