//! The application: it knows tokio-postgres and nothing of how its tests get their databases.

use tokio_postgres::{Client, Error, GenericClient};

/// Adds a tenant; its id.
pub async fn add_tenant(client: &impl GenericClient, name: &str) -> Result<i64, Error> {
    let sql = "INSERT INTO tenants (name) VALUES ($1) RETURNING id";
    Ok(client.query_one(sql, &[&name]).await?.get(0))
}

/// Adds both or none.
pub async fn add_two_tenants(client: &mut Client, names: [&str; 2]) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    for name in names {
        add_tenant(&transaction, name).await?;
    }
    transaction.commit().await
}

/// All tenants by name.
pub async fn tenants(client: &impl GenericClient) -> Result<Vec<String>, Error> {
    let rows = client
        .query("SELECT name FROM tenants ORDER BY name", &[])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
