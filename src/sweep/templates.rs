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
use kapsel_testdb_core::run::end::drop_rows;
use kapsel_testdb_core::template::TemplateInfo;

use crate::sweep::spares::of_spares;

/// Drops the least recently used templates beyond `keep`, and the remains of an interrupted collection. Checks the live runs of this host
/// in addition to the locks, because a run's keeper holds the template's lock, and the keeper may have just started or may have died.
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
    let spares: Vec<DatabaseRow> = of_spares(&rows).cloned().collect();
    let used = runtime.templates_in_use()?;
    let surplus = surplus(rows, keep, &used);
    if dry_run {
        return Ok(surplus.into_iter().map(|row| row.name).collect());
    }
    if surplus.is_empty() || !admin.try_lock(LockKey::build()).await? {
        return Ok(Vec::new());
    }
    let mut dropped = Vec::new();
    for row in surplus {
        let key = LockKey::template(&row.name);
        if !admin.try_lock(key).await? {
            continue;
        }
        // A run that started meanwhile is listed here before it hands the lock over to its keeper.
        if runtime.templates_in_use()?.contains(&row.name) {
            admin.unlock(key).await?;
            continue;
        }
        match admin.drop_database(&row.name, row.is_template, false).await {
            Ok(()) => {
                // A crash before this leaves spares without a template, which the next sweep drops.
                let of_template =
                    |spare: &&DatabaseRow| spare.name.fingerprint() == row.name.fingerprint();
                for spare in spares.iter().filter(of_template) {
                    if drop_rows(admin, vec![spare.clone()], false)
                        .await?
                        .is_empty()
                    {
                        dropped.push(spare.name.clone());
                    }
                }
                dropped.push(row.name);
            }
            Err(error) if error.code().is_some() => tracing::warn!("{error}"),
            Err(error) => return Err(error.into()),
        }
        admin.unlock(key).await?;
    }
    admin.unlock(LockKey::build()).await?;
    Ok(dropped)
}

/// The templates to drop: all that cannot be cloned, and the least recently used ones beyond `keep`, unless a run of this host uses them.
fn surplus(rows: Vec<DatabaseRow>, keep: usize, used: &[DbName]) -> Vec<DatabaseRow> {
    let ours = |row: &DatabaseRow| row.name.kind() == Kind::Template && row.owned;
    let rows = rows.into_iter().filter(ours);
    let (mut usable, wrecks): (Vec<_>, Vec<_>) =
        rows.partition(|row| TemplateInfo::of(row).is_ok());
    let used_at = |row: &DatabaseRow| {
        let info = TemplateInfo::parse(row.comment.as_deref());
        std::cmp::Reverse(info.map_or(0, |info| info.used_at))
    };
    usable.sort_by_key(used_at);
    let old = usable.into_iter().skip(keep);
    wrecks
        .into_iter()
        .chain(old)
        .filter(|row| !used.contains(&row.name))
        .collect()
}
