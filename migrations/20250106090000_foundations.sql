CREATE EXTENSION IF NOT EXISTS pgcrypto;

CREATE DOMAIN slug AS text
    CONSTRAINT slug_format CHECK (VALUE ~ '^[a-z][a-z0-9_-]{1,62}$');

-- Customers' payloads travel to these addresses: plain http is never acceptable.
CREATE DOMAIN https_url AS text
    CONSTRAINT https_url_format CHECK (VALUE ~ '^https://[^/?#[:space:]]+' AND length(VALUE) <= 2048);

-- clock_timestamp() and not now(): two updates in one transaction must be told apart.
CREATE FUNCTION touch_updated_at() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;
