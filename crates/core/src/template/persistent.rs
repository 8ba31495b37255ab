//! The persistent database: a database with a fixed, configured name that `prepare` migrates outside nextest. It belongs to the
//! user. Only `prepare --reset` drops it, and only if its comment shows that `prepare` created it for this namespace. A crash leaves it at the last
//! committed migration, or without the comment if it was just created.

use sqlx::PgConnection;
use sqlx::migrate::MigrateError;

use crate::config::Config;
use crate::pg::admin::Admin;
use crate::pg::connect::{self, RetryLimits};
use crate::pg::error::ErrorDetails;
use crate::pg::own::OwnSession;
use crate::pg::persistent::PersistentDatabase;
use crate::pg::script::ScriptError;
use crate::pg::session::close;
use crate::pg::sql::identifier;
use crate::protocol::{BuildStep, Strategy, TemplateBase};
use crate::server::Server;
use crate::sqlstate;
use crate::sqlx_compat::{MigrationsTable, internal};
use crate::template::source::{SchemaStep, Source, SqlxMigration};
use crate::template::steps::{
    Site, create_extensions, hidden_table, limited, migration_error, run_step,
};
use crate::template::{TemplateError, hints};

/// The persistent database while it is migrated.
#[derive(Clone, Copy)]
struct Persistent<'a> {
    site: Site<'a>,
    /// Whether it was just created.
    is_new: bool,
    /// Whether `prepare --reset` may drop it.
    is_ours: bool,
}

/// Creates the database if it is missing, from the same base as templates; creates missing roles and extensions; and runs pending
/// migrations. Returns their number. What `template.before` names runs in a new database only; what `template.after` names, after each change.
/// `reset`: drops the database first.
///
/// # Errors
/// A migration failed, an applied migration was edited, or the database may not be dropped.
pub async fn migrate_persistent(
    admin: &mut Admin,
    server: &Server,
    config: &Config,
    name: &str,
    reset: bool,
) -> Result<usize, TemplateError> {
    let base = TemplateBase::of(config)?;
    let source = Source::without_seeds(config).await?;
    for role in &base.roles {
        admin.ensure_role(role, "template.roles").await?;
    }
    let mark = format!(
        "kapsel-testdb: persistent database of `{}`",
        config.namespace
    );
    let mut existing = admin.persistent_database(name).await?;
    if let Some(found) = existing.take_if(|_| reset) {
        drop_for_reset(admin, name, &found, &mark).await?;
    }
    let is_new = existing.is_none();
    if is_new {
        admin
            .create_database(&name, &base.base, Strategy::Default)
            .await?;
        admin.mark_persistent_database(name, &mark).await?;
    }
    let address = &server.admin_address;
    let mut connection =
        connect::connect(address, &address.options(name), RetryLimits::RUNNING).await?;
    let _own = OwnSession::of(&mut connection, address).await?;
    let what = || "create the extensions".to_owned();
    let created = create_extensions(&mut connection, &base.extensions);
    limited(address, what, created).await??;
    let site = Site {
        address,
        database: name,
        facts: &server.facts,
    };
    if is_new {
        for step in &base.before {
            run_step(&mut connection, step, site).await?;
        }
    }
    let persistent = Persistent {
        site,
        is_new,
        is_ours: existing.is_none_or(|found| found.comment.as_deref() == Some(&mark)),
    };
    let applied = match migrate(&mut connection, &source, persistent).await {
        Ok(applied) => applied,
        Err(error) => return Err(hints::explain_missing(error, address, &base.base).await),
    };
    if is_new || applied > 0 {
        for later in &source.later {
            run_step(&mut connection, &later.step, site).await?;
        }
    }
    let what = || format!("close the connection to `{name}`");
    close(connection, address, what).await?;
    Ok(applied)
}

/// Drops the database, if we have created it and no session is connected to it.
async fn drop_for_reset(
    admin: &mut Admin,
    name: &str,
    found: &PersistentDatabase,
    mark: &str,
) -> Result<(), TemplateError> {
    let reason = if !found.owned {
        format!("it belongs to the role `{}`", found.owner)
    } else if found.comment.as_deref() != Some(mark) {
        format!(
            "`prepare` has not created it for this project (its comment would be {mark:?}); if you do not need it, drop it yourself: \
             `DROP DATABASE {}`",
            identifier(name)
        )
    } else {
        match admin.drop_persistent_database(name).await {
            Err(error) if error.is(sqlstate::OBJECT_IN_USE) => {
                "other sessions use it; close them first".to_owned()
            }
            dropped => return Ok(dropped?),
        }
    };
    let name = name.to_owned();
    Err(TemplateError::NotReset { name, reason })
}

/// Applies what is missing; returns the number of migrations. A script runs only in a new database; a command decides for itself.
async fn migrate(
    connection: &mut PgConnection,
    source: &Source,
    persistent: Persistent<'_>,
) -> Result<usize, TemplateError> {
    let Persistent { site, is_new, .. } = persistent;
    let mut applied = 0;
    let mut tables: Vec<&MigrationsTable> = source.tables.iter().collect();
    for step in &source.steps {
        match step {
            SchemaStep::Sqlx(sqlx) => {
                // With the first one, all that are recorded in the same table: sqlx refuses a table with migrations that a migrator lacks.
                let before = tables.len();
                tables.retain(|table| **table != sqlx.table);
                if tables.len() < before {
                    applied += run_sqlx(connection, source, &sqlx.table, persistent).await?;
                }
            }
            SchemaStep::File(file) => {
                let what = || format!("run `{}`", file.file);
                let apply = limited(site.address, what, file.apply(connection));
                applied += usize::from(apply.await??);
            }
            SchemaStep::Step(BuildStep::Script(_)) if !is_new => {}
            SchemaStep::Step(step) => run_step(connection, step, site).await?,
        }
    }
    // Of empty directories.
    for table in tables {
        applied += run_sqlx(connection, source, table, persistent).await?;
    }
    Ok(applied)
}

/// Runs the missing migrations of sqlx that are recorded in a table.
async fn run_sqlx(
    connection: &mut PgConnection,
    source: &Source,
    table: &MigrationsTable,
    persistent: Persistent<'_>,
) -> Result<usize, TemplateError> {
    let site = persistent.site;
    let migrations = source.sqlx().filter(|sqlx| sqlx.table == *table);
    let migrations = migrations.map(|sqlx| sqlx.migration.clone()).collect();
    let migrator = internal::migrator(migrations, table);
    let migrate = async {
        let before = count_applied(connection, table).await;
        if let Err(error) = internal::run_migrations(&migrator, connection).await {
            let failed = failure(connection, source, persistent, &error);
            return Err(failed.await.into());
        }
        let after = count_applied(connection, table).await;
        Ok::<_, TemplateError>(after.saturating_sub(before))
    };
    let what = || format!("migrate `{}`", site.database);
    limited(site.address, what, migrate).await?
}

/// The number of applied migrations; 0 if the table does not exist yet.
async fn count_applied(connection: &mut PgConnection, table: &MigrationsTable) -> usize {
    let versions = internal::applied_versions(connection, &table.table).await;
    versions.map_or(0, |versions| versions.len())
}

async fn failure(
    connection: &mut PgConnection,
    source: &Source,
    persistent: Persistent<'_>,
    error: &MigrateError,
) -> ScriptError {
    let database = persistent.site.database;
    let reset = match persistent.is_ours {
        true => {
            "run `kapsel-testdb prepare --reset`, which drops the database and creates it again"
        }
        false => "drop the database and run `kapsel-testdb prepare` again",
    };
    let find = |version: i64| source.sqlx().find(|sqlx| sqlx.migration.version == version);
    let file =
        |version: i64| find(version).map_or_else(|| version.to_string(), SqlxMigration::file);
    match error {
        MigrateError::VersionMismatch(version) => ScriptError::new(
            &file(*version),
            format!(
                "it was edited after it was applied to the database `{database}`; undo the edit, or {reset}"
            ),
        ),
        MigrateError::VersionMissing(version) => ScriptError::new(
            &file(*version),
            format!(
                "it was applied to the database `{database}`, but its file is missing; restore the file, or {reset}"
            ),
        ),
        MigrateError::ExecuteMigration(error, version) => match find(*version) {
            Some(sqlx) => {
                migration_error(connection, &sqlx.migration, &file(*version), error).await
            }
            None => ScriptError::new(&file(*version), error.to_string()),
        },
        MigrateError::Execute(error) => {
            let details = ErrorDetails::of(error);
            let mut sqlx = source.sqlx();
            let hidden = sqlx.find_map(|sqlx| {
                let sql = internal::migration_sql(&sqlx.migration);
                hidden_table(sql, &sqlx.file(), &details, error)
            });
            hidden.unwrap_or_else(|| unlocated(database, error))
        }
        error => unlocated(database, error),
    }
}

fn unlocated(database: &str, error: &dyn std::error::Error) -> ScriptError {
    ScriptError::new(
        &format!("the migrations of `{database}`"),
        error.to_string(),
    )
}
