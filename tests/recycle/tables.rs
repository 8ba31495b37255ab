//! The tables of `schema.sql`, and how to insert rows into them.

/// A table of the template.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    /// Columns and values; `g` counts.
    insert: &'static str,
    /// Whether it holds rows in the template.
    pub filled: bool,
    /// Whether `ON CONFLICT` is allowed.
    pub upsert: bool,
}

impl Table {
    /// Inserts rows numbered from `first`.
    pub fn insert(&self, first: u32, count: u32) -> String {
        let (columns, values) = self.insert.split_once('|').expect("columns | values");
        let last = first + count - 1;
        let name = self.name;
        format!(
            "INSERT INTO {name} ({columns}) SELECT {values} FROM generate_series({first}, {last}) g"
        )
    }
}

const fn empty(name: &'static str, insert: &'static str) -> Table {
    Table {
        name,
        insert,
        filled: false,
        upsert: true,
    }
}

const fn filled(name: &'static str, insert: &'static str) -> Table {
    Table {
        name,
        insert,
        filled: true,
        upsert: true,
    }
}

const ID_V: &str = "id, v|g, 'v' || g";

/// All tables into which programs insert. Partitions come with their parents.
pub const TABLES: &[Table] = &[
    empty("app.plain", "v, n|'v' || g, g % 60"),
    empty("app.child", "v, ref|'v' || g, 1 + g % 5"),
    empty("app.ring_a", ID_V),
    empty("app.ring_b", ID_V),
    empty("app.parted", "v|'v' || g"),
    empty("app.parent", ID_V),
    empty("app.heir", ID_V),
    empty("app.generated", ID_V),
    empty("app.forced", ID_V),
    empty(
        "app.excluded",
        "id, v, r|g, 'v' || g, int4range(g * 10, g * 10 + 5)",
    ),
    empty("app.quick", "v|'v' || g"),
    empty(
        "app.toasted",
        "id, v, big|g, 'v' || g, repeat(md5(g::text), 40 + g % 100)",
    ),
    empty(
        "app.tagged",
        "id, v, tags|g, 'v' || g, ARRAY['x' || g % 7, 'y' || g]",
    ),
    empty("app.bare", ID_V),
    empty("app.audit", "v|'v' || g"),
    empty("app.traced", ID_V),
    Table {
        name: "app.ruled",
        insert: ID_V,
        filled: false,
        upsert: false,
    },
    filled("app.ref_small", "v|'v' || g"),
    filled(
        "app.ref_big",
        "v, n, pad|'v' || g, g % 97, repeat('z', g % 150)",
    ),
    filled("app.ref_heap", "id, v|g, repeat('k', g % 300)"),
    filled(
        "app.ref_toast",
        "id, v, big|g + 1000, 'v' || g, repeat(md5(g::text), 90)",
    ),
    filled(
        "app.ref_gin",
        "id, v, tags|g + 1000, 'v' || g, ARRAY['a' || g % 5, 'z' || g]",
    ),
    filled("app.ref_hash", ID_V),
    filled("app.ref_brin", "id, v, pad|g, 'v' || g, repeat('w', 200)"),
    filled("app.ref_part", "id, v|g + 980, 'v' || g"),
];

/// All sequences, with those of columns.
pub const SEQUENCES: &[&str] = &[
    "app.free_seq",
    "app.used_seq",
    "app.false_seq",
    "app.down_seq",
    "app.plain_id_seq",
    "app.child_id_seq",
    "app.parted_id_seq",
    "app.quick_id_seq",
    "app.audit_id_seq",
    "app.ref_small_id_seq",
    "app.ref_big_id_seq",
];
