"""One run of the workload for one contender, and its measurements."""
import collections, dataclasses, json, os, pathlib, re, subprocess, sys, threading, time
from harness import *


class Watch(threading.Thread):
    """Samples the server's connections, and the private memory of the server, the tests, their setup and the keeper. The memory of cargo and
    nextest, which is larger than all that, does not depend on the contender and is left out."""

    def __init__(self, postmaster, programs):
        super().__init__(daemon=True)
        self.postmaster, self.programs, self.over = postmaster, programs, threading.Event()
        self.connections = self.server_kb = self.client_kb = 0

    def run(self):
        while not self.over.wait(0.1):
            backends = children(self.postmaster)
            self.connections = max(self.connections, sum(map(is_session, backends)))
            self.server_kb = max(self.server_kb, sum(map(private_kb, [self.postmaster, *backends])))
            ours = filter(self.counts, descendants(os.getpid(), but=self.postmaster))
            self.client_kb = max(self.client_kb, sum(map(private_kb, ours)))

    def counts(self, pid):
        try:
            return os.readlink(f"/proc/{pid}/exe").startswith(self.programs)
        except OSError:
            return False

    def end(self):
        self.over.set()
        self.join()
        return {"connections": self.connections, "server_mb": self.server_kb / 1024, "client_mb": self.client_kb / 1024}


# Every row of pg_database is inserted by a CREATE DATABASE and deleted by a DROP DATABASE; ALTER DATABASE updates it. Its counters include all
# databases, because it is a shared catalog.
DATABASES = """SELECT json_build_object(
    'created', pg_stat_get_tuples_inserted('pg_database'::regclass), 'dropped', pg_stat_get_tuples_deleted('pg_database'::regclass),
    'total', (SELECT count(*) FROM pg_database),
    'spares', (SELECT count(*) FROM pg_database WHERE datname ~ '^{namespace}_spare_'),
    'names', (SELECT json_agg(datname) FROM pg_database WHERE NOT datistemplate AND datname !~ '_(template|spare)_'))"""


@dataclasses.dataclass(frozen=True)
class Databases:
    """The databases of a server without sessions, and how many it has created and dropped since it started. Sessions report their counters before
    they end (since PostgreSQL 15), so the numbers are exact. Statements that are refused, or that find no database to drop, do not count: they change
    no row. The exception is a CREATE DATABASE that fails late: while it copies, or because another session creates the same name at the same time.
    `miscounted` shows it."""

    created: int
    dropped: int
    total: int
    spares: int  # of one contender
    names: frozenset  # without templates and spares

    def since(self, before):
        created, dropped = self.created - before.created, self.dropped - before.dropped
        miscounted = abs(self.total - before.total - created + dropped)
        return {"created": created, "dropped": dropped, "miscounted": miscounted, "left": len(self.names - before.names), "spares": self.spares}


def has_sessions(postmaster):
    return any(map(is_session, children(postmaster)))


def reap_until_idle(postmaster):
    """Waits until only the server is left, without sessions. Returns the CPU time of the processes that outlived nextest, which are our children."""
    cpu = 0.0

    def idle():
        nonlocal cpu
        while True:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == postmaster:
                sys.exit("the server ended")
            cpu += usage.ru_utime + usage.ru_stime
        return children(os.getpid()) == [postmaster] and not has_sessions(postmaster)

    poll("the processes that outlived nextest", idle, 300)
    return cpu


def nextest(command, **options):
    """Returns what it printed, and its resource usage."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)
    try:
        text = process.stderr.read()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return text, usage


class Course:
    """The course that contenders run: a workload, a server, and a number of migrations."""

    def __init__(self, workload, bench, migrations, body=1):
        self.workload, self.bench, self.migrations, self.body = workload, bench, migrations, body
        bench.env |= {"KAPSEL_TESTDB_TEMPLATE_MIGRATIONS": str(workload.migrations(migrations))}
        bench.kapsel("prepare")
        self.template, self.prepared = bench.template(), set()

    def databases(self, contender):
        poll("the end of all sessions", lambda: not has_sessions(self.bench.postmaster))
        found = json.loads(self.bench.sql(DATABASES.format(namespace=contender.namespace)))
        return Databases(**found | {"names": frozenset(found["names"])})

    def prepare(self, contender):
        if contender.name == "bare":
            # A fresh database: dead rows of the last round would slow this one.
            self.bench.sql('DROP DATABASE IF EXISTS "bare"')
            self.bench.clone("bare", self.template)
            self.bench.sql("SELECT 1", "bare")
        if contender.ours and contender.namespace not in self.prepared:
            self.bench.kapsel("prepare", KAPSEL_TESTDB_NAMESPACE=contender.namespace)
            self.prepared.add(contender.namespace)

    def sample(self, contender, threads):
        """Measures a run of the whole suite, and drops what it left, except spares."""
        watch = Watch(self.bench.postmaster, (str(self.workload.binaries.resolve()), self.bench.binary))
        result, before = self.run(contender, threads, watch=watch)
        result |= self.clean_up(contender, before)
        self.report(result)
        return result

    def sample_one(self, contender, threads, test):
        """Measures a run of one test. Drops nothing: the next run does what the contender leaves to it."""
        result, _ = self.run(contender, threads, test)
        self.report(result)
        return result

    def run(self, contender, threads, test=None, watch=None):
        """Runs the tests, and waits until the server is idle. Returns the measurements, and the databases that existed before."""
        bench = self.bench
        self.prepare(contender)
        before = self.databases(contender)
        # Pending writes of the previous sample must not count for this one.
        bench.sql("CHECKPOINT")
        poll("the end of all sessions", lambda: not has_sessions(bench.postmaster))
        cpu, complained = bench.server_cpu(), len(bench.server.complaints())
        env = self.environment(contender)
        if watch:
            watch.start()
        begun = time.perf_counter()
        text, usage = nextest(self.workload.command(contender, threads, test), cwd=self.workload.directory, env=env)
        wall = time.perf_counter() - begun
        orphans = reap_until_idle(bench.postmaster)
        idle = time.perf_counter() - begun
        peaks = watch.end() if watch else {}
        summary = re.search(r"Summary \[\s*([\d.]+)s\].* tests? run: (\d+) passed", text)
        passed, tests = int(summary[2]) if summary else 0, 1 if test else self.workload.shape.tests
        server_cpu, complaints = bench.server_cpu() - cpu, bench.server.complaints()[complained:]
        result = {
            "server": bench.server.kind, "migrations": self.migrations, "threads": threads, "contender": contender.name,
            "wall": wall, "idle": idle, "tests": float(summary[1]) if summary else None,
            "client_cpu": usage.ru_utime + usage.ru_stime + orphans, "server_cpu": server_cpu,
            "failed": tests - passed, "refused": refusals(complaints),
        } | self.databases(contender).since(before) | peaks
        if result["failed"]:
            result |= {"nextest": text[-3000:], "server_said": collections.Counter(complaints).most_common(5)}
            print(result["server_said"], file=sys.stderr)
        return result, before

    def environment(self, contender):
        bench = self.bench
        env = bench.env | self.workload.environment(contender, self.migrations, self.body)
        env |= {"BARE_URL": bench.database_url("bare"), "SCRATCH": str(bench.scratch), "PG_BIN": str(server_programs())}
        return env | {"PATH": f"{pathlib.Path(bench.binary).parent}:{self.workload.binaries}:{os.environ['PATH']}"}

    def clean_up(self, contender, before):
        """Drops the databases of this sample. Measures the time, and how many databases our own sweep left."""
        begun = time.perf_counter()
        if contender.ours:
            self.sweep(contender)
        left = self.databases(contender).names - before.names
        drops = "".join(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE);\n' for name in left)
        psql_script(self.bench.url, drops)
        return {"left_after_sweep": len(left), "dropping": time.perf_counter() - begun}

    def drop_spares(self, contenders):
        """Spares stay between samples: the second run of a suite is the normal case."""
        for contender in contenders:
            if contender.ours:
                self.sweep(contender, "--spares")

    def sweep(self, contender, *options):
        self.bench.kapsel("sweep", "--no-wait", *options, KAPSEL_TESTDB_NAMESPACE=contender.namespace)

    def report(self, result):
        where = f"{result['server']} {result['migrations']} migrations {result['threads']} threads {result['contender']}"
        print(f"{where}: {brief(result)}", file=sys.stderr)


def brief(result):
    keys = ["wall", "idle", "client_cpu", "server_cpu", "created", "dropped", "failed", "left", "spares", "refused", "connections", "client_mb", "server_mb"]
    numbers = {key: result[key] for key in keys if key in result}
    return ", ".join(f"{key} {number:.2f}" if isinstance(number, float) else f"{key} {number}" for key, number in numbers.items())
