-- no-transaction
-- CONCURRENTLY, because publishing must go on meanwhile. It allows no transaction, and so only one statement per file.
CREATE INDEX CONCURRENTLY deliveries_due_idx ON deliveries (tenant_id, next_attempt_at, id)
    WHERE status IN ('pending', 'retrying');
