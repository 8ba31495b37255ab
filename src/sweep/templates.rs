//! Collects templates that have not been used for long: switching branches should not rebuild a template, but every branch leaves one.
//!
//! A template is dropped only under its own lock, exclusive, so that no run uses it, and under the build lock, so that no build
//! starts from it. A crash after the unsealing leaves a database that is no longer a template: the next build of the same fingerprint or
//! the next collection drops it.

use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::pg::lock::LockKey;
use kapsel_testdb_core::protocol::{DbName, Kind, Namespace, Runtime};
use kapsel_testdb_core::run::RunError;
use kapsel_testdb_core::run::end::{Skipped, drop_rows};
use kapsel_testdb_core::template::TemplateInfo;

use crate::sweep::spares::of_spares;

/// What a collection dropped, and what it could not drop.
#[derive(Debug, Default)]
pub struct Collected {
    /// The dropped databases.
    pub dropped: Vec<DbName>,
    /// The others, with the reason.
    pub skipped: Vec<Skipped>,
}

impl Collected {
    pub(super) fn skip(&mut self, name: &DbName, reason: &str) {
        self.skipped.push(Skipped {
            name: name.clone(),
            reason: reason.to_owned(),
        });
    }

    /// Drops databases that belong to no live run and no template.
    pub(super) async fn drop_rows(
        &mut self,
        admin: &mut Admin,
        rows: Vec<DatabaseRow>,
    ) -> Result<(), RunError> {
        let names: Vec<DbName> = rows.iter().map(|row| row.name.clone()).collect();
        let skipped = drop_rows(admin, rows, false).await?;
        let gone = |name: &DbName| skipped.iter().all(|s| s.name != *name);
        self.dropped.extend(names.into_iter().filter(gone));
        self.skipped.extend(skipped);
        Ok(())
    }
}

/// Drops the least recently used templates beyond `keep`, and the remains of an interrupted collection. Those in use stay.
///
/// # Errors
/// The server cannot be used.
pub async fn collect_templates(
    admin: &mut Admin,
    runtime: &Runtime,
    namespace: &Namespace,
    keep: usize,
    dry_run: bool,
) -> Result<Vec<DbName>, RunError> {
    let rows = admin.databases(namespace).await?;
    let used = runtime.templates_in_use()?;
    let surplus = surplus(&rows, keep, &used);
    if dry_run {
        return Ok(surplus.into_iter().map(|row| row.name).collect());
    }
    Ok(drop_templates(admin, runtime, surplus, &rows)
        .await?
        .dropped)
}

/// Drops templates that no run uses, with their spares, which are among `rows`. Checks the live runs of this host in addition to the locks, because a run's
/// keeper holds the template's lock, and the keeper may have just started or may have died.
///
/// # Errors
/// The server cannot be used.
pub async fn drop_templates(
    admin: &mut Admin,
    runtime: &Runtime,
    templates: Vec<DatabaseRow>,
    rows: &[DatabaseRow],
) -> Result<Collected, RunError> {
    let mut collected = Collected::default();
    if templates.is_empty() {
        return Ok(collected);
    }
    if !admin.try_lock(LockKey::build()).await? {
        for row in &templates {
            collected.skip(&row.name, "another process builds or drops templates");
        }
        return Ok(collected);
    }
    for row in templates {
        drop_template(admin, runtime, row, rows, &mut collected).await?;
    }
    admin.unlock(LockKey::build()).await?;
    Ok(collected)
}

async fn drop_template(
    admin: &mut Admin,
    runtime: &Runtime,
    row: DatabaseRow,
    rows: &[DatabaseRow],
    collected: &mut Collected,
) -> Result<(), RunError> {
    if !row.owned {
        let owner = &row.owner;
        collected.skip(&row.name, &format!("owned by the role `{owner}`"));
        return Ok(());
    }
    let key = LockKey::template(&row.name);
    if !admin.try_lock(key).await? {
        collected.skip(&row.name, "a run uses it");
        return Ok(());
    }
    // A run that started meanwhile is listed here before it hands the lock over to its keeper.
    if runtime.templates_in_use()?.contains(&row.name) {
        collected.skip(&row.name, "a run uses it");
    } else {
        match admin.drop_database(&row.name, row.is_template, false).await {
            Ok(()) => {
                // A crash before this leaves spares without a template, which the next sweep drops.
                let is_its = |spare: &&DatabaseRow| spare.name.template_name() == row.name;
                let spares = of_spares(rows).filter(is_its).cloned().collect();
                collected.dropped.push(row.name);
                collected.drop_rows(admin, spares).await?;
            }
            Err(error) if error.code().is_some() => {
                tracing::warn!("{error}");
                collected.skip(&row.name, &error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
    }
    admin.unlock(key).await?;
    Ok(())
}

/// The templates to drop: all that cannot be cloned, and the least recently used ones beyond `keep`, unless a run of this host uses them.
fn surplus(rows: &[DatabaseRow], keep: usize, used: &[DbName]) -> Vec<DatabaseRow> {
    let ours = |row: &&DatabaseRow| row.name.kind() == Kind::Template && row.owned;
    let rows = rows.iter().filter(ours);
    let (mut usable, wrecks): (Vec<_>, Vec<_>) =
        rows.partition(|row| TemplateInfo::of(row).is_ok());
    usable.sort_by_key(|row| std::cmp::Reverse(used_at(row)));
    let old = usable.into_iter().skip(keep);
    wrecks
        .into_iter()
        .chain(old)
        .filter(|row| !used.contains(&row.name))
        .cloned()
        .collect()
}

/// When a template was last used, in seconds since 1970; 0 if that cannot be read.
pub(super) fn used_at(row: &DatabaseRow) -> u64 {
    TemplateInfo::parse(row.comment.as_deref()).map_or(0, |info| info.used_at)
}
