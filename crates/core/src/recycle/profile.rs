//! Reads the profile of a template at the end of its build: what a reset of its clones must leave.

use sqlx::Error as Sqlx;

use super::evidence::class_hash;
use super::session::{TextRow, TextSession, number, text};
use crate::protocol::{Filled, Profile, Reason, SequenceState};

/// Tables and materialized views of users that hold rows, with their sizes.
const FILLED: &str = "SELECT c.oid::text, format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid)::text, \
     coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0)::text, pg_indexes_size(c.oid)::text \
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
   WHERE c.relkind IN ('r', 'm') AND c.oid >= 16384 AND c.relpersistence <> 't' AND pg_relation_size(c.oid) > 0";

/// Quoted names of all sequences.
const SEQUENCES: &str = "SELECT q.seqrelid::text, format('%I.%I', n.nspname, c.relname), q.seqstart::text \
   FROM pg_sequence q JOIN pg_class c ON c.oid = q.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1";

/// What makes clones unfit: something that writes without counting.
const UNFIT: &str = "SELECT (EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_surgery') \
     OR EXISTS (SELECT FROM pg_proc WHERE array_to_string(proconfig, ' ') LIKE '%track\\_counts%' OR prosrc LIKE '%track\\_counts%' AND oid >= 16384) \
     OR EXISTS (SELECT FROM pg_db_role_setting WHERE array_to_string(setconfig, ' ') LIKE '%track\\_counts%'))::text";

/// How many sequences one query reads.
const BATCH: usize = 100;

/// Reads the profile of the database that the session is connected to.
///
/// # Errors
/// A statement failed.
pub async fn read(session: &mut dyn TextSession) -> Result<Profile, Sqlx> {
    session
        .texts("SET search_path = pg_catalog; SET row_security = off")
        .await?;
    let own = session
        .texts("SELECT oid::text FROM pg_database WHERE datname = current_database()")
        .await?;
    let mut profile = Profile {
        template: own
            .first()
            .map_or(Err(Sqlx::RowNotFound), |row| number(row, 0))?,
        class: class_hash(session).await?,
        ..Profile::default()
    };
    for row in session.texts(FILLED).await? {
        let rows = count(session, text(&row, 1)?).await?;
        let [heap, toast, indexes] = [number(&row, 2)?, number(&row, 3)?, number(&row, 4)?];
        profile.filled.insert(
            number(&row, 0)?,
            Filled {
                rows,
                heap,
                toast,
                indexes,
            },
        );
    }
    let sequences = session.texts(SEQUENCES).await?;
    for batch in sequences.chunks(BATCH) {
        read_sequences(session, batch, &mut profile).await?;
    }
    let unfit = session.texts(UNFIT).await?;
    if unfit
        .first()
        .is_none_or(|row| row.first() != Some(&Some("false".to_owned())))
    {
        profile.unfit = Some(Reason::NotCounted);
    }
    Ok(profile)
}

async fn count(session: &mut dyn TextSession, name: &str) -> Result<i64, Sqlx> {
    let rows = session
        .texts(&format!("SELECT count(*)::text FROM ONLY {name}"))
        .await?;
    rows.first()
        .map_or(Err(Sqlx::RowNotFound), |row| number(row, 0))
}

/// Adds the sequences that are not at their start.
async fn read_sequences(
    session: &mut dyn TextSession,
    batch: &[TextRow],
    profile: &mut Profile,
) -> Result<(), Sqlx> {
    let mut queries = Vec::new();
    for row in batch {
        let (oid, name, start) = (text(row, 0)?, text(row, 1)?, text(row, 2)?);
        queries.push(format!("SELECT '{oid}', last_value::text, is_called::text FROM {name} WHERE is_called OR last_value <> {start}"));
    }
    for row in session.texts(&queries.join(" UNION ALL ")).await? {
        let state = SequenceState {
            last: number(&row, 1)?,
            called: text(&row, 2)? == "true",
        };
        profile.sequences.insert(number(&row, 0)?, state);
    }
    Ok(())
}
