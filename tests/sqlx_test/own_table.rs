//! A migrator that creates schemas first and records migrations in its own table (sqlx 0.9 and newer). `migrate!` produces one if
//! `sqlx.toml` sets these options.

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{PgPool, SqlStr};

static MIGRATOR: Migrator = Migrator {
    migrations: Cow::Borrowed(
        const {
            &[Migration {
                version: 1,
                description: Cow::Borrowed("orders"),
                migration_type: MigrationType::Simple,
                sql: SqlStr::from_static("CREATE TABLE app.orders (id int PRIMARY KEY)"),
                checksum: Cow::Borrowed(b"of the text"),
                no_tx: false,
            }]
        },
    ),
    create_schemas: Cow::Borrowed(&[Cow::Borrowed("app"), Cow::Borrowed("notes")]),
    table_name: Cow::Borrowed("notes.applied"),
    ..Migrator::DEFAULT
};

#[kapsel_testdb::test(migrator = "MIGRATOR")]
async fn migrations_are_recorded_in_the_migrators_table(pool: PgPool) -> sqlx::Result<()> {
    let applied = sqlx::query_as::<_, (i64, String, Vec<u8>)>(
        "SELECT version, description, checksum FROM notes.applied WHERE success",
    );
    let applied = applied.fetch_all(&pool).await?;
    assert_eq!(applied, [(1, "orders".to_owned(), b"of the text".to_vec())]);
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename = '_sqlx_migrations'";
    let tables: i64 = sqlx::query_scalar(tables).fetch_one(&pool).await?;
    assert_eq!(tables, 0);
    Ok(())
}

/// The migrator has nothing left to run.
#[kapsel_testdb::test(migrator = "MIGRATOR")]
async fn sqlx_finds_the_record(pool: PgPool) -> Result<(), Box<dyn std::error::Error>> {
    sqlx::query("INSERT INTO app.orders VALUES (1)")
        .execute(&pool)
        .await?;
    MIGRATOR.run(&pool).await?;
    Ok(())
}
