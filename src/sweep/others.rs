//! What other namespaces of our role left on a server: those of worktrees and projects that are gone. They have no process that would collect their
//! templates, so any project's sweep does, by age and by size.
//!
//! The locks are the same as in the namespace itself: the run lock for databases of a run, the template's lock and the build lock for templates. A crash leaves
//! the rest to the next collection.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kapsel_testdb_core::config::OthersLimits;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::pg::lock::LockKey;
use kapsel_testdb_core::protocol::{DbName, Kind, Namespace, Presence, RunId, Runtime, SpareNote};
use kapsel_testdb_core::run::RunError;
use kapsel_testdb_core::run::kept::KeptNote;
use kapsel_testdb_core::run::spares::MAX_AGE;
use kapsel_testdb_core::template::TemplateInfo;

use crate::sweep::templates::{Collected, drop_templates, used_at};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Drops what other namespaces left. In a dry run, only lists it.
///
/// # Errors
/// The server cannot be used.
pub async fn collect_others(
    admin: &mut Admin,
    runtime: &Runtime,
    own: &Namespace,
    limits: OthersLimits,
    dry_run: bool,
) -> Result<Collected, RunError> {
    let mut rows = admin.all_databases().await?;
    rows.retain(|row| row.name.namespace() != own && row.owned);
    let sizes = match limits.max_mb {
        0 => BTreeMap::new(),
        _ => admin
            .sizes()
            .await?
            .into_iter()
            .filter_map(|size| Some((size.name, size.bytes?)))
            .collect(),
    };
    let surplus = surplus(&rows, &sizes, limits, SystemTime::now());
    if dry_run {
        return Ok(Collected {
            dropped: surplus.into_iter().map(|row| row.name).collect(),
            skipped: Vec::new(),
        });
    }
    drop_unused(admin, runtime, surplus, &rows).await
}

/// Drops databases of any namespaces, except those that a live run uses: first those of runs, then those that belong to none, then templates.
///
/// # Errors
/// The server cannot be used.
pub async fn drop_unused(
    admin: &mut Admin,
    runtime: &Runtime,
    chosen: Vec<DatabaseRow>,
    rows: &[DatabaseRow],
) -> Result<Collected, RunError> {
    let mut collected = Collected::default();
    let (mut templates, mut free) = (Vec::new(), Vec::new());
    let mut of_runs: BTreeMap<(Namespace, RunId), Vec<DatabaseRow>> = BTreeMap::new();
    for row in chosen {
        match (row.name.kind(), row.name.run().cloned()) {
            (Kind::Template, _) => templates.push(row),
            (Kind::Kept | Kind::Spare, _) | (_, None) => free.push(row),
            (_, Some(run)) => {
                let key = (row.name.namespace().clone(), run);
                of_runs.entry(key).or_default().push(row);
            }
        }
    }
    for ((namespace, run), rows) in of_runs {
        drop_run(admin, runtime, &namespace, &run, rows, &mut collected).await?;
    }
    collected.drop_rows(admin, free).await?;
    let mut left = rows.to_vec();
    left.retain(|row| !collected.dropped.contains(&row.name));
    let dropped = drop_templates(admin, runtime, templates, &left).await?;
    collected.dropped.extend(dropped.dropped);
    collected.skipped.extend(dropped.skipped);
    Ok(collected)
}

/// Drops databases of a run, unless it is alive here or anywhere else.
async fn drop_run(
    admin: &mut Admin,
    runtime: &Runtime,
    namespace: &Namespace,
    run: &RunId,
    rows: Vec<DatabaseRow>,
    collected: &mut Collected,
) -> Result<(), RunError> {
    let presence = {
        let gate = runtime.gate()?;
        runtime.presence(&gate, run)
    };
    let key = LockKey::run(namespace, run);
    if presence == Presence::Alive || !admin.try_lock(key).await? {
        for row in &rows {
            collected.skip(&row.name, "its run is alive");
        }
        return Ok(());
    }
    collected.drop_rows(admin, rows).await?;
    Ok(admin.unlock(key).await?)
}

fn takes_room(row: &DatabaseRow) -> bool {
    matches!(row.name.kind(), Kind::Template | Kind::Spare)
}

/// The databases to drop. Pure.
fn surplus(
    rows: &[DatabaseRow],
    sizes: &BTreeMap<DbName, u64>,
    limits: OthersLimits,
    now: SystemTime,
) -> Vec<DatabaseRow> {
    let max_age = match limits.max_age_days {
        0 => Duration::MAX,
        days => DAY * u32::try_from(days).unwrap_or(u32::MAX),
    };
    let is_older =
        |at: SystemTime, limit: Duration| now.duration_since(at).is_ok_and(|age| age > limit);
    let (mut surplus, mut rest): (Vec<_>, Vec<_>) = rows.iter().cloned().partition(|row| {
        limits.max_age_days > 0
            && last_use(row).is_some_and(|(at, limit)| is_older(at, limit.unwrap_or(max_age)))
    });
    if limits.max_mb > 0 {
        let size = |row: &DatabaseRow| sizes.get(&row.name).copied().unwrap_or(0);
        let mut room: u64 = rest.iter().map(size).sum();
        let templates: Vec<DatabaseRow> = {
            let mut templates = rest.clone();
            templates.retain(|row| row.name.kind() == Kind::Template);
            templates.sort_by_key(used_at);
            templates
        };
        for template in templates {
            let used = UNIX_EPOCH + Duration::from_secs(used_at(&template));
            if room <= limits.max_mb << 20 || !is_older(used, DAY) {
                break;
            }
            let goes =
                |row: &DatabaseRow| takes_room(row) && row.name.template_name() == template.name;
            let (gone, left): (Vec<_>, Vec<_>) = rest.into_iter().partition(goes);
            room -= gone.iter().map(size).sum::<u64>();
            surplus.extend(
                gone.into_iter()
                    .filter(|row| row.name.kind() == Kind::Template),
            );
            rest = left;
        }
    }
    surplus
}

/// When a database was last of use, and how long after that it is dropped if not after the common time. `None`: that is unknown, so it stays.
fn last_use(row: &DatabaseRow) -> Option<(SystemTime, Option<Duration>)> {
    let comment = row.comment.as_deref();
    let seconds = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    match row.name.kind() {
        Kind::Template => Some((seconds(TemplateInfo::parse(comment)?.used_at), None)),
        Kind::Spare => Some((seconds(SpareNote::parse(comment)?.since), Some(MAX_AGE))),
        Kind::Kept => {
            let note = KeptNote::parse(comment)?;
            let at = UNIX_EPOCH + Duration::from_millis(note.kept_at);
            let days = note.keep.map(|keep| keep.max_age_days);
            let limit = days.map(|days| DAY * u32::try_from(days).unwrap_or(u32::MAX));
            Some((at, limit))
        }
        Kind::Building | Kind::Clone | Kind::Shared => Some((row.name.run()?.created_at(), None)),
    }
}

#[cfg(test)]
mod tests {
    use kapsel_testdb_core::protocol::{Fingerprint, RunKey};

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const LIMITS: OthersLimits = OthersLimits {
        max_age_days: 30,
        max_mb: 100,
    };

    fn days_ago(days: u64) -> u64 {
        NOW - days * DAY.as_secs()
    }

    fn template(of: u8, unused_days: u64) -> DatabaseRow {
        let namespace = Namespace::new("gone").expect("valid");
        let name = DbName::template(&namespace, &Fingerprint::from_hash(&[of; 32]));
        let used_at = days_ago(unused_days);
        let comment = format!(
            r#"{{"tool":"1","fingerprint":"","inputs":[],"built_at":0,"used_at":{used_at}}}"#
        );
        DatabaseRow {
            is_template: true,
            allow_connections: false,
            comment: Some(comment),
            ..DatabaseRow::unused(name)
        }
    }

    fn of_run(kind: Kind, of: u8, begun_days_ago: u64) -> DatabaseRow {
        let template = template(of, 0).name;
        let begun = UNIX_EPOCH + Duration::from_secs(days_ago(begun_days_ago));
        let run = RunId::new(begun, &RunKey::new(&["x"]));
        let name = DbName::for_run(template.namespace(), kind, template.fingerprint(), &run);
        DatabaseRow::unused(name)
    }

    fn names(rows: &[DatabaseRow], mb: &[u64], limits: OthersLimits) -> Vec<DbName> {
        let sizes = rows.iter().zip(mb);
        let sizes = sizes
            .map(|(row, mb)| (row.name.clone(), mb << 20))
            .collect();
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let surplus = surplus(rows, &sizes, limits, now);
        surplus.into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn what_was_not_used_for_a_month_goes() {
        let rows = [
            template(1, 31),
            template(2, 29),
            of_run(Kind::Clone, 3, 31),
            of_run(Kind::Building, 3, 29),
        ];
        let expected = [rows[0].name.clone(), rows[2].name.clone()];
        assert_eq!(names(&rows, &[], LIMITS), expected);
        let never = OthersLimits {
            max_age_days: 0,
            ..LIMITS
        };
        assert!(names(&rows, &[], never).is_empty());
    }

    #[test]
    fn what_has_no_known_age_stays() {
        let mut rows = [
            template(1, 99),
            of_run(Kind::Kept, 1, 99),
            of_run(Kind::Spare, 1, 99),
        ];
        rows[0].comment = None;
        assert!(names(&rows, &[], LIMITS).is_empty());
    }

    #[test]
    fn beyond_the_room_the_least_recently_used_templates_go_with_their_spares() {
        let rows = [
            template(1, 2),
            template(2, 9),
            of_run(Kind::Spare, 2, 9),
            template(3, 5),
            template(4, 0),
        ];
        let mb = [60, 60, 60, 60, 60];
        let both = [
            rows[1].name.clone(),
            rows[3].name.clone(),
            rows[0].name.clone(),
        ];
        assert_eq!(names(&rows, &mb, LIMITS), both);
        let enough = OthersLimits {
            max_mb: 180,
            ..LIMITS
        };
        assert_eq!(names(&rows, &mb, enough), both[..1]);
        let no_limit = OthersLimits {
            max_mb: 0,
            ..LIMITS
        };
        assert!(names(&rows, &mb, no_limit).is_empty());
    }

    #[test]
    fn templates_of_the_last_day_stay_whatever_their_size() {
        assert!(names(&[template(1, 0), template(2, 1)], &[900, 900], LIMITS).is_empty());
    }
}
