CREATE TYPE tenant_plan AS ENUM ('free', 'team', 'enterprise');

CREATE TABLE tenants (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug         slug        NOT NULL,
    name         text        NOT NULL CHECK (btrim(name) <> ''),
    plan         tenant_plan NOT NULL DEFAULT 'free',
    suspended_at timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tenants_slug_key UNIQUE (slug)
);

CREATE TRIGGER tenants_touch
    BEFORE UPDATE ON tenants
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

-- NULL means that the plan has no limit.
CREATE FUNCTION plan_endpoint_limit(plan tenant_plan) RETURNS integer
    LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE plan WHEN 'free' THEN 2 WHEN 'team' THEN 25 END
$$;
