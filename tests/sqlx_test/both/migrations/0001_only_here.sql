CREATE TABLE only_here (id int PRIMARY KEY);
