#!/usr/bin/env bash
# The site of deploy/docs and the docstrings, built offline; any warning is an error:
#   deploy/site.sh [FOLDER]        FOLDER: where it goes (default: ./site)
# Needs pip install 'bigbox[docs]'.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${1:-site}
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" python -m sphinx -q -W --keep-going -b html \
    -d "$(mktemp -d)" "$here/deploy/docs" "$out"
echo "the site: $(cd "$out" && pwd)/index.html"
