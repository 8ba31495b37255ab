"""Shared by the drivers in this directory: private servers, runs that are opened as nextest opens them, CPU and memory accounting."""
import contextlib, ctypes, datetime, json, os, pathlib, platform, re, shutil, signal, statistics, subprocess, sys, tempfile, time, uuid

root = pathlib.Path(__file__).resolve().parent.parent
# All workspaces share it.
target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
DISK = "/var/tmp"
TICK = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36


def server_programs():
    """The directory of `initdb` and `postgres`."""
    if named := os.environ.get("KAPSEL_TESTDB_SERVER_BIN_DIR"):
        return pathlib.Path(named)
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    found = found or [pathlib.Path(p) for p in [shutil.which("postgres")] if p]
    return found[-1].parent if found else sys.exit("found no PostgreSQL server binaries: set KAPSEL_TESTDB_SERVER_BIN_DIR")


def real_psql():
    """Not Debian's Perl wrapper, which takes longer than the statements that are measured."""
    program = server_programs() / "psql"
    return str(program) if program.exists() else "psql"


def psql_script(url, text):
    """Runs statements on one session, each in its own transaction."""
    command = [real_psql(), "-XAtq", "-v", "ON_ERROR_STOP=1", url]
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)


def build(*arguments, directory="bench"):
    """Runs a quiet release build."""
    command = ["cargo", *arguments, "--release", "--quiet"]
    subprocess.run(command, cwd=root / directory, env=dict(os.environ, CARGO_TARGET_DIR=str(target)), check=True)


def our_binary(given=None, profile="release"):
    """The path of the command: `given`, or a new build of this checkout."""
    if given:
        return given
    command = ["cargo", "build", "--quiet", "--bin", "kapsel-testdb", "--profile", profile]
    subprocess.run(command, cwd=root, env=dict(os.environ, CARGO_TARGET_DIR=str(target)), check=True)
    return str(target / ("debug" if profile == "dev" else profile) / "kapsel-testdb")


def adopt_orphans():
    """Makes this process the reaper of keepers, which outlive their parents: so it learns their CPU time."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def poll(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"waited {seconds} s for {what}")
        time.sleep(0.005)
    return value


def stat(pid):
    """The parent; the CPU seconds of the process, and of its exited children."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    utime, stime, cutime, cstime = (int(f) / TICK for f in fields[11:15])
    return int(fields[1]), utime + stime, cutime + cstime


def status(pid, key):
    """A line of /proc/PID/status, in kB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    return 0


def children(pid):
    found = []
    try:
        for path in pathlib.Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in path.joinpath("children").read_text().split()]
    except OSError:
        pass
    return found


def descendants(pid, but=None):
    found, todo = [], [pid]
    while todo:
        below = [child for child in children(todo.pop()) if child != but]
        found += below
        todo += below
    return found


def private_kb(pid):
    try:
        return status(pid, "RssAnon")
    except OSError:
        return 0


def is_session(pid):
    """Whether this process of a server serves a client on a unix socket."""
    try:
        return b"[local]" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def ms(values):
    values = sorted(values)
    low, median, high = statistics.quantiles(values, n=4)
    return f"median {median*1000:6.2f} ms, quartiles {low*1000:6.2f} and {high*1000:6.2f}, min {values[0]*1000:6.2f} ({len(values)} samples)"


def end_on_signals():
    """Signals end the script as an exception, so that it cleans up."""
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda number, _: sys.exit(128 + number))


def scratch_directory(parent):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="kb-", dir=parent))
    # The server's user needs access to what is below.
    directory.chmod(0o755)
    return directory


def memory_directory():
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Started:
    """A context that calls `__exit__` even if `start` fails."""

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self


class Server(Started):
    """A PostgreSQL server with 100 connections on a unix socket. `memory` is not durable and on tmpfs; `durable` has the defaults and is on
    disk. `directory` overrides the place of its data."""

    VOLATILE = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]

    def __init__(self, kind, directory=None, max_connections=100):
        self.kind, self.max_connections, self.process = kind, max_connections, None
        self.scratch = scratch_directory(directory or (memory_directory() if kind == "memory" else DISK))
        self.data, self.log = self.scratch / "data", self.scratch / "log"
        self.url = f"postgres:///postgres?host={self.scratch}&user=postgres"

    def start(self):
        # PostgreSQL refuses to run as root.
        user = dict(user="postgres", group="postgres", extra_groups=[]) if os.geteuid() == 0 else {}
        if user:
            shutil.chown(self.scratch, "postgres", "postgres")
        programs = server_programs()
        initdb = [programs / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **user)
        settings = [f"unix_socket_directories={self.scratch}", "listen_addresses=", f"max_connections={self.max_connections}"]
        settings += self.VOLATILE if self.kind == "memory" else []
        command = [programs / "postgres", "-D", self.data, *(word for setting in settings for word in ("-c", setting))]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **user)
        self.postmaster = self.process.pid
        poll("the server", lambda: subprocess.run([real_psql(), "-XAtqc", "SELECT 1", self.url], capture_output=True).returncode == 0)

    def __exit__(self, *_):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def complaints(self):
        """The errors in its log since its start, one line each."""
        return re.findall(r"(?:ERROR|FATAL|PANIC):  (.*)", self.log.read_text(errors="replace"))


def refusals(complaints):
    """How many connections the server refused because it had too many."""
    return sum(bool(re.search("too many clients|remaining connection slots", line)) for line in complaints)


def as_nextest(exported, threads, run_id=None):
    """The variables with which nextest starts a setup script. Creates the file `exported`, which takes what the script exports."""
    exported.write_text("")
    return dict(NEXTEST_ENV=str(exported), NEXTEST_RUN_ID=run_id or str(uuid.uuid4()), NEXTEST_TEST_THREADS=str(threads))


class Bench(Started):
    """A scratch directory with a runtime directory, and a server: `server`, or a managed one (in memory if there is /dev/shm). All of it is
    removed at the end."""

    def __init__(self, binary, namespace="bench", project=root, server=None, **env):
        self.binary, self.project = str(pathlib.Path(binary).resolve()), pathlib.Path(project)
        self.server = server
        self.scratch = scratch_directory(memory_directory())
        self.runtime, self.state = self.scratch / "rt", self.scratch / "pg"
        self.env = {
            "PATH": f"{pathlib.Path(self.binary).parent}:{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", str(self.scratch)),
            "KAPSEL_TESTDB_RUNTIME_DIR": str(self.runtime),
            "KAPSEL_TESTDB_SERVER_STATE_DIR": str(self.state),
            "KAPSEL_TESTDB_NAMESPACE": namespace,
            "CARGO_TARGET_DIR": str(target),
        }
        # The directories of cargo and rustup, if they are not below HOME.
        self.env |= {name: os.environ[name] for name in ("CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN") if name in os.environ}
        if server:
            self.env["DATABASE_URL"] = server.url
        self.env |= env

    def start(self):
        if self.server:
            self.url, self.data, self.postmaster = self.server.url, self.server.data, self.server.postmaster
            return
        self.url = json.loads(self.kapsel("prepare", "--format", "json").stdout)["DATABASE_URL"]
        self.data = next(self.state.glob("pg*/data"))
        self.postmaster = int((self.data / "postmaster.pid").read_text().split()[0])

    def __exit__(self, *_):
        for pid in self.keepers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        self.kapsel("wait", "--timeout", "60", check=False)
        if not self.server:
            self.kapsel("server", "stop", check=False)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def kapsel(self, *words, check=True, binary=None, **variables):
        command = [binary or self.binary, *words, "--root", str(self.project)]
        done = subprocess.run(command, env=dict(self.env, **variables), capture_output=True, text=True)
        if check and done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.returncode}\n{done.stderr}")
        return done

    def open_run(self, threads, run_id=None, binary=None):
        """Opens a run as nextest does. The keeper watches this process. Returns the run directory."""
        exported = self.scratch / f"env-{uuid.uuid4()}"
        self.kapsel("prepare", binary=binary, **as_nextest(exported, threads, run_id))
        lines = dict(line.split("=", 1) for line in exported.read_text().splitlines())
        exported.unlink()
        return pathlib.Path(lines["KAPSEL_TESTDB_RUN_DIR"])

    def keepers(self):
        pids = []
        for path in self.runtime.glob("runs/*/keeper.pid"):
            try:
                pids.append(int(path.read_text()))
            except (OSError, ValueError):
                pass
        return pids

    def sql(self, text, database=None):
        url = self.database_url(database) if database else self.url
        command = [real_psql(), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text, url]
        return subprocess.run(command, env=self.env, check=True, capture_output=True, text=True).stdout.strip()

    def database_url(self, database):
        """The URL of another database. Ours are URLs of unix sockets: the path is the database, the query is the socket."""
        head, _, query = self.url.partition("?")
        return f"{head.rpartition('/')[0]}/{database}" + (f"?{query}" if query else "")

    def template(self):
        return self.sql("SELECT datname FROM pg_database WHERE datistemplate AND datname NOT IN ('template0', 'template1')")

    def clone(self, name, template=None):
        """Makes a clone as the keeper does."""
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE "{template or self.template()}" STRATEGY FILE_COPY')

    def server_cpu(self):
        """The CPU seconds of the server since its start, including exited backends."""
        _, own, exited = stat(self.postmaster)
        total = own + exited
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                parent, own, _ = stat(path.name)
            except OSError:
                continue
            if parent == self.postmaster:
                total += own
        return total


def entries(run, directory):
    try:
        return len(os.listdir(run / directory))
    except OSError:
        return 0


def at_rest(run, ready):
    """Whether enough clones are ready and the keeper has nothing to do."""
    return entries(run, "ready") >= ready and not any(entries(run, f) for f in ("leased", "released", "failed"))


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def commit():
    """The commit that is measured. Changes of documents do not count as changes."""
    git = ["git", "-C", str(root)]
    changed = output_of(*git, "status", "--porcelain", "--", ":!docs", ":!bench/results", ":!*.md")
    return output_of(*git, "rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def machine():
    """The facts that results depend on."""
    return {
        "date": datetime.date.today().isoformat(), "commit": commit(),
        "cores": os.cpu_count(), "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(), "load": round(os.getloadavg()[0], 1), "rust": output_of("rustc", "--version"),
        "nextest": output_of("cargo", "nextest", "--version").split("\n")[0],
        "postgres": output_of(str(server_programs() / "postgres"), "--version"),
    }


def on_what(facts):
    return (f"{facts['date']}, at commit {facts['commit']}. {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}, load before "
            f"{facts['load']}; {facts['postgres']}, {facts['nextest']}, {facts['rust']}")


def write_between_markers(name, text, source, to):
    """Replaces the text between a section's markers and nothing else."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = source.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        sys.exit(f"{source} has no markers {begin} and {end}")
    to.write_text(f"{before}{begin}\n{text}{end}{after}")
