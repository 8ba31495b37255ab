# Shared by the scripts in this directory: sourced, not run. Installs what a fresh machine lacks, and nothing else.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# All workspaces build into one directory, so that each dependency is compiled once. That works while their locked versions, features and profiles
# are the same.
mkdir -p "${CARGO_TARGET_DIR:=$root/target}"
CARGO_TARGET_DIR=$(cd "$CARGO_TARGET_DIR" && pwd)
export CARGO_TARGET_DIR
# A CI job compiles everything once: what incremental compilation saves on disk is never read.
[ "${CI:-}" != true ] || export CARGO_INCREMENTAL=0

# With the seconds since the outermost script began.
export KT_BEGUN="${KT_BEGUN:-$(date +%s)}"
step() { printf '==> %4d s  %s\n' "$(($(date +%s) - KT_BEGUN))" "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif has sudo; then sudo "$@"
    else die "installing packages needs root: install sudo, or run as root: $*"
    fi
}

install_packages() {
    as_root apt-get update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

require_rust() {
    if ! has cargo && [ -f "${CARGO_HOME:-$HOME/.cargo}/env" ]; then
        # shellcheck source=/dev/null
        . "${CARGO_HOME:-$HOME/.cargo}/env"
    fi
    has cargo || die "cargo is missing: install Rust 1.94 or newer (https://rustup.rs), open a new shell and try again"
    # Programs that cargo installed are found even if the shell's profile does not add them.
    PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    export PATH
}

# Debian keeps server binaries off the PATH, and so does Homebrew for versioned formulas. KAPSEL_TESTDB_SERVER_BIN_DIR names another directory.
has_postgres() {
    local dir
    has initdb && return 0
    for dir in ${KAPSEL_TESTDB_SERVER_BIN_DIR:+"$KAPSEL_TESTDB_SERVER_BIN_DIR"} /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
        [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && return 0
    done
    return 1
}

require_postgres() {
    has_postgres && return 0
    step "installing the PostgreSQL server's binaries"
    if has apt-get; then
        install_packages postgresql
    elif has brew; then
        brew install postgresql@16
    else
        die "the PostgreSQL server's binaries are missing: install the package that contains \`initdb\`, or set KAPSEL_TESTDB_SERVER_BIN_DIR"
    fi
    has_postgres || die "no \`initdb\` after the installation: set KAPSEL_TESTDB_SERVER_BIN_DIR to the directory that has it"
}

# Rust links with the system's C compiler.
require_linker() {
    has cc && return 0
    step "installing a C compiler"
    if has apt-get; then
        install_packages gcc libc6-dev
    else
        die "Rust needs a C compiler to link: install one that is called \`cc\`"
    fi
}

# The image that the compose tests run; `scripts/make-test-image` makes it.
TEST_IMAGE=kapsel-testdb-postgres

# The compose tests need a container engine. KAPSEL_TESTDB_NO_DOCKER=1 skips them.
require_compose() {
    [ "${KAPSEL_TESTDB_NO_DOCKER:-}" != 1 ] || return 0
    if ! docker compose version >/dev/null 2>&1 && ! has docker-compose; then
        has apt-get || die "the compose tests need \`docker compose\`: install it, or set KAPSEL_TESTDB_NO_DOCKER=1 to skip them"
        step "installing a container engine"
        install_packages docker.io docker-compose
    fi
    if ! docker version >/dev/null 2>&1; then
        step "starting the container engine"
        as_root service docker start >&2 || as_root sh -c 'dockerd >/var/log/dockerd.log 2>&1 &'
        for _ in $(seq 60); do
            docker version >/dev/null 2>&1 && break
            sleep 0.5
        done
        docker version >/dev/null || die "the container engine does not answer: start it, or set KAPSEL_TESTDB_NO_DOCKER=1 to skip the compose tests"
    fi
    if [ -z "${KAPSEL_TESTDB_IMAGE:-}" ] && has apt-get; then
        scripts/make-test-image
    else
        export KAPSEL_TESTDB_IMAGE="${KAPSEL_TESTDB_IMAGE:-postgres:16-alpine}"
        docker image inspect "$KAPSEL_TESTDB_IMAGE" >/dev/null 2>&1 || docker pull "$KAPSEL_TESTDB_IMAGE"
    fi
}

# The diesel example links with libpq.
require_libpq() {
    ! has pg_config || [ ! -f "$(pg_config --includedir)/libpq-fe.h" ] || return 0
    ! has pkg-config || ! pkg-config --exists libpq || return 0
    step "installing libpq"
    if has apt-get; then
        install_packages libpq-dev
    elif has brew; then
        brew install libpq
        PKG_CONFIG_PATH="$(brew --prefix libpq)/lib/pkgconfig:${PKG_CONFIG_PATH:-}"
        export PKG_CONFIG_PATH
    else
        die "the diesel example links with libpq: install its development files"
    fi
}

require_nextest() {
    cargo nextest --version >/dev/null 2>&1 && return 0
    step "installing cargo-nextest (a few minutes)"
    cargo install cargo-nextest --locked
}

# The tests use a connection pooler and certificates.
require_test_tools() {
    local missing=()
    PATH="$PATH:/usr/sbin"
    export PATH
    has pgbouncer || missing+=(pgbouncer)
    has openssl || missing+=(openssl)
    [ "${#missing[@]}" -gt 0 ] || return 0
    step "installing ${missing[*]}"
    if has apt-get; then
        as_root apt-get update
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
    elif has brew; then
        brew install "${missing[@]}"
    else
        die "the tests need programs that are missing: install ${missing[*]}"
    fi
}

require_all() {
    require_rust
    require_linker
    require_postgres
    require_test_tools
    require_nextest
}

# A parent for the data directories of servers: in memory if there is room, because disks can take long for their thousands of files.
dir_for_servers() {
    local free_kb=0
    [ ! -w /dev/shm ] || free_kb=$(df -Pk /dev/shm | awk 'NR == 2 { print $4 }')
    if [ "$free_kb" -gt 2000000 ]; then echo /dev/shm; else echo "${TMPDIR:-/tmp}"; fi
}

# An isolated environment for a user's projects in a new directory, $place: the binary of this checkout on the PATH, its own run directories and
# managed server, and none of our variables. It shares nothing with the machine but the build's target directory. The caller removes $place.
place=
isolated_place() {
    local name new
    step "cargo build of the command"
    build_command --quiet
    new=$(mktemp -d "$(dir_for_servers)/kt.XXXXXX")
    new=$(cd "$new" && pwd -P)
    chmod 711 "$new" # the managed server's user passes through
    mkdir "$new/bin"
    ln -s "$CARGO_TARGET_DIR/debug/kapsel-testdb" "$new/bin/"
    for name in $(compgen -e | grep -E '^(KAPSEL_TESTDB_|NEXTEST|PG|DATABASE_URL$|CARGO_(MANIFEST|PKG|TERM))'); do
        case $name in KAPSEL_TESTDB_SERVER_BIN_DIR) ;; *) unset "$name" ;; esac
    done
    export PATH="$new/bin:$PATH" KAPSEL_TESTDB_RUNTIME_DIR=$new/rt KAPSEL_TESTDB_SERVER_STATE_DIR=$new/s
    # From here on there is something to clean up, and nothing else that a clean-up could remove.
    place=$new
}

# The command, with the features that its dependencies have in the tests: `--examples`, of which there are none, makes cargo count those of the
# development dependencies. Without it, most dependencies would be compiled twice.
build_command() { cargo build --workspace --bins --examples "$@"; }

# ---- background jobs --------------------------------------------------------------------------------------------------------------

# The output of a job is printed when the job is waited for, so that the outputs of several jobs do not mix.
jobs_dir=

# job NAME SUFFIX: one of its files.
job() { printf '%s/%s.%s' "$jobs_dir" "${1//[^a-z0-9-]/_}" "$2"; }

# start_job NAME COMMAND…
start_job() {
    local name=$1
    shift
    if [ -z "$jobs_dir" ]; then
        jobs_dir=$(mktemp -d "${TMPDIR:-/tmp}/kt-jobs.XXXXXX")
        trap end_jobs EXIT
        trap 'exit 130' INT TERM HUP
    fi
    set -m # a process group of its own, for `end_jobs`
    (
        SECONDS=0
        trap 'echo "$SECONDS" >"$(job "$name" seconds)"' EXIT
        "$@"
    ) >"$(job "$name" log)" 2>&1 </dev/null &
    set +m
    echo $! >"$(job "$name" pid)"
}

# wait_for_job NAME: prints its output. A failed job ends the script.
wait_for_job() {
    local code=0
    wait "$(cat "$(job "$1" pid)")" || code=$?
    rm "$(job "$1" pid)"
    step "$1: $(cat "$(job "$1" seconds)") s in the background"
    cat "$(job "$1" log)" >&2
    [ "$code" -eq 0 ] || die "\`$1\` failed with exit code $code"
}

end_jobs() {
    local code=$? file
    set +e
    for file in "$jobs_dir"/*.pid; do
        [ -f "$file" ] || continue
        kill -TERM -- "-$(cat "$file")" 2>/dev/null
        wait "$(cat "$file")" 2>/dev/null
    done
    rm -rf "$jobs_dir"
    exit "$code"
}
