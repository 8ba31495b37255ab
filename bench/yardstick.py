"""One run of the workload for one contender, and its measurements."""
import collections, os, pathlib, re, subprocess, sys, threading, time
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
        return children(os.getpid()) == [postmaster] and not any(map(is_session, children(postmaster)))

    poll("the processes that outlived nextest", idle, 300)
    return cpu


class Course:
    """The course that contenders run: a workload, a server, and a number of migrations."""

    def __init__(self, workload, bench, migrations, body=1):
        self.workload, self.bench, self.migrations, self.body = workload, bench, migrations, body
        bench.env |= {"KAPSEL_TESTDB_TEMPLATE_MIGRATIONS": str(workload.migrations(migrations))}
        bench.kapsel("prepare")
        self.template = bench.template()

    def databases(self):
        names = self.bench.sql("SELECT datname FROM pg_database WHERE NOT datistemplate AND datname !~ '_template_'")
        return set(names.split())

    def sample(self, contender, threads):
        bench = self.bench
        if contender.name == "bare":
            # A fresh database: dead rows of the last round would slow this one.
            bench.sql('DROP DATABASE IF EXISTS "bare"')
            bench.clone("bare", self.template)
            bench.sql("SELECT 1", "bare")
        before = self.databases()
        # Pending writes of the previous sample must not count for this one.
        bench.sql("CHECKPOINT")
        cpu, complained = bench.server_cpu(), len(bench.server.complaints())
        env = bench.env | self.workload.environment(contender, self.migrations, self.body)
        env |= {"BARE_URL": bench.database_url("bare"), "SCRATCH": str(bench.scratch), "PG_BIN": str(server_programs())}
        env["PATH"] = f"{pathlib.Path(bench.binary).parent}:{self.workload.binaries}:{os.environ['PATH']}"
        watch = Watch(bench.postmaster, (str(self.workload.binaries.resolve()), bench.binary))
        watch.start()
        begun = time.perf_counter()
        process = subprocess.Popen(
            self.workload.command(contender, threads), cwd=self.workload.directory, env=env,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        try:
            text = process.stderr.read()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        wall = time.perf_counter() - begun
        orphans = reap_until_idle(bench.postmaster)
        idle = time.perf_counter() - begun
        summary = re.search(r"Summary \[\s*([\d.]+)s\].* tests? run: (\d+) passed", text)
        passed = int(summary[2]) if summary else 0
        left, complaints = self.databases() - before, bench.server.complaints()[complained:]
        result = {
            "server": bench.server.kind, "migrations": self.migrations, "threads": threads, "contender": contender.name,
            "wall": wall, "idle": idle, "tests": float(summary[1]) if summary else None,
            "client_cpu": usage.ru_utime + usage.ru_stime + orphans, "server_cpu": bench.server_cpu() - cpu,
            "failed": self.workload.shape.tests - passed, "left": len(left), "refused": refusals(complaints),
        } | watch.end()
        result |= self.clean_up(contender, before)
        if result["failed"]:
            result |= {"nextest": text[-3000:], "server_said": collections.Counter(complaints).most_common(5)}
            print(result["server_said"], file=sys.stderr)
        print(f"{bench.server.kind} {self.migrations} migrations {threads} threads {contender.name}: " + brief(result), file=sys.stderr)
        return result

    def clean_up(self, contender, before):
        """Drops the databases of this sample. Measures the time, and how many databases our own sweep left."""
        begun = time.perf_counter()
        if contender.ours:
            self.bench.kapsel("sweep", "--no-wait")
        left = self.databases() - before
        drops = "".join(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE);\n' for name in left)
        psql_script(self.bench.url, drops)
        return {"left_after_sweep": len(left), "dropping": time.perf_counter() - begun}


def brief(result):
    keys = ["wall", "idle", "client_cpu", "server_cpu", "failed", "left", "refused", "connections", "client_mb", "server_mb"]
    return ", ".join(f"{key} {result[key]:.2f}" if isinstance(result[key], float) else f"{key} {result[key]}" for key in keys)
