#!/usr/bin/env bash
# Sets up napari-gitract in .venv, segments a scan, and shows it where there is a screen.
#
#   scripts/demo.sh                      a phantom scan, made by code
#   scripts/demo.sh SCAN [OUTPUT.tif]    your own: a folder of PNG slices, or a TIFF stack
set -euo pipefail

case "${1:-}" in
-h | --help)
    sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

absolute() {
    case "$1" in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$PWD/$1" ;;
    esac
}
scan="${1:+$(absolute "$1")}"
output="${2:+$(absolute "$2")}"
if [ -n "$scan" ] && [ ! -e "$scan" ]; then
    echo "There is no scan at $scan." >&2
    exit 2
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/_system.sh
source scripts/_torch.sh

has_screen() {
    [ "$(uname -s)" = Darwin ] || [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]
}

python="${PYTHON:-python3}"
require_python "$python"
if has_screen; then
    install_system "$python" "${window_packages[@]}"
else
    install_system "$python"
fi

if [ ! -x .venv/bin/uv ]; then
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet uv
fi
choose_torch .venv/bin/python .venv/bin/uv
.venv/bin/uv pip install --quiet --python .venv/bin/python --editable ".[all]"

if [ -z "$scan" ]; then
    rm -rf runs/demo/phantom
    scan="$(.venv/bin/gitract phantom "$PWD/runs/demo/phantom")"
fi
if [ -z "$output" ]; then
    name="$(basename "$scan")"
    mkdir -p runs/demo
    output="$PWD/runs/demo/${name%%.*}_organs.tif"
fi
.venv/bin/gitract segment "$scan" -o "$output"
echo "Scan:   $scan"
echo "Organs: $output"

if has_screen; then
    echo "Opening both in napari."
    exec .venv/bin/napari "$scan" "$output" --plugin napari-gitract
fi
echo "There is no screen here, so napari stays closed. Where there is one:"
echo "    .venv/bin/napari '$scan' '$output' --plugin napari-gitract"
