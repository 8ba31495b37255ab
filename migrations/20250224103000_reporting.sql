CREATE VIEW endpoint_health AS
SELECT e.id AS endpoint_id,
       e.tenant_id,
       e.status,
       count(a.delivery_id) AS attempts,
       count(a.delivery_id) FILTER (WHERE a.succeeded) AS successes,
       -- NULL and not 0 before the first attempt: an endpoint that was never tried is not failing.
       round(avg(a.succeeded::integer), 4) AS success_rate,
       max(a.attempted_at) AS last_attempt_at
FROM endpoints e
LEFT JOIN deliveries d ON d.endpoint_id = e.id
LEFT JOIN delivery_attempts a ON a.delivery_id = d.id
GROUP BY e.id;

-- Subqueries: a join of endpoints with events would count each as often as there are of the other.
CREATE VIEW tenant_usage AS
SELECT t.id AS tenant_id,
       t.slug,
       t.plan,
       (SELECT count(*) FROM endpoints e WHERE e.tenant_id = t.id) AS endpoints,
       plan_endpoint_limit(t.plan) AS endpoint_limit,
       (SELECT count(*) FROM events v WHERE v.tenant_id = t.id) AS events,
       (SELECT coalesce(sum(v.payload_bytes), 0)::bigint FROM events v WHERE v.tenant_id = t.id) AS payload_bytes,
       (SELECT count(*) FROM deliveries d WHERE d.tenant_id = t.id AND d.status = 'dead') AS dead_deliveries
FROM tenants t;

CREATE MATERIALIZED VIEW delivery_stats_hourly AS
SELECT d.tenant_id,
       date_trunc('hour', a.attempted_at AT TIME ZONE 'UTC') AS hour_utc,
       count(*) AS attempts,
       count(*) FILTER (WHERE a.succeeded) AS successes,
       percentile_disc(0.95) WITHIN GROUP (ORDER BY a.latency_ms) AS latency_p95_ms
FROM delivery_attempts a
JOIN deliveries d ON d.id = a.delivery_id
GROUP BY d.tenant_id, hour_utc;

-- REFRESH … CONCURRENTLY needs it.
CREATE UNIQUE INDEX delivery_stats_hourly_key ON delivery_stats_hourly (tenant_id, hour_utc);
