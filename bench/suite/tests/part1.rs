kapsel_testdb_suite::ten_and_29!();
