//! The application. It uses diesel, and has no code for the databases of its tests.

use diesel::prelude::*;

diesel::table! {
    tenants (id) {
        id -> BigInt,
        name -> Text,
    }
}

/// Adds a tenant and returns its id.
pub fn add_tenant(connection: &mut PgConnection, name: &str) -> QueryResult<i64> {
    diesel::insert_into(tenants::table)
        .values(tenants::name.eq(name))
        .returning(tenants::id)
        .get_result(connection)
}

/// Adds both tenants or none.
pub fn add_two_tenants(connection: &mut PgConnection, names: [&str; 2]) -> QueryResult<()> {
    connection.transaction(|connection| {
        for name in names {
            add_tenant(connection, name)?;
        }
        Ok(())
    })
}

/// The names of all tenants, sorted.
pub fn all_tenants(connection: &mut PgConnection) -> QueryResult<Vec<String>> {
    let names = tenants::table.select(tenants::name);
    names.order(tenants::name).load(connection)
}
