CREATE TABLE event_types (
    name        text PRIMARY KEY
                CONSTRAINT event_types_name_format CHECK (name ~ '^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$'),
    category    text NOT NULL GENERATED ALWAYS AS (split_part(name, '.', 1)) STORED,
    description text NOT NULL DEFAULT '',
    retired_at  timestamptz
);

CREATE INDEX event_types_category_idx ON event_types (category);

INSERT INTO event_types (name, description) VALUES
    ('invoice.created', 'an invoice was drawn up'),
    ('invoice.paid',    'an invoice was settled in full'),
    ('invoice.voided',  'an invoice was withdrawn'),
    ('user.created',    'a user signed up'),
    ('user.deleted',    'a user and their data were removed');
