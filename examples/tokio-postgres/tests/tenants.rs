use example_tokio_postgres::{add_tenant, add_two_tenants, tenants};
use kapsel_testdb::{DatabaseConfig, TestDb, test_id};
use tokio_postgres::{Client, Config, Error, NoTls};

/// A client. A task does its communication, and ends with it.
async fn connect(db: &DatabaseConfig) -> Result<Client, Error> {
    let config: Config = db.dsn().parse()?;
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

// The test's own database.

#[kapsel_testdb::test]
async fn the_first_tenant_has_the_first_id(db: DatabaseConfig) -> Result<(), Error> {
    let client = connect(&db).await?;
    assert_eq!(add_tenant(&client, "acme").await?, 1);
    assert_eq!(tenants(&client).await?, ["acme"]);
    Ok(())
}

#[kapsel_testdb::test]
async fn two_tenants_or_none(db: DatabaseConfig) -> Result<(), Error> {
    let mut client = connect(&db).await?;
    let twice = add_two_tenants(&mut client, ["acme", "acme"]).await;
    assert!(twice.is_err(), "the name is taken");
    assert!(tenants(&client).await?.is_empty());
    add_two_tenants(&mut client, ["acme", "initech"]).await?;
    assert_eq!(tenants(&client).await?, ["acme", "initech"]);
    Ok(())
}

#[kapsel_testdb::test]
async fn two_databases_are_independent(dbs: [DatabaseConfig; 2]) -> Result<(), Error> {
    let (one, other) = (connect(&dbs[0]).await?, connect(&dbs[1]).await?);
    add_tenant(&one, "acme").await?;
    assert!(tenants(&other).await?.is_empty());
    Ok(())
}

// The run's shared clone, with the test's own key, or in a transaction that is never committed.

#[kapsel_testdb::test(isolation = "shared")]
async fn beside_other_tests(db: DatabaseConfig) -> Result<(), Error> {
    let (client, name) = (connect(&db).await?, test_id());
    add_tenant(&client, &name).await?;
    assert!(tenants(&client).await?.contains(&name));
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn rolled_back(db: DatabaseConfig) -> Result<(), Error> {
    let (mut client, name) = (connect(&db).await?, test_id());
    let transaction = client.transaction().await?;
    add_tenant(&transaction, &name).await?;
    transaction.rollback().await?;
    assert!(!tenants(&client).await?.contains(&name));
    Ok(())
}

// Without the attribute.

#[tokio::test]
async fn the_parts_of_a_configuration() -> Result<(), Box<dyn std::error::Error>> {
    let lease = TestDb::lease().await?;
    let db = lease.config();
    let mut config = Config::new();
    match (db.host(), db.socket_folder()) {
        (Some(host), _) => config.host(host),
        (None, Some(directory)) => config.host_path(directory),
        (None, None) => unreachable!("a configuration has a host or a socket"),
    };
    config.port(db.port()).user(db.user()).dbname(db.database());
    db.password().map(|password| config.password(password));
    let (client, connection) = config.connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    add_tenant(&client, "acme").await?;
    drop(client);
    connection.await??;
    lease.release().await;
    Ok(())
}
