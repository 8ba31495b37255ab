//! The application: it knows diesel and nothing of how its tests get their databases.

use diesel::prelude::*;

diesel::table! {
    tenants (id) {
        id -> BigInt,
        name -> Text,
    }
}

/// Adds a tenant; its id.
pub fn add_tenant(connection: &mut PgConnection, name: &str) -> QueryResult<i64> {
    diesel::insert_into(tenants::table)
        .values(tenants::name.eq(name))
        .returning(tenants::id)
        .get_result(connection)
}

/// Adds both or none.
pub fn add_two_tenants(connection: &mut PgConnection, names: [&str; 2]) -> QueryResult<()> {
    connection.transaction(|connection| {
        for name in names {
            add_tenant(connection, name)?;
        }
        Ok(())
    })
}

/// All tenants by name.
pub fn all_tenants(connection: &mut PgConnection) -> QueryResult<Vec<String>> {
    let names = tenants::table.select(tenants::name);
    names.order(tenants::name).load(connection)
}
