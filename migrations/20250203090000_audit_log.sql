CREATE TYPE audit_action AS ENUM ('insert', 'update', 'delete');

-- No foreign keys: the trail outlives what it tells about.
CREATE TABLE audit_log (
    id          bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recorded_at timestamptz  NOT NULL DEFAULT clock_timestamp(),
    actor       text         NOT NULL DEFAULT coalesce(nullif(current_setting('webhooks.actor', true), ''), 'system'),
    tenant_id   bigint       NOT NULL,
    table_name  text         NOT NULL,
    row_id      bigint       NOT NULL,
    action      audit_action NOT NULL,
    before      jsonb,
    after       jsonb,
    CONSTRAINT audit_log_images CHECK (
        (action = 'insert') = (before IS NULL) AND (action = 'delete') = (after IS NULL))
);

CREATE INDEX audit_log_row_idx ON audit_log (tenant_id, table_name, row_id);

-- The trigger's argument names the columns to keep out of the trail.
CREATE FUNCTION record_audit() RETURNS trigger
    LANGUAGE plpgsql AS $$
DECLARE
    old_row jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - TG_ARGV END;
    new_row jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) - TG_ARGV END;
    subject jsonb := coalesce(new_row, old_row);
BEGIN
    INSERT INTO audit_log (tenant_id, table_name, row_id, action, before, after)
    VALUES (
        coalesce(subject ->> 'tenant_id', subject ->> 'id')::bigint,
        TG_TABLE_NAME,
        (subject ->> 'id')::bigint,
        lower(TG_OP)::audit_action,
        old_row,
        new_row);
    RETURN NULL;
END
$$;

CREATE TRIGGER tenants_audit
    AFTER INSERT OR UPDATE OR DELETE ON tenants
    FOR EACH ROW EXECUTE FUNCTION record_audit('updated_at');

CREATE TRIGGER endpoints_audit
    AFTER INSERT OR UPDATE OF url, status, rate_limit_per_second, failure_threshold OR DELETE ON endpoints
    FOR EACH ROW EXECUTE FUNCTION record_audit('updated_at', 'consecutive_failures');

CREATE TRIGGER api_keys_audit
    AFTER INSERT OR UPDATE OF name, scopes, expires_at, revoked_at OR DELETE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION record_audit('key_hash', 'last_used_at');

CREATE FUNCTION reject_audit_change() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only' USING ERRCODE = 'WH003';
END
$$;

CREATE TRIGGER audit_log_append_only
    BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION reject_audit_change();
