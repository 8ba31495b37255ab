-- The schema of a database as rows: object, parent table, definition (one property per line).
-- Objects of an extension are covered by the row of the extension; temporary objects are excluded.
WITH member AS (
  SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), ns AS (
  SELECT n.* FROM pg_namespace n
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
), rel AS (
  SELECT c.*, format('%I.%I', ns.nspname, c.relname) AS name,
    CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
      WHEN 'f' THEN 'foreign table' WHEN 'c' THEN 'type' ELSE 'table' END AS kind
  FROM pg_class c JOIN ns ON ns.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND c.relpersistence <> 't'
    AND NOT EXISTS (SELECT 1 FROM member WHERE classid = 'pg_class'::regclass AND objid = c.oid)
), typ AS (
  SELECT t.*, format('%I.%I', ns.nspname, t.typname) AS name
  FROM pg_type t JOIN ns ON ns.oid = t.typnamespace
  WHERE t.typtype IN ('b', 'd', 'e', 'r') AND NOT (t.typelem <> 0 AND t.typcategory = 'A')
    AND NOT EXISTS (SELECT 1 FROM member WHERE classid = 'pg_type'::regclass AND objid = t.oid)
), proc AS (
  SELECT p.*, format('%s %I.%I(%s)',
    CASE p.prokind WHEN 'a' THEN 'aggregate' WHEN 'p' THEN 'procedure' ELSE 'function' END,
    ns.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS name
  FROM pg_proc p JOIN ns ON ns.oid = p.pronamespace
  WHERE NOT EXISTS (SELECT 1 FROM member WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
), other AS (
  SELECT 'pg_cast'::regclass::oid AS classid, oid AS objid FROM pg_cast
  UNION ALL SELECT 'pg_collation'::regclass, oid FROM pg_collation
  UNION ALL SELECT 'pg_conversion'::regclass, oid FROM pg_conversion
  UNION ALL SELECT 'pg_default_acl'::regclass, oid FROM pg_default_acl
  UNION ALL SELECT 'pg_event_trigger'::regclass, oid FROM pg_event_trigger
  UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
  UNION ALL SELECT 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
  UNION ALL SELECT 'pg_language'::regclass, oid FROM pg_language
  UNION ALL SELECT 'pg_opclass'::regclass, oid FROM pg_opclass
  UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator
  UNION ALL SELECT 'pg_publication'::regclass, oid FROM pg_publication
  UNION ALL SELECT 'pg_transform'::regclass, oid FROM pg_transform
  UNION ALL SELECT 'pg_ts_config'::regclass, oid FROM pg_ts_config
  UNION ALL SELECT 'pg_ts_dict'::regclass, oid FROM pg_ts_dict
)
SELECT object, parent, definition FROM (
  SELECT 'database' AS object, NULL AS parent,
    coalesce((SELECT string_agg('GRANT ' || a::text, E'\n' ORDER BY a::text) FROM unnest(d.datacl) a), '') AS definition
  FROM pg_database d WHERE d.datname = current_database()

  UNION ALL
  SELECT concat_ws(' ', 'setting', split_part(c, '=', 1), 'of ' || nullif(s.setrole, 0)::regrole::text), NULL,
    substr(c, strpos(c, '=') + 1)
  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c
  WHERE d.datname = current_database()

  UNION ALL
  SELECT format('schema %I', nspname), NULL, concat_ws(E'\n',
    'OWNER ' || pg_get_userbyid(nspowner),
    (SELECT string_agg('GRANT ' || a::text, E'\n' ORDER BY a::text) FROM unnest(nspacl) a),
    'COMMENT ' || obj_description(oid, 'pg_namespace'))
  FROM ns

  UNION ALL
  SELECT format('extension %I', e.extname), NULL,
    format(E'VERSION %s\nSCHEMA %I', e.extversion, n.nspname)
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace

  UNION ALL
  SELECT rel.kind || ' ' || rel.name, NULL, concat_ws(E'\n',
    CASE rel.relpersistence WHEN 'u' THEN 'UNLOGGED' END,
    CASE WHEN rel.relispartition THEN pg_get_expr(rel.relpartbound, rel.oid) END,
    (SELECT 'INHERITS ' || string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno)
     FROM pg_inherits i WHERE i.inhrelid = rel.oid),
    'PARTITION BY ' || CASE rel.relkind WHEN 'p' THEN pg_get_partkeydef(rel.oid) END,
    CASE WHEN rel.relkind IN ('v', 'm') THEN pg_get_viewdef(rel.oid) END,
    CASE WHEN NOT rel.relispopulated THEN 'WITH NO DATA' END,
    'WITH ' || rel.reloptions::text,
    CASE WHEN rel.relrowsecurity THEN 'ENABLE ROW LEVEL SECURITY' END,
    CASE WHEN rel.relforcerowsecurity THEN 'FORCE ROW LEVEL SECURITY' END,
    (SELECT format('AS %s START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s', format_type(q.seqtypid, NULL),
       q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, CASE WHEN q.seqcycle THEN ' CYCLE' END)
     FROM pg_sequence q WHERE q.seqrelid = rel.oid),
    (SELECT format('OWNED BY %s.%I', d.refobjid::regclass, a.attname)
     FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
     WHERE rel.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = rel.oid
       AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')),
    'OWNER ' || pg_get_userbyid(rel.relowner),
    (SELECT string_agg('GRANT ' || a::text, E'\n' ORDER BY a::text) FROM unnest(rel.relacl) a),
    'COMMENT ' || obj_description(rel.oid, 'pg_class'))
  FROM rel

  UNION ALL
  SELECT format('column %s.%I', rel.name, a.attname), rel.kind || ' ' || rel.name, concat_ws(E'\n',
    format_type(a.atttypid, a.atttypmod),
    (SELECT 'COLLATE ' || a.attcollation::regcollation::text FROM pg_type t
     WHERE t.oid = a.atttypid AND a.attcollation <> t.typcollation),
    CASE WHEN a.attnotnull THEN 'NOT NULL' END,
    (SELECT CASE a.attgenerated WHEN '' THEN 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)
       ELSE format('GENERATED ALWAYS AS (%s) %s', pg_get_expr(d.adbin, d.adrelid),
         CASE a.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END) END
     FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum),
    CASE a.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY' WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' END,
    (SELECT string_agg('GRANT ' || g::text, E'\n' ORDER BY g::text) FROM unnest(a.attacl) g),
    'COMMENT ' || col_description(a.attrelid, a.attnum))
  FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid
  WHERE rel.relkind IN ('r', 'p', 'f', 'c') AND a.attnum > 0 AND NOT a.attisdropped

  UNION ALL
  -- Since PostgreSQL 18, NOT NULL is also a constraint; the column's definition contains it.
  SELECT format('constraint %I on %s', c.conname, coalesce(rel.name, typ.name)),
    coalesce(rel.kind || ' ' || rel.name, 'type ' || typ.name),
    concat_ws(E'\n', pg_get_constraintdef(c.oid), 'COMMENT ' || obj_description(c.oid, 'pg_constraint'))
  FROM pg_constraint c LEFT JOIN rel ON rel.oid = c.conrelid LEFT JOIN typ ON typ.oid = c.contypid
  WHERE c.contype NOT IN ('n', 't') AND (rel.oid IS NOT NULL OR typ.oid IS NOT NULL)

  UNION ALL
  SELECT format('index %I.%I', ns.nspname, c.relname), rel.kind || ' ' || rel.name, concat_ws(E'\n',
    pg_get_indexdef(i.indexrelid),
    CASE WHEN NOT i.indisvalid THEN 'INVALID' END,
    'COMMENT ' || obj_description(c.oid, 'pg_class'))
  FROM pg_index i JOIN rel ON rel.oid = i.indrelid JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_namespace ns ON ns.oid = c.relnamespace
  WHERE NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))

  UNION ALL
  SELECT format('statistics %I.%I', ns.nspname, s.stxname), rel.kind || ' ' || rel.name, pg_get_statisticsobjdef(s.oid)
  FROM pg_statistic_ext s JOIN ns ON ns.oid = s.stxnamespace JOIN rel ON rel.oid = s.stxrelid

  UNION ALL
  SELECT format('trigger %I on %s', t.tgname, rel.name), rel.kind || ' ' || rel.name, concat_ws(E'\n',
    pg_get_triggerdef(t.oid),
    CASE t.tgenabled WHEN 'O' THEN NULL WHEN 'D' THEN 'DISABLED' ELSE 'ENABLED ' || t.tgenabled::text END)
  FROM pg_trigger t JOIN rel ON rel.oid = t.tgrelid WHERE NOT t.tgisinternal

  UNION ALL
  SELECT format('rule %I on %s', w.rulename, rel.name), rel.kind || ' ' || rel.name, pg_get_ruledef(w.oid)
  FROM pg_rewrite w JOIN rel ON rel.oid = w.ev_class WHERE w.rulename <> '_RETURN'

  UNION ALL
  SELECT format('policy %I on %s', p.polname, rel.name), rel.kind || ' ' || rel.name, concat_ws(E'\n',
    format('%s FOR %s', CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
      CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END),
    (SELECT 'TO ' || string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(r)::text END, ', ' ORDER BY r) FROM unnest(p.polroles) r),
    'USING ' || pg_get_expr(p.polqual, p.polrelid),
    'WITH CHECK ' || pg_get_expr(p.polwithcheck, p.polrelid))
  FROM pg_policy p JOIN rel ON rel.oid = p.polrelid

  UNION ALL
  SELECT proc.name, NULL, concat_ws(E'\n',
    CASE proc.prokind WHEN 'a' THEN
      (SELECT format('SFUNC %s STYPE %s FINALFUNC %s INITCOND %L', a.aggtransfn, format_type(a.aggtranstype, NULL),
         a.aggfinalfn, a.agginitval) FROM pg_aggregate a WHERE a.aggfnoid = proc.oid)
    ELSE pg_get_functiondef(proc.oid) END,
    'OWNER ' || pg_get_userbyid(proc.proowner),
    (SELECT string_agg('GRANT ' || a::text, E'\n' ORDER BY a::text) FROM unnest(proc.proacl) a),
    'COMMENT ' || obj_description(proc.oid, 'pg_proc'))
  FROM proc

  UNION ALL
  SELECT 'type ' || typ.name, NULL, concat_ws(E'\n',
    CASE typ.typtype
      WHEN 'e' THEN (SELECT 'ENUM' || string_agg(E'\n' || quote_literal(e.enumlabel), '' ORDER BY e.enumsortorder)
                     FROM pg_enum e WHERE e.enumtypid = typ.oid)
      WHEN 'd' THEN concat_ws(E'\n', 'DOMAIN ' || format_type(typ.typbasetype, typ.typtypmod),
                     CASE WHEN typ.typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || typ.typdefault)
      WHEN 'r' THEN (SELECT 'RANGE OF ' || format_type(r.rngsubtype, NULL) FROM pg_range r WHERE r.rngtypid = typ.oid)
      ELSE 'BASE TYPE' END,
    'OWNER ' || pg_get_userbyid(typ.typowner),
    (SELECT string_agg('GRANT ' || a::text, E'\n' ORDER BY a::text) FROM unnest(typ.typacl) a),
    'COMMENT ' || obj_description(typ.oid, 'pg_type'))
  FROM typ

  UNION ALL
  SELECT i.type || ' ' || i.identity, NULL, ''
  FROM other, LATERAL pg_identify_object(other.classid, other.objid, 0) i
  -- Object ids below 16384 are from initdb.
  WHERE other.objid::int8 >= 16384
    AND NOT EXISTS (SELECT 1 FROM member m WHERE m.classid = other.classid AND m.objid = other.objid)
) line
WHERE object IS NOT NULL
