use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use example_diesel::{add_tenant, add_two_tenants, all_tenants};
use kapsel_testdb::{DatabaseConfig, test_id};

fn connect(db: &DatabaseConfig) -> PgConnection {
    PgConnection::establish(&db.url()).expect("a connection")
}

// The test's own database.

#[kapsel_testdb::test]
fn the_first_tenant_has_the_first_id(db: DatabaseConfig) -> QueryResult<()> {
    let mut connection = connect(&db);
    assert_eq!(add_tenant(&mut connection, "acme")?, 1);
    assert_eq!(all_tenants(&mut connection)?, ["acme"]);
    Ok(())
}

#[kapsel_testdb::test]
fn two_tenants_or_none(db: DatabaseConfig) -> QueryResult<()> {
    let mut connection = connect(&db);
    let twice = add_two_tenants(&mut connection, ["acme", "acme"]);
    assert!(twice.is_err(), "the name is taken");
    assert!(all_tenants(&mut connection)?.is_empty());
    add_two_tenants(&mut connection, ["acme", "initech"])?;
    assert_eq!(all_tenants(&mut connection)?, ["acme", "initech"]);
    Ok(())
}

#[kapsel_testdb::test]
fn a_pool(db: DatabaseConfig) -> QueryResult<()> {
    let manager = ConnectionManager::<PgConnection>::new(db.url());
    let pool = Pool::builder().max_size(2).build(manager).expect("a pool");
    let mut one = pool.get().expect("a connection");
    add_tenant(&mut one, "acme")?;
    let mut other = pool.get().expect("another connection");
    assert_eq!(all_tenants(&mut other)?, ["acme"]);
    Ok(())
}

#[kapsel_testdb::test]
fn two_databases_are_independent(dbs: [DatabaseConfig; 2]) -> QueryResult<()> {
    let [mut one, mut other] = dbs.map(|db| connect(&db));
    add_tenant(&mut one, "acme")?;
    assert!(all_tenants(&mut other)?.is_empty());
    Ok(())
}

// The run's shared clone, with the test's own key, or in diesel's test transaction, which is never committed.

#[kapsel_testdb::test(isolation = "shared")]
fn beside_other_tests(db: DatabaseConfig) -> QueryResult<()> {
    let (mut connection, name) = (connect(&db), test_id());
    add_tenant(&mut connection, &name)?;
    assert!(all_tenants(&mut connection)?.contains(&name));
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
fn rolled_back(db: DatabaseConfig) -> QueryResult<()> {
    let mut connection = connect(&db);
    connection.begin_test_transaction()?;
    let name = test_id();
    add_two_tenants(&mut connection, [&name, &format!("{name}-2")])?;
    assert!(all_tenants(&mut connection)?.contains(&name));
    Ok(())
}
