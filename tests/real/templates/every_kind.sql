-- An object of every kind that pg_dump of PostgreSQL 15 knows, with a comment and a grant where there can be one.
CREATE SCHEMA kinds;
COMMENT ON SCHEMA kinds IS 'it''s a schema';
GRANT USAGE ON SCHEMA kinds TO reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA kinds GRANT SELECT ON TABLES TO reader;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

CREATE EXTENSION pgcrypto WITH SCHEMA kinds;

CREATE COLLATION kinds.plain (LOCALE = 'C');
COMMENT ON COLLATION kinds.plain IS 'a collation';
CREATE CONVERSION kinds.conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
COMMENT ON CONVERSION kinds.conversion IS 'a conversion';

CREATE TYPE kinds.color AS ENUM ('red', 'green');
ALTER TYPE kinds.color ADD VALUE 'amber' BEFORE 'green';
CREATE TYPE kinds.pair AS (a int, b text COLLATE kinds.plain);
COMMENT ON COLUMN kinds.pair.a IS 'of a type';
CREATE DOMAIN kinds.positive AS int DEFAULT 1 CONSTRAINT is_positive CHECK (VALUE > 0);
COMMENT ON CONSTRAINT is_positive ON DOMAIN kinds.positive IS 'of a domain';
CREATE TYPE kinds.numbers AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = float8mi, MULTIRANGE_TYPE_NAME = kinds.many_numbers);
CREATE TYPE kinds.shell;
CREATE TYPE kinds.int42;
CREATE FUNCTION kinds.int42_in(cstring) RETURNS kinds.int42 LANGUAGE internal STRICT IMMUTABLE AS 'int4in';
CREATE FUNCTION kinds.int42_out(kinds.int42) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'int4out';
CREATE TYPE kinds.int42 (INTERNALLENGTH = 4, INPUT = kinds.int42_in, OUTPUT = kinds.int42_out, ALIGNMENT = int4, DEFAULT = 42, PASSEDBYVALUE);
COMMENT ON TYPE kinds.int42 IS 'a type';
GRANT USAGE ON TYPE kinds.color TO reader;
REVOKE USAGE ON TYPE kinds.positive FROM PUBLIC;

CREATE FUNCTION kinds.twice(n int, OUT m int) LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 5 SET work_mem = '7MB' AS 'SELECT n * 2';
COMMENT ON FUNCTION kinds.twice IS 'a function';
GRANT EXECUTE ON FUNCTION kinds.twice TO reader WITH GRANT OPTION;
CREATE FUNCTION kinds.parsed(n int) RETURNS SETOF int LANGUAGE sql BEGIN ATOMIC SELECT n; SELECT n + 1; END;
CREATE FUNCTION kinds.rank() RETURNS bigint LANGUAGE internal WINDOW AS 'window_rank';
CREATE PROCEDURE kinds.nothing(INOUT n int) LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN n := n; END $$;
CREATE AGGREGATE kinds.total(int) (SFUNC = int4_sum, STYPE = bigint);
COMMENT ON AGGREGATE kinds.total(int) IS 'an aggregate';
CREATE OPERATOR kinds.|+| (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl, COMMUTATOR = OPERATOR(kinds.|+|));
COMMENT ON OPERATOR kinds.|+| (int, int) IS 'an operator';
CREATE OPERATOR FAMILY kinds.family USING btree;
ALTER OPERATOR FAMILY kinds.family USING btree ADD OPERATOR 1 <(bigint, int4), OPERATOR 2 <=(bigint, int4), OPERATOR 3 =(bigint, int4),
  OPERATOR 4 >=(bigint, int4), OPERATOR 5 >(bigint, int4), FUNCTION 1 (int4, int4) btint4cmp(int4, int4);
CREATE OPERATOR CLASS kinds.class FOR TYPE bigint USING btree FAMILY kinds.family AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=,
  OPERATOR 5 >, FUNCTION 1 btint8cmp(bigint, bigint);
COMMENT ON OPERATOR CLASS kinds.class USING btree IS 'an operator class';
CREATE CAST (timestamptz AS interval) WITH FUNCTION age(timestamptz) AS ASSIGNMENT;
COMMENT ON CAST (timestamptz AS interval) IS 'a cast';
CREATE TRUSTED LANGUAGE other HANDLER plpgsql_call_handler INLINE plpgsql_inline_handler VALIDATOR plpgsql_validator;
COMMENT ON LANGUAGE other IS 'a language';
GRANT USAGE ON LANGUAGE other TO reader;
CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal));
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
COMMENT ON ACCESS METHOD heap2 IS 'an access method';

CREATE TEXT SEARCH PARSER kinds.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH TEMPLATE kinds.template (LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH DICTIONARY kinds.dictionary (TEMPLATE = simple);
CREATE TEXT SEARCH CONFIGURATION kinds.configuration (COPY = english);
ALTER TEXT SEARCH CONFIGURATION kinds.configuration ALTER MAPPING FOR asciiword WITH kinds.dictionary;
COMMENT ON TEXT SEARCH CONFIGURATION kinds.configuration IS 'a configuration';

CREATE SEQUENCE kinds.ids AS int INCREMENT 3 MAXVALUE 1000 START 7 CACHE 2 CYCLE;
SELECT setval('kinds.ids', 22, true);
GRANT USAGE ON SEQUENCE kinds.ids TO reader;
CREATE TABLE kinds.parents (
  id int GENERATED ALWAYS AS IDENTITY (START 5) PRIMARY KEY,
  code text NOT NULL DEFAULT 'c' || nextval('kinds.ids') COLLATE kinds.plain UNIQUE DEFERRABLE INITIALLY DEFERRED,
  twice int GENERATED ALWAYS AS (len * 2) STORED,
  len int CHECK (len > 0) NO INHERIT,
  color kinds.color, pair kinds.pair, positive kinds.positive, numbers kinds.numbers, word tsvector,
  EXCLUDE USING gist (int4range(len, len + 1) WITH &&)
) WITH (fillfactor = 70);
ALTER TABLE kinds.parents ALTER word SET STORAGE EXTERNAL, ALTER code SET STATISTICS 7, ALTER len SET (n_distinct = 3), ALTER code SET COMPRESSION pglz;
ALTER TABLE kinds.parents ADD CONSTRAINT later CHECK (len < 1000) NOT VALID;
ALTER TABLE kinds.parents CLUSTER ON parents_pkey, REPLICA IDENTITY FULL;
COMMENT ON TABLE kinds.parents IS 'a table';
COMMENT ON COLUMN kinds.parents.code IS 'a column';
COMMENT ON CONSTRAINT later ON kinds.parents IS 'a constraint';
GRANT SELECT (code), UPDATE (len) ON kinds.parents TO reader;
INSERT INTO kinds.parents (len, color, pair, numbers) SELECT n, 'red', ROW(n, E'tab\t' || n)::kinds.pair, numrange(n, n + 1)::text::kinds.numbers FROM generate_series(1, 9) n;
INSERT INTO kinds.parents (code, len) VALUES (repeat('long ', 2000), 99);
CREATE TABLE kinds.children (more int, FOREIGN KEY (more) REFERENCES kinds.parents ON DELETE SET NULL (more) DEFERRABLE) INHERITS (kinds.parents);
CREATE TABLE kinds.typed OF kinds.pair (a PRIMARY KEY);
CREATE TABLE kinds.in_heap2 (a int) USING heap2;
CREATE UNLOGGED TABLE kinds.unlogged (a int GENERATED BY DEFAULT AS IDENTITY);
INSERT INTO kinds.unlogged DEFAULT VALUES;
CREATE TABLE kinds.parts (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE kinds.part_1 PARTITION OF kinds.parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY HASH (id);
CREATE TABLE kinds.part_1_1 PARTITION OF kinds.part_1 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE kinds.part_2 PARTITION OF kinds.parts DEFAULT;
CREATE INDEX on_parts ON kinds.parts (at);
INSERT INTO kinds.parts VALUES (1, '2024-02-03'), (2, '1999-01-01');
CREATE UNIQUE INDEX expression ON kinds.parents (lower(code)) INCLUDE (len) WHERE len > 3;
CREATE INDEX of_a_class ON kinds.parents USING btree ((len::bigint) kinds.class DESC NULLS LAST) WITH (fillfactor = 60);
CREATE INDEX of_words ON kinds.parents USING gin (word);
CREATE INDEX of_blocks ON kinds.parents USING brin (len);
CREATE INDEX of_hashes ON kinds.parents USING hash (len);
CREATE INDEX of_texts ON kinds.parents USING spgist (code);
COMMENT ON INDEX kinds.expression IS 'an index';
CREATE STATISTICS kinds.statistics (dependencies, mcv) ON len, lower(code) FROM kinds.parents;
COMMENT ON STATISTICS kinds.statistics IS 'statistics';
CREATE VIEW kinds.view WITH (security_barrier) AS SELECT id, code FROM kinds.parents WHERE len > 0 WITH LOCAL CHECK OPTION;
COMMENT ON VIEW kinds.view IS 'a view';
CREATE VIEW kinds.invoker WITH (security_invoker) AS SELECT * FROM kinds.view;
CREATE RECURSIVE VIEW kinds.counting (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 5;
CREATE MATERIALIZED VIEW kinds.filled AS SELECT len, count(*) FROM kinds.parents GROUP BY len;
CREATE UNIQUE INDEX ON kinds.filled (len);
CREATE MATERIALIZED VIEW kinds.empty AS SELECT 1 AS n WITH NO DATA;
CREATE RULE rule AS ON INSERT TO kinds.invoker DO ALSO NOTHING;
COMMENT ON RULE rule ON kinds.invoker IS 'a rule';
CREATE FUNCTION kinds.on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER on_row BEFORE INSERT OR UPDATE OF code ON kinds.parents FOR EACH ROW WHEN (NEW.len > 5) EXECUTE FUNCTION kinds.on_row('x');
CREATE CONSTRAINT TRIGGER late AFTER DELETE ON kinds.parents DEFERRABLE FOR EACH ROW EXECUTE FUNCTION kinds.on_row();
CREATE TRIGGER transition AFTER INSERT ON kinds.typed REFERENCING NEW TABLE AS new FOR EACH STATEMENT EXECUTE FUNCTION kinds.on_row();
ALTER TABLE kinds.parents DISABLE TRIGGER late, ENABLE ALWAYS TRIGGER on_row;
COMMENT ON TRIGGER on_row ON kinds.parents IS 'a trigger';
ALTER TABLE kinds.typed ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY policy ON kinds.typed AS RESTRICTIVE FOR SELECT TO reader USING (a > 0);
COMMENT ON POLICY policy ON kinds.typed IS 'a policy';
CREATE FUNCTION kinds.on_event() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER on_event ON ddl_command_start WHEN TAG IN ('CREATE SERVER') EXECUTE FUNCTION kinds.on_event();
COMMENT ON EVENT TRIGGER on_event IS 'an event trigger';

CREATE FOREIGN DATA WRAPPER wrapper OPTIONS (debug 'true');
COMMENT ON FOREIGN DATA WRAPPER wrapper IS 'a wrapper';
GRANT USAGE ON FOREIGN DATA WRAPPER wrapper TO reader;
CREATE SERVER server TYPE 'x' VERSION '1' FOREIGN DATA WRAPPER wrapper OPTIONS (host 'nowhere');
GRANT USAGE ON FOREIGN SERVER server TO reader;
CREATE USER MAPPING FOR reader SERVER server OPTIONS ("user" 'x');
CREATE FOREIGN TABLE kinds.foreign (a int OPTIONS (column_name 'b') NOT NULL) SERVER server OPTIONS (table_name 't');
CREATE PUBLICATION of_everything FOR ALL TABLES WITH (publish = 'insert');
CREATE PUBLICATION of_a_table FOR TABLE kinds.parts (id, at), ONLY kinds.part_2 WHERE (id > 1) WITH (publish_via_partition_root);
CREATE PUBLICATION of_a_schema FOR TABLES IN SCHEMA kinds;
COMMENT ON PUBLICATION of_a_table IS 'a publication';
SELECT lo_from_bytea(424242, '\x00ff');
COMMENT ON LARGE OBJECT 424242 IS 'a large object';
GRANT SELECT ON LARGE OBJECT 424242 TO reader;

DO $$ DECLARE d text := current_database(); BEGIN
  EXECUTE format('ALTER DATABASE %I SET search_path = kinds, public', d);
  EXECUTE format('ALTER DATABASE %I SET app.tenant = ''it''''s''', d);
  EXECUTE format('ALTER ROLE reader IN DATABASE %I SET work_mem = ''7MB''', d);
  EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', d);
  EXECUTE format('GRANT TEMPORARY, CONNECT ON DATABASE %I TO reader WITH GRANT OPTION', d);
  EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 17', d);
END $$;
