-- What ends a statement, and what only looks like it; it's; "not" $one
/* comments /* nest; */ ' ; */
CREATE TABLE "odd; ""name""" (id int PRIMARY KEY, "from" text, t text);;
INSERT INTO "odd; ""name""" VALUES (1, ';', 'it''s; here'); INSERT INTO "odd; ""name""" VALUES (2, '\', E'\';\\'), -- ;
  (3, E'a'
  'b;', $$;'$$), (4, $tag$ $$ ; $other$ ; $tag$, U&'\0061;'), (5, 'ä;', e'\'' || 'E' || '''');

CREATE TABLE log (n int GENERATED ALWAYS AS IDENTITY, what text);
CREATE RULE two AS ON UPDATE TO "odd; ""name""" DO ALSO (
  INSERT INTO log (what) VALUES ('first;');
  INSERT INTO log (what) VALUES ('second');
);
UPDATE "odd; ""name""" SET t = t || ';' WHERE id = 1;

CREATE FUNCTION one(a$1 int) RETURNS int LANGUAGE plpgsql AS $body$
BEGIN
  -- a comment; with 'quotes
  IF a$1 > 0 THEN RETURN a$1; END IF;
  RETURN $x$0$x$;
END $body$;

CREATE OR REPLACE FUNCTION two(n int) RETURNS int
BEGIN ATOMIC
  INSERT INTO log (what) VALUES ('in; a body');
  SELECT CASE WHEN n > 0 THEN (CASE n WHEN 1 THEN 2 END) END; -- END;
END;
SELECT two(1);

COPY log (what) FROM stdin;
tab\tand\nline; \\. it's "fine"
\\.
\N
-- no comment
/* none
$$

\.

COPY "odd; ""name""" (id, "from", t) FROM stdin WITH (FORMAT csv, HEADER, QUOTE '''');
id,from,t
10,'a
b;','it''s'
11,"\.",
\.
DO $do$ BEGIN PERFORM one(1); EXECUTE 'INSERT INTO log (what) VALUES ($1)' USING 'from DO;'; END $do$;
copy log(what) from stdin; -- data come next
x
\.
CREATE TABLE begin (atomic int, "end" text);
INSERT INTO begin SELECT CASE WHEN true THEN 1 ELSE 2 END, 'x' WHERE 1 - -1 = 2 AND 6 /-2 = -3;
SET CONSTRAINTS ALL DEFERRED
;
SELECT one(5), 2 * /* ; */ 3, array_length('{1,2}'::int[], 1), (ARRAY[1,2,3])[1 :2];
INSERT INTO log (what) VALUES ('the last one has no semicolon')
