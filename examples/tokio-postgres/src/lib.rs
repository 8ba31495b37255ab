//! The application. It uses tokio-postgres, and has no code for the databases of its tests.

use tokio_postgres::{Client, Error, GenericClient};

/// Adds a tenant and returns its id.
pub async fn add_tenant(client: &impl GenericClient, name: &str) -> Result<i64, Error> {
    let sql = "INSERT INTO tenants (name) VALUES ($1) RETURNING id";
    Ok(client.query_one(sql, &[&name]).await?.get(0))
}

/// Adds both tenants or none.
pub async fn add_two_tenants(client: &mut Client, names: [&str; 2]) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    for name in names {
        add_tenant(&transaction, name).await?;
    }
    transaction.commit().await
}

/// The names of all tenants, sorted.
pub async fn tenants(client: &impl GenericClient) -> Result<Vec<String>, Error> {
    let rows = client
        .query("SELECT name FROM tenants ORDER BY name", &[])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
