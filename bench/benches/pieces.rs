//! What `prepare`, the keeper and each test compute or read beside their statements: configuration, fingerprint, sweep plan,
//! `run.json`, and the token ledger, each by what it grows with.
//!
//! `cargo bench --manifest-path bench/Cargo.toml --bench pieces`

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kapsel_testdb_bench::run_dir;
use kapsel_testdb_cli::sweep::{Inputs, plan};
use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::config::{self, Config, Layer};
use kapsel_testdb_core::pg::ServerFacts;
use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::pg::facts::Sessions;
use kapsel_testdb_core::protocol::{
    Connections, PROTOCOL, Presence, RunFile, Runtime, TemplateInputs,
};
use kapsel_testdb_core::protocol::{DbName, Fingerprint, Kind, Namespace, RunId, RunKey};
use kapsel_testdb_core::protocol::{
    KeepConfig, Ledger, Limit, MigrationDirectory, Pollution, PoolConfig, Strategy, TemplateBase,
};
use kapsel_testdb_core::run::kept::KeepLimits;
use kapsel_testdb_core::template::{Chain, Source};

/// The configuration from a file and an environment, as `prepare` and each slow-path test read it.
fn environment(criterion: &mut Criterion) {
    let root = tempfile::tempdir().expect("a folder");
    let file =
        "namespace = \"bench\"\n[template]\nseeds = [\"seed.sql\"]\n[pool]\nmax_connections = 7\n";
    std::fs::create_dir(root.path().join(".config")).expect("a folder");
    std::fs::write(root.path().join(config::FILE), file).expect("a file");
    criterion.bench_function("config", |bencher| {
        bencher.iter(|| configuration(black_box(root.path())));
    });
}

fn configuration(root: &Path) -> Config {
    let variable = |name: &str| match name {
        "DATABASE_URL" => Some("postgres://me@127.0.0.1/postgres".to_owned()),
        "KAPSEL_TESTDB_POOL_MAX_CONNECTIONS" => Some("5".to_owned()),
        _ => None,
    };
    config::load_with(root, Layer::default(), &variable).expect("valid")
}

/// Reading the migrations, hashing them, and the chain.
fn fingerprint(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let mut group = criterion.benchmark_group("fingerprint");
    for migrations in [5, 40, 160, 500] {
        let root = tempfile::tempdir().expect("a folder");
        write_migrations(&root.path().join("migrations"), migrations);
        let config = configuration(root.path());
        let facts = facts();
        group.bench_function(BenchmarkId::from_parameter(migrations), |bencher| {
            bencher.iter(|| {
                let source = runtime
                    .block_on(Source::read(&config))
                    .expect("the migrations");
                let template_base = TemplateBase::of(&config).expect("no files");
                Chain::new(&source, &template_base, &facts)
            });
        });
    }
}

fn write_migrations(folder: &Path, number: usize) {
    std::fs::create_dir(folder).expect("a folder");
    for n in 1..=number {
        let text = format!("CREATE TABLE t{n} (id bigint);\n").repeat(50);
        std::fs::write(folder.join(format!("{n:06}_t.sql")), text).expect("a file");
    }
}

fn facts() -> ServerFacts {
    ServerFacts {
        version_num: 150_004,
        role: "me".to_owned(),
        can_create: true,
        superuser: false,
        fsync: false,
        sessions: Sessions::default(),
        base_locale: "UTF8 C C".to_owned(),
        base: None,
        role_settings: String::new(),
        settings: Default::default(),
        options: None,
    }
}

fn run(of: usize) -> RunId {
    RunId::new(
        UNIX_EPOCH + Duration::from_secs(of as u64),
        &RunKey::new(&[&of.to_string()]),
    )
}

/// A tenth of the databases belongs to runs that are alive here.
fn sweep(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sweep plan");
    for databases in [10, 300, 3_000] {
        let rows: Vec<DatabaseRow> = (0..databases).map(|n| row(&run(n / 10))).collect();
        let alive = (0..databases / 100).map(|n| (run(n), Presence::Alive));
        let directories: BTreeMap<_, _> = alive.collect();
        let inputs = Inputs {
            databases: &rows,
            directories: &directories,
            keep: KeepLimits::Common(KeepConfig {
                failed: true,
                max: 20,
                max_age_days: 7,
            }),
            now: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        };
        group.bench_function(BenchmarkId::from_parameter(databases), |bencher| {
            bencher.iter(|| plan(black_box(&inputs)));
        });
    }
}

fn namespace() -> Namespace {
    Namespace::new("bench").expect("valid")
}

fn row(run: &RunId) -> DatabaseRow {
    let fingerprint = Fingerprint::from_hash(&[3; 32]);
    DatabaseRow {
        activity: 5,
        ..DatabaseRow::unused(DbName::for_run(
            &namespace(),
            Kind::Clone,
            &fingerprint,
            run,
        ))
    }
}

/// `run.json`, as a test process reads it and `prepare` writes it.
fn run_json(criterion: &mut Criterion) {
    let base = tempfile::tempdir().expect("a folder");
    let dir = run_dir(&base.path().join("rt"));
    let file = run_file();
    criterion.bench_function("run.json, written", |bencher| {
        bencher.iter(|| dir.write(black_box(&file)).expect("a file"));
    });
    criterion.bench_function("run.json, read", |bencher| {
        bencher.iter(|| dir.read().expect("a file"));
    });
}

fn address() -> Address {
    let (address, _) = Address::parse("postgres://me@127.0.0.1/postgres").expect("valid");
    address
}

fn run_file() -> RunFile {
    RunFile {
        protocol: PROTOCOL,
        tool: "bench".to_owned(),
        run: run(1),
        namespace: namespace(),
        server: address(),
        admin: None,
        maintenance_database: "postgres".to_owned(),
        template: DbName::template(&namespace(), &Fingerprint::from_hash(&[3; 32])),
        template_inputs: TemplateInputs {
            migrations: vec![MigrationDirectory {
                path: "/home/me/app/migrations".into(),
                migrate: Default::default(),
            }],
            seeds: false,
            template_base: TemplateBase {
                base: "template0".to_owned(),
                extensions: Vec::new(),
                roles: Vec::new(),
                before: Vec::new(),
            },
            start: "0".repeat(64),
            schema: "0".repeat(64),
        },
        strategy: Strategy::FileCopy,
        settings: Vec::new(),
        threads: 39,
        ignores_sqlx_toml: false,
        own_keys: false,
        disk_budget_mb: None,
        pool: PoolConfig {
            max_connections: 5,
            acquire_timeout_secs: 30,
            sandbox_acquire_timeout_ms: 2_000,
            sandbox_lock_timeout_ms: 5_000,
            leaks: Default::default(),
        },
        connections: Connections {
            per_process: 2,
            reserved: false,
        },
        keep: KeepConfig {
            failed: true,
            max: 20,
            max_age_days: 7,
        },
        pollution: Pollution::Warn,
        recycle: None,
        spares: 0,
    }
}

/// Getting in line, looking whether it is one's turn, and leaving, by how many others hold tokens.
fn ledger(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("token ledger");
    for others in [0, 39, 200] {
        let base = tempfile::tempdir().expect("a folder");
        let runtime = Runtime::open_at(&base.path().join("rt")).expect("a private folder");
        let ledger = Ledger::open(&runtime, &address()).expect("a ledger");
        let limit = Limit {
            slots: 1_000,
            ..Limit::unknown()
        };
        ledger.set_limit(&limit).expect("a file");
        let _places: Vec<_> = (0..others)
            .map(|_| ledger.enqueue(|_, _| 2).expect("a place"))
            .collect();
        group.bench_function(BenchmarkId::from_parameter(others), |bencher| {
            bencher.iter(|| {
                let place = ledger.enqueue(|_, _| 2).expect("a place");
                assert!(ledger.is_granted(&place.holder));
            });
        });
    }
}

criterion_group!(benches, environment, fingerprint, sweep, run_json, ledger);
criterion_main!(benches);
