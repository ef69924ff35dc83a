# shellcheck shell=bash
# Sourced, from the root of the project, by the scripts that install it with uv.
#
# A plain `torch` brings gigabytes of CUDA packages on Linux. A machine without an NVIDIA GPU
# has no use for them, so there this asks uv for a CPU build: the one that pip has been
# configured to find on this machine, or else the one that uv chooses by itself.

# The first folder in which pip is configured to find a torch wheel for this Python.
_torch_folder() {
    local python="$1" links link tag
    links="$("$python" -m pip config get global.find-links 2>/dev/null || true)"
    tag="$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')"
    for link in $links ${PIP_FIND_LINKS:-}; do
        link="${link#file://}"
        if [ -d "$link" ] && compgen -G "$link/torch-*-$tag-*.whl" >/dev/null; then
            printf '%s\n' "$link"
            return
        fi
    done
}

# choose_torch PYTHON UV: exports what uv needs to know; what the user has set already stands.
choose_torch() {
    local python="$1" uv="$2" folder
    if [ -n "${UV_TORCH_BACKEND:-}${UV_FIND_LINKS:-}${UV_CONSTRAINT:-}" ]; then
        return
    fi
    if command -v nvidia-smi >/dev/null 2>&1; then
        return
    fi
    folder="$(_torch_folder "$python")"
    if [ -n "$folder" ]; then
        export UV_FIND_LINKS="$folder"
        # Relative: uv would split a path at its spaces.
        export UV_CONSTRAINT="scripts/constraints.txt"
    elif [ "$(uname -s)" = Linux ]; then
        # Behind a firewall the place of the CPU builds may be out of reach when the registry
        # is not: then a large torch is better than none.
        if echo torch | UV_TORCH_BACKEND=cpu "$uv" pip compile --quiet --no-deps --no-header \
            --python "$python" - >/dev/null 2>&1; then
            export UV_TORCH_BACKEND=cpu
        else
            echo "No CPU build of torch is in reach: taking the usual one, which is large." >&2
        fi
    fi
}
