-- GitLab 18.9's number of tables (2,119, of which 812 are partitions), sequences and indexes.
CREATE SCHEMA many;
DO $$ BEGIN
  FOR i IN 1..60 LOOP
    EXECUTE format('CREATE TABLE many.p%s (id bigint, part int, a int, b text, PRIMARY KEY (id, part)) PARTITION BY LIST (part)', i);
    FOR n IN 1..3 LOOP EXECUTE format('CREATE INDEX ON many.p%s (%s, id)', i, (ARRAY['a', 'b', 'part'])[n]); END LOOP;
    COMMIT;
  END LOOP;
  FOR i IN 1..812 LOOP EXECUTE format('CREATE TABLE many.p%s_%s PARTITION OF many.p%s FOR VALUES IN (%s)', i % 60 + 1, i, i % 60 + 1, i); COMMIT; END LOOP;
  FOR i IN 1..1247 LOOP
    EXECUTE format('CREATE TABLE many.t%s (id %s PRIMARY KEY, a int, b text, c timestamptz, d bigint REFERENCES many.t%s)', i, CASE WHEN i <= 817 THEN 'bigserial' ELSE 'bigint' END, greatest(i - 1, 1));
    FOR n IN 1..CASE WHEN i <= 682 THEN 4 ELSE 3 END LOOP EXECUTE format('CREATE INDEX ON many.t%s (%s, id)', i, (ARRAY['a', 'b', 'c', 'd'])[n]); END LOOP;
    COMMIT;
  END LOOP;
END $$;
