CREATE TABLE signing_secrets (
    endpoint_id bigint      NOT NULL REFERENCES endpoints ON DELETE CASCADE,
    version     integer     NOT NULL CHECK (version > 0),
    secret      bytea       NOT NULL CONSTRAINT signing_secrets_strength CHECK (octet_length(secret) BETWEEN 24 AND 64),
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- Set by a rotation: until then receivers may still check against this secret.
    expires_at  timestamptz,
    PRIMARY KEY (endpoint_id, version)
);

CREATE UNIQUE INDEX signing_secrets_current_key ON signing_secrets (endpoint_id) WHERE expires_at IS NULL;

-- The scheme of standardwebhooks.com: HMAC-SHA256 over `id.timestamp.body`, in base64, with its version in front.
CREATE FUNCTION webhook_signature(p_secret bytea, p_message_id text, p_timestamp bigint, p_body text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT 'v1,' || encode(
        hmac(convert_to(concat_ws('.', p_message_id, p_timestamp::text, p_body), 'UTF8'), p_secret, 'sha256'),
        'base64')
$$;

CREATE FUNCTION rotate_signing_secret(p_endpoint_id bigint, p_overlap interval DEFAULT '24 hours') RETURNS integer
    LANGUAGE plpgsql AS $$
DECLARE
    next_version integer;
BEGIN
    UPDATE signing_secrets SET expires_at = clock_timestamp() + p_overlap
    WHERE endpoint_id = p_endpoint_id AND expires_at IS NULL;

    INSERT INTO signing_secrets (endpoint_id, version, secret)
    SELECT p_endpoint_id, coalesce(max(version), 0) + 1, gen_random_bytes(32)
    FROM signing_secrets WHERE endpoint_id = p_endpoint_id
    RETURNING version INTO next_version;
    RETURN next_version;
END
$$;

-- One signature per secret that is still good, the newest first: receivers accept any of them.
CREATE FUNCTION signature_header(p_endpoint_id bigint, p_message_id text, p_timestamp bigint, p_body text) RETURNS text
    LANGUAGE sql STABLE AS $$
    SELECT string_agg(webhook_signature(secret, p_message_id, p_timestamp, p_body), ' ' ORDER BY version DESC)
    FROM signing_secrets
    WHERE endpoint_id = p_endpoint_id AND (expires_at IS NULL OR expires_at > clock_timestamp())
$$;
