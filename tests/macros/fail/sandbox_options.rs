use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

#[kapsel_testdb::test(isolation = "transaction")]
async fn test(pool: PgPoolOptions, connect: PgConnectOptions) {}

fn main() {}
