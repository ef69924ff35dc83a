#!/usr/bin/env bash
# Sets up and runs the tests, on a machine that has Python 3.11 or newer.
#
#   scripts/test.sh                      all tests
#   scripts/test.sh -- -k reader -x      arguments after -- go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/_system.sh
source scripts/_torch.sh

python="${PYTHON:-python3}"
require_python "$python"
install_system "$python" "${screen_packages[@]}" "${window_packages[@]}"

# tox in an environment of its own, so that nothing is installed into the user's Python.
tools=.tox/bootstrap
if [ ! -x "$tools/bin/tox" ]; then
    "$python" -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet "tox>=4.22" "tox-uv>=1.16"
fi
choose_torch "$python" "$tools/bin/uv"

[ "${1:-}" != "--" ] || shift
exec "$tools/bin/tox" run -e tests -- "$@"
