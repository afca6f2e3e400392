#!/bin/sh
# Installs the platform from this folder on a machine that reaches nothing: ./install.sh [TARGET]   (default: /opt/llmops)
# Needs Python 3.11 or newer with its venv (PYTHON=python3.12 names another one).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=${1:-/opt/llmops}
python=${PYTHON:-python3}

# Everything is what it was when it was packed, and nothing was added.
cd "$here"
sha256sum --check --strict --quiet SHA256SUMS || { echo "this folder is not what was packed: fetch it again" >&2; exit 1; }
find . -type f ! -name SHA256SUMS | LC_ALL=C sort > /tmp/llmops-there.$$
sed 's/^[0-9a-f]*  //' SHA256SUMS | LC_ALL=C sort > /tmp/llmops-packed.$$
added=$(LC_ALL=C comm -23 /tmp/llmops-there.$$ /tmp/llmops-packed.$$)
rm -f /tmp/llmops-there.$$ /tmp/llmops-packed.$$
[ -z "$added" ] || { printf 'files that were not packed:\n%s\n' "$added" >&2; exit 1; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$python is older than Python 3.11" >&2; exit 1; }
mkdir -p "$target"
"$python" -m venv "$target/venv"
"$target/venv/bin/python" -m pip install --quiet --no-index --no-deps --find-links "$here/wheels" --require-hashes \
  --requirement "$here/requirements.txt" --disable-pip-version-check --no-cache-dir
cp -R "$here/source" "$target/source"

# Engines with pins of their own, where the bundle has some; what is marked was made whole (resources/engines.py).
engines=
for list in "$here"/engines/*.txt; do
  [ -e "$list" ] || continue
  folder=$target/engines/$(basename "$list" .txt)
  "$python" -m venv --clear "$folder"
  "$folder/bin/python" -m pip install --quiet --no-index --no-deps --find-links "$here/wheels" --require-hashes \
    --requirement "$list" --disable-pip-version-check --no-cache-dir
  cp "${list%.txt}.digest" "$folder/.installed"
  engines="; set LLMOPS_ENGINES=$target/engines"
done

# Images of a server, where the bundle has some and an engine answers: a client may be here without one.
engine=
for one in docker podman; do
  if command -v "$one" > /dev/null && "$one" info > /dev/null 2>&1; then engine=$one; break; fi
done
for image in "$here"/images/*.tar; do
  [ -e "$image" ] || continue
  if [ -n "$engine" ]; then "$engine" load --quiet --input "$image"
  else echo "no engine answers: load $image when there is one (docker load --input FILE)" >&2; fi
done
echo "installed: $target/venv/bin/llmops; documents and deploy/ are in $target/source$engines"
