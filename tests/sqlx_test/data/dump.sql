-- As pg_dump begins.
SELECT pg_catalog.set_config('search_path', '', false);
INSERT INTO public.users VALUES (7, 'grace');
