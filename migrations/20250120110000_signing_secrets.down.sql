DROP FUNCTION signature_header(bigint, text, bigint, text);
DROP FUNCTION rotate_signing_secret(bigint, interval);
DROP FUNCTION webhook_signature(bytea, text, bigint, text);
DROP TABLE signing_secrets;
