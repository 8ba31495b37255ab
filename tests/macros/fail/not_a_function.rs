#[kapsel_testdb::test]
struct Test;

fn main() {}
