CREATE TYPE delivery_status AS ENUM ('pending', 'in_flight', 'retrying', 'delivered', 'dead');

CREATE TABLE deliveries (
    id              bigint          GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       bigint          NOT NULL,
    event_id        bigint          NOT NULL REFERENCES events ON DELETE CASCADE,
    endpoint_id     bigint          NOT NULL,
    status          delivery_status NOT NULL DEFAULT 'pending',
    attempt_count   integer         NOT NULL DEFAULT 0 CHECK (attempt_count >= 0),
    max_attempts    integer         NOT NULL DEFAULT 5,
    next_attempt_at timestamptz     NOT NULL DEFAULT now(),
    locked_by       text,
    locked_until    timestamptz,
    created_at      timestamptz     NOT NULL DEFAULT now(),
    updated_at      timestamptz     NOT NULL DEFAULT now(),
    CONSTRAINT deliveries_event_endpoint_key UNIQUE (event_id, endpoint_id),
    CONSTRAINT deliveries_endpoint_fkey
        FOREIGN KEY (tenant_id, endpoint_id) REFERENCES endpoints (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT deliveries_attempts_in_budget CHECK (attempt_count <= max_attempts),
    CONSTRAINT deliveries_locked_in_flight
        CHECK ((status = 'in_flight') = (locked_by IS NOT NULL) AND (locked_by IS NULL) = (locked_until IS NULL))
);

CREATE INDEX deliveries_endpoint_idx ON deliveries (endpoint_id, status);

CREATE TRIGGER deliveries_touch
    BEFORE UPDATE ON deliveries
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

CREATE FUNCTION delivery_may_become(p_from delivery_status, p_to delivery_status) RETURNS boolean
    LANGUAGE sql IMMUTABLE AS $$
    SELECT p_from = p_to OR (p_from::text, p_to::text) IN (
        ('pending',   'in_flight'),
        ('retrying',  'in_flight'),
        ('in_flight', 'delivered'),
        ('in_flight', 'retrying'),
        ('in_flight', 'dead'),
        ('dead',      'pending'))
$$;

CREATE FUNCTION check_delivery_transition() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    IF NOT delivery_may_become(OLD.status, NEW.status) THEN
        RAISE EXCEPTION 'delivery % cannot go from % to %', OLD.id, OLD.status, NEW.status USING ERRCODE = 'WH001';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER deliveries_transition
    BEFORE UPDATE OF status ON deliveries
    FOR EACH ROW EXECUTE FUNCTION check_delivery_transition();

CREATE FUNCTION fan_out_event() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deliveries (tenant_id, event_id, endpoint_id)
    SELECT NEW.tenant_id, NEW.id, e.id
    FROM endpoints e
    JOIN endpoint_subscriptions s ON s.endpoint_id = e.id AND s.event_type = NEW.event_type
    WHERE e.tenant_id = NEW.tenant_id AND e.status = 'active'
    ORDER BY e.position;
    IF FOUND THEN
        PERFORM pg_notify('webhook_deliveries', NEW.tenant_id::text);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER events_fan_out
    AFTER INSERT ON events
    FOR EACH ROW EXECUTE FUNCTION fan_out_event();

-- SKIP LOCKED: workers never queue for each other. A lease that ran out counts as due: its worker died.
CREATE FUNCTION claim_deliveries(p_tenant_id bigint, p_worker text, p_limit integer, p_lease interval DEFAULT '30 seconds')
    RETURNS SETOF deliveries
    LANGUAGE sql AS $$
    UPDATE deliveries d
    SET status = 'in_flight', locked_by = p_worker, locked_until = clock_timestamp() + p_lease
    WHERE d.id = ANY (ARRAY(
        SELECT c.id FROM deliveries c
        WHERE c.tenant_id = p_tenant_id
          AND ((c.status IN ('pending', 'retrying') AND c.next_attempt_at <= clock_timestamp())
            OR (c.status = 'in_flight' AND c.locked_until < clock_timestamp()))
        ORDER BY c.next_attempt_at, c.id
        LIMIT p_limit
        FOR UPDATE SKIP LOCKED))
    RETURNING d.*
$$;
