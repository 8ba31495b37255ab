-- no-transaction
-- A new enum value cannot be used by the transaction that adds it: the migration after this one uses it.
ALTER TYPE delivery_status ADD VALUE 'cancelled';
