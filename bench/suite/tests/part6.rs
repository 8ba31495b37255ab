kapsel_testdb_suite::nine_and_28!();
