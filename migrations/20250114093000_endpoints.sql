CREATE TYPE endpoint_status AS ENUM ('active', 'paused', 'disabled');

CREATE TABLE endpoints (
    id                    bigint          GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id             bigint          NOT NULL REFERENCES tenants ON DELETE CASCADE,
    url                   https_url       NOT NULL,
    host                  text            NOT NULL
                          GENERATED ALWAYS AS (lower(substring(url FROM '^https://([^/:?#]+)'))) STORED,
    status                endpoint_status NOT NULL DEFAULT 'active',
    position              integer         NOT NULL CHECK (position > 0),
    rate_limit_per_second integer         NOT NULL DEFAULT 10 CHECK (rate_limit_per_second BETWEEN 1 AND 1000),
    consecutive_failures  integer         NOT NULL DEFAULT 0 CHECK (consecutive_failures >= 0),
    failure_threshold     integer         NOT NULL DEFAULT 20 CHECK (failure_threshold > 0),
    disabled_reason       text,
    created_at            timestamptz     NOT NULL DEFAULT now(),
    updated_at            timestamptz     NOT NULL DEFAULT now(),
    CONSTRAINT endpoints_url_key UNIQUE (tenant_id, url),
    -- What the composite foreign keys of other tables point at, so that none can mix two tenants.
    CONSTRAINT endpoints_tenant_key UNIQUE (tenant_id, id),
    -- Deferrable: reordering swaps positions, which is a duplicate half of the time.
    CONSTRAINT endpoints_position_key UNIQUE (tenant_id, position) DEFERRABLE INITIALLY IMMEDIATE,
    CONSTRAINT endpoints_reason_when_disabled CHECK ((status = 'disabled') = (disabled_reason IS NOT NULL))
);

CREATE TRIGGER endpoints_touch
    BEFORE UPDATE ON endpoints
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

-- The lock on the tenant makes concurrent registrations queue: without it both would count the same rows
-- and both would take the last place.
CREATE FUNCTION enforce_endpoint_limit() RETURNS trigger
    LANGUAGE plpgsql AS $$
DECLARE
    allowed integer;
    taken   integer;
BEGIN
    SELECT plan_endpoint_limit(plan) INTO allowed FROM tenants WHERE id = NEW.tenant_id FOR NO KEY UPDATE;
    SELECT count(*), coalesce(NEW.position, coalesce(max(position), 0) + 1)
    INTO taken, NEW.position
    FROM endpoints WHERE tenant_id = NEW.tenant_id;
    IF taken >= allowed THEN
        RAISE EXCEPTION 'tenant % has % endpoints, its plan allows %', NEW.tenant_id, taken, allowed
            USING ERRCODE = 'WH429', HINT = 'remove an endpoint or choose a larger plan';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER endpoints_limit
    BEFORE INSERT ON endpoints
    FOR EACH ROW EXECUTE FUNCTION enforce_endpoint_limit();

-- Tenant and default endpoint refer to each other; checked at commit, so that either may be replaced first.
ALTER TABLE tenants
    ADD COLUMN default_endpoint_id bigint,
    ADD CONSTRAINT tenants_default_endpoint_fkey
        FOREIGN KEY (id, default_endpoint_id) REFERENCES endpoints (tenant_id, id)
        DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE endpoint_subscriptions (
    tenant_id   bigint NOT NULL,
    endpoint_id bigint NOT NULL,
    event_type  text   NOT NULL REFERENCES event_types ON UPDATE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint_id, event_type),
    CONSTRAINT endpoint_subscriptions_endpoint_fkey
        FOREIGN KEY (tenant_id, endpoint_id) REFERENCES endpoints (tenant_id, id) ON DELETE CASCADE
);

CREATE INDEX endpoint_subscriptions_type_idx ON endpoint_subscriptions (tenant_id, event_type);
