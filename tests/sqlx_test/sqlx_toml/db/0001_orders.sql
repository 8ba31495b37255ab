-- Nothing but ignored characters:  
CREATE TABLE app.orders (
    id int PRIMARY KEY
);
