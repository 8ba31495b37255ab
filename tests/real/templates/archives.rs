//! Archives of templates: another server gets from them what it would have built, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use crate::processes::child;
use crate::support::{
    BINARY, ClientPrograms, FakeNextest, Outcome, PATIENCE, Project, SUPERUSER, Server, poll_until,
    short_temp_dir,
};
use crate::templates::fidelity::EVERY_KIND;

/// Exports the current template into a directory beside the project; names the archives.
fn export(project: &Project) -> Vec<PathBuf> {
    let directory = project.beside("archives");
    let tool = project.tool("template export --output").args([&directory]);
    let outcome = tool.run();
    outcome.code(0);
    outcome.stdout.lines().map(PathBuf::from).collect()
}

fn import(project: &Project, from: &Path) -> Outcome {
    project.tool("template import").args([from]).run()
}

#[track_caller]
fn nothing_is_left(server: &Server) {
    for kind in ["building", "clone"] {
        assert_eq!(server.databases_of(kind), [""; 0]);
    }
}

/// The same project on another machine.
fn copy(project: &Project, server: &Server) -> Project {
    let other = Project::named("app", server);
    for entry in fs::read_dir(project.root().join("migrations")).expect("migrations") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        other.migration(&name, &fs::read_to_string(&path).expect("its text"));
    }
    other
}

/// What pg_dump writes about the first clone that the next run gets.
fn dump_of_clone(project: &Project, server: &Server) -> String {
    let nextest = FakeNextest::start(project, "dump");
    let dump = poll_until("a clone that is complete", PATIENCE, || {
        let ready = fs::read_dir(nextest.dir.join("ready")).map_err(|error| error.to_string())?;
        let name = ready.flatten().next().ok_or("there is none")?.file_name();
        let name = name.to_string_lossy().into_owned();
        let arguments = ["--create", "--exclude-table-data=*._sqlx_migrations"];
        Ok(ClientPrograms::of(server)
            .dump(&name, &arguments)
            .replace(&name, "clone"))
    });
    nextest.end();
    dump
}

#[test]
fn an_imported_template_has_everything_that_was_exported() {
    let servers = [Server::start(), Server::start()];
    let version = "SELECT 'old' WHERE current_setting('server_version_num')::int < 150000";
    let extension = "SELECT name::text FROM pg_available_extensions WHERE name = 'pgcrypto'";
    if !servers[0].column_in("postgres", version).is_empty()
        || servers[0].column_in("postgres", extension).is_empty()
    {
        return;
    }
    let mut projects = Vec::new();
    for server in &servers {
        server.execute("CREATE ROLE reader");
        let mut project = Project::new("app");
        project.set("DATABASE_URL", &server.url_of(SUPERUSER));
        // pg_dump itself cannot restore a language whose functions belong to another one.
        let kinds = EVERY_KIND
            .lines()
            .filter(|line| !line.contains("LANGUAGE other"));
        project.migration("0001_kinds", &kinds.collect::<Vec<_>>().join("\n"));
        let path = "CREATE SCHEMA later; SET search_path = later, public;";
        project.migration("0002_path", path);
        projects.push(project);
    }
    let (one, two) = (&projects[0], &projects[1]);
    one.prepared();
    let [archive] = export(one).try_into().expect("one archive");
    import(two, &archive).code(0).says(&[" imported"]);
    let outcome = two.run("prepare");
    outcome.code(0).says(&[" current,"]);
    let (built, imported) = (
        dump_of_clone(one, &servers[0]),
        dump_of_clone(two, &servers[1]),
    );
    for (line, (expected, found)) in built.lines().zip(imported.lines()).enumerate() {
        assert_eq!(found, expected, "line {line}");
    }
    assert_eq!(built.lines().count(), imported.lines().count());
    // What the migrations left in their session is known, so the next one goes on top.
    for project in [one, two] {
        project.migration("0003_more", "CREATE TABLE more (id int);");
        project
            .run("prepare")
            .code(0)
            .says(&["1 file on top of 2 unchanged migrations"]);
    }
    let places =
        "SELECT table_schema::text FROM information_schema.tables WHERE table_name = 'more'";
    for (project, server) in projects.iter().zip(&servers) {
        let nextest = FakeNextest::start(project, "places");
        child::run(project, &nextest.exported, "touch").code(0);
        let clone = server.databases_of("clone").remove(0);
        assert_eq!(server.column_in(&clone, places), ["later"]);
        nextest.end();
    }
}

#[test]
fn equal_templates_have_equal_archives_and_an_import_is_done_once() {
    let server = Server::start();
    let project = Project::on(&server);
    let template = project.prepared();
    let [first] = export(&project).try_into().expect("one archive");
    assert_eq!(export(&project), std::slice::from_ref(&first));
    import(&project, &first)
        .code(0)
        .says(&[format!("{template} exists already")]);
    project.run("template drop --all").code(0);
    import(&project, &first)
        .code(0)
        .says(&[format!("{template} imported")]);
    assert_eq!(export(&project), [first]);
    nothing_is_left(&server);
    assert!(project.run_dirs().is_empty());
}

#[test]
fn the_archive_with_most_migrations_of_the_project_is_chosen() {
    let servers = [Server::start(), Server::start()];
    let project = Project::on(&servers[0]);
    project.prepared();
    let [two] = export(&project).try_into().expect("one archive");
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    project.prepared();
    export(&project);
    project.migration("0003_tags", "CREATE TABLE edited (id int);");
    project.migration("0004_more", "CREATE TABLE more (id int);");
    let other = copy(&project, &servers[1]);
    // The archive with three has another third migration.
    let directory = two.parent().expect("a directory");
    import(&other, directory)
        .code(0)
        .says(&["imported; the next run builds the rest on top of it: 2 steps"]);
    other
        .run("prepare")
        .code(0)
        .says(&["2 files on top of 2 unchanged migrations"]);
    let empty = other.beside("empty");
    fs::create_dir(&empty).expect("a directory");
    import(&other, &empty)
        .code(0)
        .says(&["contains no archive of this project's template"]);
}

#[test]
fn a_template_with_seeds_is_exported_with_and_without_them() {
    let servers = [Server::start(), Server::start()];
    let seeds = |project: &Project| {
        project.config("[template]\nseeds = [\"seeds.sql\"]\n");
        project.write("seeds.sql", "INSERT INTO users VALUES (1), (2);");
    };
    let project = Project::on(&servers[0]);
    seeds(&project);
    let template = project.prepared();
    let archives = export(&project);
    assert_eq!(archives.len(), 2);
    let other = copy(&project, &servers[1]);
    seeds(&other);
    let directory = archives[0].parent().expect("a directory");
    import(&other, directory)
        .code(0)
        .says(&[format!("{template} imported\n")]);
    let nextest = FakeNextest::start(&other, "rows");
    child::run(&other, &nextest.exported, "touch").code(0);
    let clone = servers[1].databases_of("clone").remove(0);
    assert_eq!(
        servers[1].column_in(&clone, "SELECT count(*)::text FROM users"),
        ["2"]
    );
    nextest.end();
    // The next migration is built upon the template without seeds.
    import(&other, &archives[1]).code(0).says(&[" imported; "]);
    other.migration("0003_more", "CREATE TABLE more (id int);");
    other
        .run("prepare")
        .code(0)
        .says(&["2 files on top of 2 unchanged migrations"]);
}

#[test]
fn damaged_and_foreign_archives_are_refused_and_leave_nothing() {
    let server = Server::start();
    let project = Project::on(&server);
    project.prepared();
    let [archive] = export(&project).try_into().expect("one archive");
    project.run("template drop --all").code(0);
    let damaged = project.beside("damaged");
    let mut bytes = fs::read(&archive).expect("its bytes");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&damaged, &bytes).expect("written");
    import(&project, &damaged)
        .code(5)
        .says(&["the archive `", "damaged` is damaged", "delete it"]);
    fs::write(&damaged, "SELECT 1").expect("written");
    import(&project, &damaged)
        .code(5)
        .says(&["is not an archive"]);
    import(&project, &project.beside("nowhere"))
        .code(5)
        .says(&["failed to open", "nowhere"]);
    project.migration("0001_users", "CREATE TABLE users (id int, name text);");
    import(&project, &archive)
        .code(5)
        .says(&["is of another template; nothing was imported\n  migration 1 users was edited\n"]);
    assert!(server.databases_of("template").is_empty());
    nothing_is_left(&server);
    assert!(project.run_dirs().is_empty());
}

#[test]
fn a_dump_that_fails_leaves_nothing_and_names_its_line() {
    let servers = [Server::start(), Server::start()];
    servers[0].execute("CREATE ROLE reader");
    let project = Project::on(&servers[0]);
    project.migration("0003_grant", "GRANT SELECT ON users TO reader;");
    project.prepared();
    let [archive] = export(&project).try_into().expect("one archive");
    let other = copy(&project, &servers[1]);
    let outcome = import(&other, &archive);
    outcome.code(5).says(&[
        "role \"reader\" does not exist",
        archive.to_str().expect("UTF-8"),
    ]);
    assert!(servers[1].databases_of("template").is_empty());
    nothing_is_left(&servers[1]);
    assert!(other.run_dirs().is_empty());
}

#[test]
fn what_cannot_be_exported_is_named_with_the_remedy() {
    let server = Server::start();
    let project = Project::on(&server);
    let outcome = project.run("template export");
    outcome
        .code(5)
        .says(&["does not exist", "`kapsel-testdb template build`"]);
    server.execute("CREATE DATABASE base OWNER app");
    project.config("[template]\nbase = \"base\"\n");
    let outcome = project.run("template export");
    outcome
        .code(5)
        .says(&["made from `base`", "`template.base`"]);
}

/// The commands of the recipes in docs/CI.md, one list per service.
fn recipes() -> Vec<Vec<String>> {
    let text = include_str!("../../../docs/CI.md");
    let section = text
        .split("## Templates from a cache")
        .nth(1)
        .expect("a section");
    let section = section.split("\n## ").next().expect("its end");
    let blocks = section.split("```yaml").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().expect("its end"));
    let commands = |block: &str| {
        let lines = block.lines().filter_map(|line| {
            let line = line.trim().strip_prefix("- ")?;
            let command = line.strip_prefix("run: ").unwrap_or(line);
            (!command.starts_with("uses: ")).then(|| command.to_owned())
        });
        lines.collect()
    };
    blocks.map(commands).collect()
}

#[test]
fn the_documented_recipes_restore_the_template_in_the_next_job() {
    let recipes = recipes();
    assert_eq!(recipes.len(), 2);
    for commands in recipes {
        assert_eq!(commands.len(), 3, "{commands:?}");
        let cache = short_temp_dir();
        for job in ["first", "second"] {
            let server = Server::start();
            let project = Project::on(&server);
            let restored = project.root().join(".kapsel-templates");
            copy_files(cache.path(), &restored);
            for command in &commands {
                let command = command.replace("cargo nextest run", "kapsel-testdb prepare");
                let path = std::env::var("PATH").unwrap_or_default();
                let programs = Path::new(BINARY).parent().expect("a directory");
                let shell = project.program("sh").args(["-ec", &command]);
                let outcome = shell
                    .env("PATH", format!("{}:{path}", programs.display()))
                    .run();
                outcome.code(0);
                if command.ends_with("prepare") && job == "second" {
                    outcome.says(&[" current,"]).never_says("building");
                }
            }
            copy_files(&restored, cache.path());
        }
    }
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("files").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}
