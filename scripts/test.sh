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

install_tox "$python"
tools=.tox/bootstrap
choose_torch "$python" "$tools/bin/uv"

[ "${1:-}" != "--" ] || shift
exec "$tools/bin/tox" run -e tests -- "$@"
