# shellcheck shell=bash disable=SC2034
# Sourced. What napari's window needs from the system, and pip cannot bring.

# require_python PYTHON: stops with one clear line where it is missing or too old.
require_python() {
    if ! "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "Python 3.11 or newer is needed; '$1' is not one. Set PYTHON to one that is." >&2
        exit 1
    fi
}

# True where the package is installed, also under the name it has had since Debian 13.
_installed() {
    local name
    for name in "$1" "$1t64"; do
        if [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ]; then
            return 0
        fi
    done
    return 1
}

# install_system PYTHON PACKAGE...: installs those that are missing, on Debian and Ubuntu.
# Says what is missing, and goes on, where it may not install.
install_system() {
    local python="$1" package missing=() as_root=()
    shift
    command -v apt-get >/dev/null 2>&1 && command -v dpkg-query >/dev/null 2>&1 || return 0
    for package in "$@"; do
        _installed "$package" || missing+=("$package")
    done
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
            as_root=(sudo)
        else
            echo "Missing system packages, which only root can install: ${missing[*]}" >&2
            return 0
        fi
    fi
    echo "Installing system packages: ${missing[*]}"
    "${as_root[@]}" apt-get update -qq </dev/null || true
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
}

# install_tox PYTHON: tox and uv in .tox/bootstrap, so that nothing goes into the user's Python.
install_tox() {
    if [ ! -x .tox/bootstrap/bin/tox ]; then
        "$1" -m venv .tox/bootstrap
        .tox/bootstrap/bin/python -m pip install --quiet "tox>=4.22" "tox-uv>=1.16"
    fi
}

# Qt and OpenGL.
window_packages=(
    libegl1 libgl1 libglib2.0-0 libdbus-1-3 libfontconfig1 libxkbcommon-x11-0
    libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-randr0 libxcb-shape0
    libxcb-sync1 libxcb-xfixes0
)
# A screen for the tests where there is none.
screen_packages=(xvfb xauth)
# Programs of other people that judge the DICOM files we write; their tests are skipped
# where these are missing, and fail on CI.
judge_packages=(dicom3tools orthanc)
