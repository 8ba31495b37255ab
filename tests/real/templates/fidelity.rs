//! What `CREATE DATABASE … TEMPLATE` does not copy: database-level settings and grants reach every clone all the same.

use crate::processes::child;
use crate::support::{FakeNextest, PATIENCE, Project, Server, poll_until};

const SETTINGS: &str = "DO $$ DECLARE d text := current_database(); BEGIN \
    EXECUTE format('ALTER DATABASE %I SET work_mem = ''7MB''', d); \
    EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', d); \
    EXECUTE format('ALTER DATABASE %I SET application_name = ''it''''s \\ here''', d); \
    EXECUTE format('ALTER ROLE app IN DATABASE %I SET statement_timeout = ''77s''', d); \
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', d); \
    EXECUTE format('GRANT CREATE ON DATABASE %I TO \"some Role\" WITH GRANT OPTION', d); END $$;";

const SEEN: &str = "SELECT concat_ws('|', current_setting('work_mem'), current_setting('search_path'), \
    (SELECT string_agg(c, ';' ORDER BY c) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(setconfig) c \
     WHERE d.datname = current_database()), \
    has_database_privilege('public', current_database(), 'TEMP')::text, \
    has_database_privilege('some Role', current_database(), 'CREATE WITH GRANT OPTION')::text)";

const EXPECTED: &str = "7MB|public, pg_catalog|application_name=it's \\ here;search_path=public, pg_catalog;statement_timeout=77s;\
    work_mem=7MB|false|true";

#[test]
fn settings_and_grants_of_the_template_are_those_of_each_clone() {
    let server = Server::start();
    server.execute("CREATE ROLE \"some Role\"");
    let project = Project::on(&server);
    project.migration("0003_settings", SETTINGS);
    for round in ["built at once", "built on top of a template that has them"] {
        let nextest = FakeNextest::start(&project, round);
        for kind in ["clone", "shared"] {
            if kind == "shared" {
                // The first test that needs one makes it.
                child::run(&project, &nextest.exported, "shared").code(0);
            }
            let name = poll_until("the clone is there", PATIENCE, || {
                let names = server.databases_of(kind);
                names.first().cloned().ok_or("there is none".to_owned())
            });
            let seen = poll_until("the settings are there", PATIENCE, || {
                let seen = server.column_in(&name, SEEN).remove(0);
                match seen == EXPECTED {
                    true => Ok(seen),
                    false => Err(seen),
                }
            });
            assert_eq!(seen, EXPECTED, "{name}, {round}");
        }
        nextest.end();
        project.migration("0004_more", "CREATE TABLE more (id int);");
    }
}

#[test]
fn an_empty_search_path_is_one() {
    let server = Server::start();
    let project = Project::on(&server);
    let sql = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = ''''', current_database()); END $$;";
    project.migration("0003_settings", sql);
    let nextest = FakeNextest::start(&project, "r");
    child::run(&project, &nextest.exported, "touch").code(0);
    nextest.end();
}
