-- no-transaction
CREATE INDEX CONCURRENTLY posts_by_author ON posts (author);
