CREATE SEQUENCE event_reference_seq START WITH 1000 INCREMENT BY 1;

CREATE TABLE tenant_event_counters (
    tenant_id   bigint PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
    last_number bigint NOT NULL CHECK (last_number > 0)
);

CREATE TABLE events (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id     bigint      NOT NULL REFERENCES tenants ON DELETE CASCADE,
    number        bigint      NOT NULL,
    public_id     uuid        NOT NULL DEFAULT gen_random_uuid() CONSTRAINT events_public_id_key UNIQUE,
    reference     text        NOT NULL DEFAULT 'evt_' || nextval('event_reference_seq') CONSTRAINT events_reference_key UNIQUE,
    event_type    text        NOT NULL REFERENCES event_types ON UPDATE CASCADE,
    payload       jsonb       NOT NULL CONSTRAINT events_payload_is_object CHECK (jsonb_typeof(payload) = 'object'),
    payload_bytes integer     NOT NULL GENERATED ALWAYS AS (octet_length(payload::text)) STORED,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT events_number_key UNIQUE (tenant_id, number),
    CONSTRAINT events_payload_size CHECK (octet_length(payload::text) <= 262144)
);

ALTER SEQUENCE event_reference_seq OWNED BY events.reference;

CREATE INDEX events_type_idx ON events (tenant_id, event_type, created_at);

-- A counter row and not a sequence: consumers rely on numbers without gaps, and a sequence leaks one with
-- every rollback. The price is that one tenant's publishers queue for its counter.
CREATE FUNCTION number_event() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM event_types WHERE name = NEW.event_type AND retired_at IS NOT NULL) THEN
        RAISE EXCEPTION 'event type % is retired', NEW.event_type USING ERRCODE = 'WH410';
    END IF;
    INSERT INTO tenant_event_counters AS c (tenant_id, last_number) VALUES (NEW.tenant_id, 1)
    ON CONFLICT (tenant_id) DO UPDATE SET last_number = c.last_number + 1
    RETURNING last_number INTO NEW.number;
    RETURN NEW;
END
$$;

CREATE TRIGGER events_number
    BEFORE INSERT ON events
    FOR EACH ROW EXECUTE FUNCTION number_event();

CREATE FUNCTION reject_event_update() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'event % was published and cannot change', OLD.id USING ERRCODE = 'WH002';
END
$$;

CREATE TRIGGER events_immutable
    BEFORE UPDATE OF tenant_id, number, public_id, payload, created_at ON events
    FOR EACH ROW EXECUTE FUNCTION reject_event_update();

CREATE TABLE idempotency_keys (
    tenant_id    bigint      NOT NULL REFERENCES tenants ON DELETE CASCADE,
    key          text        NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_hash bytea       NOT NULL,
    event_id     bigint      REFERENCES events ON DELETE CASCADE,
    expires_at   timestamptz NOT NULL DEFAULT now() + interval '24 hours',
    PRIMARY KEY (tenant_id, key)
);

-- The same key with the same request gives the same event; with another request it is the client's mistake.
CREATE FUNCTION publish_event(p_tenant_id bigint, p_type text, p_payload jsonb, p_key text DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql AS $$
DECLARE
    hash  bytea := sha256(convert_to(p_type || E'\n' || p_payload::text, 'UTF8'));
    known idempotency_keys;
    fresh bigint;
BEGIN
    IF p_key IS NOT NULL THEN
        -- Waits for a concurrent request with this key; the SELECT after it then sees what that one stored.
        INSERT INTO idempotency_keys (tenant_id, key, request_hash) VALUES (p_tenant_id, p_key, hash)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT * INTO STRICT known FROM idempotency_keys WHERE tenant_id = p_tenant_id AND key = p_key;
            IF known.request_hash <> hash THEN
                RAISE EXCEPTION 'idempotency key % was used for another request', p_key USING ERRCODE = 'WH409';
            END IF;
            RETURN known.event_id;
        END IF;
    END IF;

    INSERT INTO events (tenant_id, event_type, payload) VALUES (p_tenant_id, p_type, p_payload)
    RETURNING id INTO fresh;
    UPDATE idempotency_keys SET event_id = fresh WHERE tenant_id = p_tenant_id AND key = p_key;
    RETURN fresh;
END
$$;

CREATE FUNCTION purge_idempotency_keys(p_before timestamptz DEFAULT now()) RETURNS bigint
    LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM idempotency_keys WHERE expires_at <= p_before RETURNING 1)
    SELECT count(*) FROM gone
$$;
