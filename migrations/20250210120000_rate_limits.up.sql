-- Unlogged: after a crash every bucket may as well be full again.
CREATE UNLOGGED TABLE rate_limit_buckets (
    endpoint_id bigint           PRIMARY KEY REFERENCES endpoints ON DELETE CASCADE,
    tokens      double precision NOT NULL CHECK (tokens >= 0),
    refilled_at timestamptz      NOT NULL
);

-- A token bucket as large as one second's allowance. True when a token was taken; one statement, so that two
-- workers cannot take the same one.
CREATE FUNCTION take_token(p_endpoint_id bigint, p_at timestamptz DEFAULT clock_timestamp()) RETURNS boolean
    LANGUAGE plpgsql AS $$
DECLARE
    rate double precision;
BEGIN
    SELECT rate_limit_per_second INTO rate FROM endpoints WHERE id = p_endpoint_id;
    INSERT INTO rate_limit_buckets AS b (endpoint_id, tokens, refilled_at) VALUES (p_endpoint_id, rate - 1, p_at)
    ON CONFLICT (endpoint_id) DO UPDATE
    SET tokens = least(rate, b.tokens + rate * greatest(0, extract(epoch FROM p_at - b.refilled_at)::double precision)) - 1,
        refilled_at = greatest(p_at, b.refilled_at)
    WHERE least(rate, b.tokens + rate * greatest(0, extract(epoch FROM p_at - b.refilled_at)::double precision)) >= 1;
    RETURN FOUND;
END
$$;
