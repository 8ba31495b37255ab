CREATE TABLE api_keys (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id    bigint      NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name         text        NOT NULL,
    prefix       text        NOT NULL CONSTRAINT api_keys_prefix_key UNIQUE,
    key_hash     bytea       NOT NULL CHECK (octet_length(key_hash) = 32),
    scopes       text[]      NOT NULL DEFAULT '{publish}',
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    CONSTRAINT api_keys_scopes_known CHECK (scopes <@ ARRAY['publish', 'read', 'admin'] AND cardinality(scopes) > 0),
    CONSTRAINT api_keys_expire_after_creation CHECK (expires_at > created_at)
);

-- A revoked key keeps its name for the record; the name is free for its successor.
CREATE UNIQUE INDEX api_keys_live_name_key ON api_keys (tenant_id, name) WHERE revoked_at IS NULL;

-- The plain text is returned here, once, and stored nowhere.
CREATE FUNCTION issue_api_key(p_tenant_id bigint, p_name text, p_ttl interval DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql AS $$
DECLARE
    key_prefix text := encode(gen_random_bytes(6), 'hex');
    plain_text text := 'whk_' || key_prefix || '_' || encode(gen_random_bytes(24), 'hex');
BEGIN
    INSERT INTO api_keys (tenant_id, name, prefix, key_hash, expires_at)
    VALUES (p_tenant_id, p_name, key_prefix, sha256(convert_to(plain_text, 'UTF8')), now() + p_ttl);
    RETURN plain_text;
END
$$;

-- The tenant that the key speaks for, or NULL: the caller learns nothing about why a key is not good.
CREATE FUNCTION authenticate_api_key(p_key text) RETURNS bigint
    LANGUAGE sql AS $$
    UPDATE api_keys k
    SET last_used_at = clock_timestamp()
    FROM tenants t
    WHERE k.prefix = split_part(p_key, '_', 2)
      AND k.key_hash = sha256(convert_to(p_key, 'UTF8'))
      AND k.revoked_at IS NULL
      AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
      AND t.id = k.tenant_id
      AND t.suspended_at IS NULL
    RETURNING k.tenant_id
$$;
