//! What a URL asks for besides the address: settings of sessions, and forms that leave parts out.

use crate::support::{Project, ROLE, Server};

const OPTIONS: &str = "options[search_path]=shop,public";
const PGOPTIONS: &str = "-c search_path=shop,public";

/// A project whose tables are in the schema that comes first in the `search_path`.
fn project(server: &Server, query: &str) -> Project {
    let mut project = Project::on(server);
    project.set("DATABASE_URL", &format!("{}{query}", server.url()));
    project.migration("0000_schema", "CREATE SCHEMA shop;");
    project
}

/// The schema of a table and the `search_path`, as a command in a run sees them.
fn seen(project: &Project) -> String {
    let sql = "SELECT schemaname || ' ' || current_setting('search_path') FROM pg_tables WHERE tablename = 'users'";
    let tool = project.tool("run --").args(["psql", "-XqAtc", sql]);
    tool.run().code(0).stdout.trim().to_owned()
}

#[test]
fn settings_in_the_url_reach_the_migrations_and_the_tests() {
    let server = Server::start();
    assert_eq!(seen(&project(&server, "")), "public \"$user\", public");
    let spaces = "?options=-c%20search_path%3Dshop,public";
    for query in [&format!("?{OPTIONS}"), spaces] {
        let found = seen(&project(&server, query));
        assert_eq!(found, "shop shop,public", "{query}");
    }
}

/// Migrations do something else with another `search_path`: their template must not be used.
#[test]
fn templates_differ_by_the_settings_of_sessions() {
    let server = Server::start();
    let plain = project(&server, "").prepared();
    let with_url = project(&server, &format!("?{OPTIONS}")).prepared();
    assert_ne!(with_url, plain);
    let mut project = project(&server, "");
    project.set("PGOPTIONS", PGOPTIONS);
    assert_eq!(project.prepared(), with_url);
    assert_eq!(seen(&project), "shop shop,public");
}

#[test]
fn the_host_may_be_a_parameter() {
    let server = Server::start();
    let mut project = Project::on(&server);
    let (folder, port) = (server.folder().display(), server.socket_port());
    for url in [
        format!("postgres://{ROLE}@/postgres?host={folder}&port={port}"),
        format!("postgres://{ROLE}@:{port}/postgres?host={folder}"),
        format!("postgres:///postgres?host={folder}&user={ROLE}&port={port}"),
    ] {
        project.set("DATABASE_URL", &url);
        project.run("prepare").code(0).says(&["adopted PostgreSQL"]);
    }
}

/// `statement-cache-capacity` is for sqlx; other drivers refuse a URL with it.
#[test]
fn the_cache_of_sqlx_is_passed_on_to_sqlx() {
    let server = Server::start();
    let project = project(&server, "?statement-cache-capacity=0");
    let tool = project.tool("run -- printenv DATABASE_URL");
    let url = tool.run().code(0).stdout.clone();
    assert!(url.trim().ends_with("?statement-cache-capacity=0"), "{url}");
}
