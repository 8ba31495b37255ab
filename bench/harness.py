"""What the drivers in this folder share: a managed server of their own, runs opened as nextest opens them, and CPU accounts."""
import ctypes, json, os, pathlib, shutil, signal, statistics, subprocess, sys, tempfile, time, uuid

root = pathlib.Path(__file__).resolve().parent.parent
target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "bench" / "target"))
TICK = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36


def real_psql():
    """Not Debian's Perl wrapper, which takes longer than what is measured."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/psql"), key=lambda p: int(p.parts[-3]))
    return str(found[-1]) if found else "psql"


def build(*arguments, folder="bench"):
    """Builds with cargo, quietly; release builds throughout."""
    command = ["cargo", *arguments, "--release", "--quiet"]
    subprocess.run(command, cwd=root / folder, env=dict(os.environ, CARGO_TARGET_DIR=str(target)), check=True)


def adopt_orphans():
    """Keepers outlive who started them: as their reaper we learn what they cost."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def poll(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"waited {seconds} s for {what}")
        time.sleep(0.005)
    return value


def stat(pid):
    """Parent, own CPU and exited children's CPU in seconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    utime, stime, cutime, cstime = (int(f) / TICK for f in fields[11:15])
    return int(fields[1]), utime + stime, cutime + cstime


def status(pid, key):
    """A line of /proc/PID/status, in kB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    return 0


def ms(values):
    values = sorted(values)
    low, median, high = statistics.quantiles(values, n=4)
    return f"median {median*1000:6.2f} ms, quartiles {low*1000:6.2f} and {high*1000:6.2f}, min {values[0]*1000:6.2f} ({len(values)} samples)"


class Bench:
    """A scratch folder with a managed server in memory (where there is /dev/shm) and a runtime folder; all of it goes at the end."""

    def __init__(self, binary, namespace="bench", project=root):
        self.binary, self.project = str(pathlib.Path(binary).resolve()), pathlib.Path(project)
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="kb-", dir=memory))
        self.scratch.chmod(0o755)
        self.runtime, self.state = self.scratch / "rt", self.scratch / "pg"
        self.env = {
            "PATH": f"{pathlib.Path(self.binary).parent}:{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", str(self.scratch)),
            "KAPSEL_TESTDB_RUNTIME_DIR": str(self.runtime),
            "KAPSEL_TESTDB_SERVER_STATE_DIR": str(self.state),
            "KAPSEL_TESTDB_NAMESPACE": namespace,
            "CARGO_TARGET_DIR": str(target),
        }

    def __enter__(self):
        self.url = json.loads(self.kapsel("prepare", "--format", "json").stdout)["DATABASE_URL"]
        self.data = next(self.state.glob("pg*/data"))
        self.postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        return self

    def __exit__(self, *_):
        for pid in self.keepers():
            os.kill(pid, signal.SIGTERM)
        self.kapsel("wait", "--timeout", "60", check=False)
        self.kapsel("server", "stop", check=False)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def kapsel(self, *words, check=True, binary=None, **variables):
        command = [binary or self.binary, *words, "--root", str(self.project)]
        done = subprocess.run(command, env=dict(self.env, **variables), capture_output=True, text=True)
        if check and done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.returncode}\n{done.stderr}")
        return done

    def open_run(self, threads, run_id=None, binary=None):
        """What nextest does; the keeper watches this process. Returns the run directory."""
        exported = self.scratch / f"env-{uuid.uuid4()}"
        exported.write_text("")
        run_id = run_id or str(uuid.uuid4())
        self.kapsel("prepare", binary=binary, NEXTEST_ENV=str(exported), NEXTEST_RUN_ID=run_id, NEXTEST_TEST_THREADS=str(threads))
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
        """Ours is a unix socket's URL: the path is the database, the query is the socket."""
        head, _, query = self.url.partition("?")
        return f"{head.rpartition('/')[0]}/{database}" + (f"?{query}" if query else "")

    def template(self):
        return self.sql("SELECT datname FROM pg_database WHERE datistemplate AND datname NOT IN ('template0', 'template1')")

    def clone(self, name):
        """As the keeper makes clones."""
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE "{self.template()}" STRATEGY FILE_COPY')

    def databases(self):
        return int(self.sql("SELECT count(*) FROM pg_database"))

    def server_cpu(self):
        """CPU seconds of the server since its start, exited backends included."""
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


def entries(run, folder):
    try:
        return len(os.listdir(run / folder))
    except OSError:
        return 0


def at_rest(run, ready):
    """Clones are ready and the keeper has nothing to do."""
    return entries(run, "ready") >= ready and not any(entries(run, f) for f in ("leased", "released", "failed"))
