CREATE TABLE delivery_attempts (
    delivery_id  bigint      NOT NULL REFERENCES deliveries ON DELETE CASCADE,
    attempt_no   integer     NOT NULL,
    attempted_at timestamptz NOT NULL DEFAULT now(),
    http_status  integer     CHECK (http_status BETWEEN 100 AND 599),
    error        text,
    latency_ms   integer     NOT NULL DEFAULT 0 CHECK (latency_ms >= 0),
    succeeded    boolean     NOT NULL GENERATED ALWAYS AS (coalesce(http_status BETWEEN 200 AND 299, false)) STORED,
    PRIMARY KEY (delivery_id, attempt_no, attempted_at),
    -- Either the receiver answered or there is an error that says why not.
    CONSTRAINT delivery_attempts_answer_or_error CHECK (num_nonnulls(http_status, error) >= 1)
) PARTITION BY RANGE (attempted_at);

CREATE TABLE delivery_attempts_default PARTITION OF delivery_attempts DEFAULT;

-- Creates the month's partition and returns its name; months are those of UTC, whatever the session's time zone.
CREATE FUNCTION ensure_attempt_partition(p_month date) RETURNS text
    LANGUAGE plpgsql AS $$
DECLARE
    first_day date := make_date(extract(year FROM p_month)::integer, extract(month FROM p_month)::integer, 1);
    partition text := 'delivery_attempts_' || to_char(first_day, 'YYYY_MM');
BEGIN
    IF to_regclass(quote_ident(partition)) IS NULL THEN
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF delivery_attempts FOR VALUES FROM (%L) TO (%L)',
            partition, first_day || ' 00:00:00+00', (first_day + interval '1 month')::date || ' 00:00:00+00');
    END IF;
    RETURN partition;
END
$$;

SELECT ensure_attempt_partition(month::date)
FROM generate_series(date '2025-01-01', date '2025-03-01', interval '1 month') AS month;

-- 5 s, 10 s, 20 s, … up to the ceiling. The exponent is bounded: 2 ^ 1000 would overflow the interval.
CREATE FUNCTION next_retry_delay(p_attempt integer, p_base interval DEFAULT '5 seconds', p_ceiling interval DEFAULT '12 hours')
    RETURNS interval
    LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p_attempt < 1 THEN
        RAISE EXCEPTION 'attempts count from 1, got %', p_attempt USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN least(p_base * (2 ^ least(p_attempt - 1, 20)), p_ceiling);
END
$$;

CREATE TYPE dead_letter_reason AS ENUM ('exhausted', 'gone');

CREATE TABLE dead_letters (
    id               bigint             GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery_id      bigint             NOT NULL REFERENCES deliveries ON DELETE CASCADE,
    reason           dead_letter_reason NOT NULL,
    last_http_status integer,
    created_at       timestamptz        NOT NULL DEFAULT now(),
    replayed_at      timestamptz
);

CREATE UNIQUE INDEX dead_letters_open_key ON dead_letters (delivery_id) WHERE replayed_at IS NULL;

CREATE FUNCTION number_attempt() RETURNS trigger
    LANGUAGE plpgsql AS $$
DECLARE
    delivery deliveries;
BEGIN
    SELECT * INTO delivery FROM deliveries WHERE id = NEW.delivery_id FOR UPDATE;
    IF delivery.status <> 'in_flight' THEN
        RAISE EXCEPTION 'delivery % is %, only a claimed one can be attempted', delivery.id, delivery.status
            USING ERRCODE = 'WH001';
    END IF;
    NEW.attempt_no := coalesce(delivery.attempt_count, 0) + 1;
    RETURN NEW;
END
$$;

CREATE TRIGGER delivery_attempts_number
    BEFORE INSERT ON delivery_attempts
    FOR EACH ROW EXECUTE FUNCTION number_attempt();

-- 410 is the receiver's word that it will never answer again: no retry, and nothing more is sent there.
CREATE FUNCTION apply_attempt() RETURNS trigger
    LANGUAGE plpgsql AS $$
DECLARE
    gone     boolean := NEW.http_status IS NOT DISTINCT FROM 410;
    delivery deliveries;
BEGIN
    UPDATE deliveries
    SET attempt_count = NEW.attempt_no,
        locked_by = NULL,
        locked_until = NULL,
        next_attempt_at = NEW.attempted_at + next_retry_delay(NEW.attempt_no),
        status = CASE
            WHEN NEW.succeeded THEN 'delivered'
            WHEN gone OR NEW.attempt_no >= max_attempts THEN 'dead'
            ELSE 'retrying'
        END::delivery_status
    WHERE id = NEW.delivery_id
    RETURNING * INTO delivery;

    IF delivery.status = 'dead' THEN
        INSERT INTO dead_letters (delivery_id, reason, last_http_status)
        VALUES (delivery.id, CASE WHEN gone THEN 'gone' ELSE 'exhausted' END::dead_letter_reason, NEW.http_status);
    END IF;

    UPDATE endpoints
    SET consecutive_failures = CASE WHEN NEW.succeeded THEN 0 ELSE consecutive_failures + 1 END
    WHERE id = delivery.endpoint_id;

    -- A statement of its own: the audit trail listens to `status`, and should not hear of every attempt.
    UPDATE endpoints
    SET status = 'disabled', disabled_reason = CASE WHEN gone THEN 'gone' ELSE 'too many failures' END
    WHERE id = delivery.endpoint_id AND status <> 'disabled'
      AND (gone OR consecutive_failures >= failure_threshold);
    RETURN NULL;
END
$$;

CREATE TRIGGER delivery_attempts_apply
    AFTER INSERT ON delivery_attempts
    FOR EACH ROW EXECUTE FUNCTION apply_attempt();

CREATE FUNCTION replay_dead_letter(p_id bigint, p_extra_attempts integer DEFAULT 3) RETURNS bigint
    LANGUAGE plpgsql AS $$
DECLARE
    target bigint;
BEGIN
    UPDATE dead_letters SET replayed_at = clock_timestamp() WHERE id = p_id AND replayed_at IS NULL
    RETURNING delivery_id INTO target;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no open dead letter %', p_id USING ERRCODE = 'no_data_found';
    END IF;
    UPDATE deliveries
    SET status = 'pending', max_attempts = attempt_count + p_extra_attempts, next_attempt_at = now()
    WHERE id = target;
    RETURN target;
END
$$;
