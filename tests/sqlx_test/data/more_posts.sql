INSERT INTO posts VALUES (3, 1, 'third');
