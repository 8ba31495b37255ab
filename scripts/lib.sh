# Shared by the scripts here: sourced, not run. Installs what a fresh machine lacks, and nothing that is there.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

step() { printf '==> %s\n' "$*" >&2; }
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
    # What cargo installs is found even where the profile does not say so.
    PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    export PATH
}

# Debian keeps server binaries off the PATH, and so does Homebrew for versioned formulas. KAPSEL_TESTDB_SERVER_BIN_DIR names others.
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
        die "the PostgreSQL server's binaries are missing: install the package that has \`initdb\`, or set KAPSEL_TESTDB_SERVER_BIN_DIR"
    fi
    has_postgres || die "no \`initdb\` after the installation: set KAPSEL_TESTDB_SERVER_BIN_DIR to the folder that has it"
}

# Rust links with the system's C compiler.
require_linker() {
    has cc && return 0
    step "installing a C compiler"
    if has apt-get; then
        install_packages gcc libc6-dev
    else
        die "a C compiler is missing, which Rust links with: install one that is called \`cc\`"
    fi
}

# The image that the tests of compose run; `scripts/make-test-image` makes it.
TEST_IMAGE=kapsel-testdb-postgres

# The tests of compose run on a real engine. KAPSEL_TESTDB_NO_DOCKER=1 says that there is none here, and leaves them out.
require_compose() {
    [ "${KAPSEL_TESTDB_NO_DOCKER:-}" != 1 ] || return 0
    if ! docker compose version >/dev/null 2>&1 && ! has docker-compose; then
        has apt-get || die "the tests of compose need \`docker compose\`: install it, or set KAPSEL_TESTDB_NO_DOCKER=1 to leave them out"
        step "installing an engine for containers"
        install_packages docker.io docker-compose
    fi
    if ! docker version >/dev/null 2>&1; then
        step "starting the engine for containers"
        as_root service docker start >&2 || as_root sh -c 'dockerd >/var/log/dockerd.log 2>&1 &'
        for _ in $(seq 60); do
            docker version >/dev/null 2>&1 && break
            sleep 0.5
        done
        docker version >/dev/null || die "no engine answers: start it, or set KAPSEL_TESTDB_NO_DOCKER=1 to leave out the tests of compose"
    fi
    if [ -z "${KAPSEL_TESTDB_IMAGE:-}" ] && has apt-get; then
        scripts/make-test-image
    else
        export KAPSEL_TESTDB_IMAGE="${KAPSEL_TESTDB_IMAGE:-postgres:16-alpine}"
        docker image inspect "$KAPSEL_TESTDB_IMAGE" >/dev/null 2>&1 || docker pull "$KAPSEL_TESTDB_IMAGE"
    fi
}

# The example with diesel links with libpq.
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
        die "the example with diesel links with libpq: install its development files"
    fi
}

require_nextest() {
    cargo nextest --version >/dev/null 2>&1 && return 0
    step "installing cargo-nextest (a few minutes)"
    cargo install cargo-nextest --locked
}

# What the tests put before and around a server: a pooler, certificates.
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
        die "the tests need ${missing[*]}: install them"
    fi
}

require_all() {
    require_rust
    require_linker
    require_postgres
    require_test_tools
    require_nextest
}

# A place of its own for a user's projects, $place, where nothing of this machine's state is used or touched but the build's target folder:
# the binary on the PATH, built anew, because an older one may write what the projects' library does not read; its own run directories and
# managed server; none of our variables. The caller removes it, if it is there.
place=
closed_off_place() {
    local binary=${CARGO_TARGET_DIR:-$root/target}/debug/kapsel-testdb name new
    step "cargo build --bin kapsel-testdb"
    cargo build --quiet --bin kapsel-testdb
    new=$(mktemp -d "${TMPDIR:-/tmp}/kt.XXXXXX")
    new=$(cd "$new" && pwd -P)
    chmod 711 "$new" # the managed server's user passes through
    mkdir "$new/bin"
    ln -s "$(cd "$(dirname "$binary")" && pwd)/kapsel-testdb" "$new/bin/"
    for name in $(compgen -e | grep -E '^(KAPSEL_TESTDB_|NEXTEST|PG|DATABASE_URL$|CARGO_(MANIFEST|PKG|TERM))'); do
        case $name in KAPSEL_TESTDB_SERVER_BIN_DIR | KAPSEL_TESTDB_USER_TARGET) ;; *) unset "$name" ;; esac
    done
    export PATH="$new/bin:$PATH" KAPSEL_TESTDB_RUNTIME_DIR=$new/rt KAPSEL_TESTDB_SERVER_STATE_DIR=$new/s
    export CARGO_TARGET_DIR=${KAPSEL_TESTDB_USER_TARGET:-$root/target/user-project}
    # From here on there is something to clean up, and nothing else that a clean-up could meet.
    place=$new
}
