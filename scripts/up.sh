#!/usr/bin/env bash
# make up DATA: everything from a bare Debian machine to a running model. Each step shows how many seconds it took.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"
data=$1

step 'install build tools'               scripts/packages.sh ca-certificates curl e2fsprogs gcc libc6-dev libseccomp-dev pkg-config
step 'build penstock, shim and runc'     make --no-print-directory build
step 'build the model (langdetect)'      make --no-print-directory langdetect
step 'start the server'                  bin/penstock up --data "$data"
step 'make the image langdetect:1'       bin/penstock build --data "$data" -t langdetect:1 examples/langdetect
echo
bin/penstock up --data "$data" -f examples/langdetect/app.yaml
if [ ! -e /usr/local/bin/penstock ] || [ -L /usr/local/bin/penstock ]; then
  ln -sfn "$root/bin/penstock" /usr/local/bin/penstock
fi
echo
echo "Ready after $((SECONDS - began)) s. Ask it:"
echo
echo "  curl http://langdetect.penstock.localhost:8080/detect -d '{\"text\":\"모델을 어디에 올릴까\"}'"
echo
curl -fsS http://langdetect.penstock.localhost:8080/detect -d '{"text":"모델을 어디에 올릴까"}'
echo
