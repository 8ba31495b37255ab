DROP FUNCTION take_token(bigint, timestamptz);
DROP TABLE rate_limit_buckets;
