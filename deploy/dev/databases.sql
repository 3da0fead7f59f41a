-- The catalog's database is POSTGRES_DB; this one holds the tables.
CREATE DATABASE storage;
