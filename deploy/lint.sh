#!/usr/bin/env bash
# Style, form, types and the direction of imports; run by test.sh and by pre-commit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ruff check .
ruff format --check .
mypy
PYTHONPATH=$PWD lint-imports --no-logo
