CREATE OR REPLACE FUNCTION delivery_may_become(p_from delivery_status, p_to delivery_status) RETURNS boolean
    LANGUAGE sql IMMUTABLE AS $$
    SELECT p_from = p_to OR (p_from::text, p_to::text) IN (
        ('pending',   'in_flight'),
        ('pending',   'cancelled'),
        ('retrying',  'in_flight'),
        ('retrying',  'cancelled'),
        ('in_flight', 'delivered'),
        ('in_flight', 'retrying'),
        ('in_flight', 'dead'),
        ('dead',      'pending'))
$$;

-- What is in flight is left alone: its worker will report, and the report settles it.
CREATE FUNCTION cancel_waiting_deliveries() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    UPDATE deliveries SET status = 'cancelled'
    WHERE endpoint_id = NEW.id AND status IN ('pending', 'retrying');
    RETURN NULL;
END
$$;

CREATE TRIGGER endpoints_cancel_deliveries
    AFTER UPDATE OF status ON endpoints
    FOR EACH ROW WHEN (NEW.status = 'disabled' AND OLD.status <> 'disabled')
    EXECUTE FUNCTION cancel_waiting_deliveries();
